//! [`Jid`]: an address of XMPP (RFC 7622).
//!
//! Addresses are compared byte by byte. The server at the other end of a component's link has prepared those that it sends, and the
//! gateway makes those of its own clients; an address that a client writes in another form than the server does is another address.

use std::fmt;
use std::sync::Arc;

/// Maximum length of each part, in bytes (RFC 7622, sections 3.2 to 3.4).
const PART_BYTES_MAX: usize = 1023;

/// Characters that a local part must not contain (RFC 7622, section 3.3.1).
const NOT_LOCAL: [char; 8] = ['"', '&', '\'', '/', ':', '<', '>', '@'];

/// An address: `local@domain/resource`, of which only the domain must be there. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Jid(Arc<str>);

/// The text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an XMPP address is local@domain/resource, with at most 1023 bytes in each part")]
pub struct InvalidJid;

impl Jid {
    /// Parses an address.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidJid> {
        let (bare, resource) = split_resource(text);
        let (local, domain) = match bare.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, bare),
        };
        let fits =
            |part: &str| !part.is_empty() && part.len() <= PART_BYTES_MAX && !part.contains(char::is_control);
        let is_plain =
            |part: &str| fits(part) && !part.contains(char::is_whitespace) && !part.contains(NOT_LOCAL);
        // Colons are in addresses of IPv6.
        let is_domain = fits(domain) && !domain.contains(['@', '<', '>', '&', '"', '\'', ' ']);
        let is_valid = is_domain && local.is_none_or(is_plain) && resource.is_none_or(fits);
        if is_valid { Ok(Self(text.into())) } else { Err(InvalidJid) }
    }

    /// Parses the address of a service, which is only a domain.
    pub(super) fn parse_domain(text: &str) -> Result<Self, InvalidJid> {
        Self::parse(text).ok().filter(|jid| jid.as_str() == jid.domain()).ok_or(InvalidJid)
    }

    /// Sorts before every address. It is none.
    pub(super) fn least() -> Self {
        Self("".into())
    }

    /// The address as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The address without the resource.
    pub(super) fn bare(&self) -> Self {
        match split_resource(&self.0) {
            (bare, Some(_)) => Self(bare.into()),
            (_, None) => self.clone(),
        }
    }

    /// Whether the address has no resource.
    pub(super) fn is_bare(&self) -> bool {
        !self.0.contains('/')
    }

    /// The domain.
    pub(super) fn domain(&self) -> &str {
        let (bare, _) = split_resource(&self.0);
        bare.split_once('@').map_or(bare, |(_, domain)| domain)
    }
}

fn split_resource(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((bare, resource)) => (bare, Some(resource)),
        None => (text, None),
    }
}

impl fmt::Debug for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_three_parts() {
        let of = |text: &str| {
            let jid = Jid::parse(text).unwrap();
            (jid.bare().to_string(), jid.domain().to_owned(), jid.is_bare())
        };
        assert_eq!(of("a@b.example/c@d/e"), ("a@b.example".into(), "b.example".into(), false));
        assert_eq!(of("b.example"), ("b.example".into(), "b.example".into(), true));
        assert_eq!(of("[::1]/x"), ("[::1]".into(), "[::1]".into(), false));
        assert_eq!(of("ä@ö"), ("ä@ö".into(), "ö".into(), true));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("a@b/{}", "x".repeat(1024));
        for text in ["", "@b", "a@", "a@b/", "/c", "a b@c", "a@b@c", "a\0@b", "a@b/\n", "a'@b", &long] {
            assert_eq!(Jid::parse(text), Err(InvalidJid), "{text:?}");
        }
        assert!(Jid::parse(&long[..long.len() - 1]).is_ok());
    }
}
