//! SASL (RFC 6120, section 6): reads what a client sends to say who it is. Without IO and clock.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;

use crate::xmpp::jid::Jid;
use crate::xmpp::xml::element;

pub(super) const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

/// The ways to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// RFC 4616: the password is a token.
    Plain,
    /// RFC 7628.
    OAuthBearer,
    /// RFC 4505: what clients without a token may do.
    Anonymous,
}

/// Who a client says that it is. Debug output has no token.
#[derive(PartialEq, Eq)]
pub(super) struct Credentials {
    /// The address that it wants, without a resource.
    pub(super) user: Jid,
    /// `None`: it has none.
    pub(super) token: Option<String>,
}

/// Why a client is not authenticated (RFC 6120, section 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SaslError {
    Aborted,
    IncorrectEncoding,
    InvalidAuthzid,
    InvalidMechanism,
    Malformed,
    NotAuthorized,
    /// Worth another attempt later.
    Temporary,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::OAuthBearer, Self::Anonymous];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::Anonymous => "ANONYMOUS",
        }
    }

    pub(super) fn parse(name: &str) -> Result<Self, SaslError> {
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or(SaslError::InvalidMechanism)
    }

    /// The list for the features of a stream.
    pub(super) fn offered() -> Element {
        let names = Self::ALL.map(|known| element("mechanism", SASL).append(known.name()).build());
        element("mechanisms", SASL).append_all(names).build()
    }

    /// Reads the first message of a client, in base64. `=` stands for an empty one. `domain` is that of the gateway.
    pub(super) fn credentials(self, message: &str, domain: &Jid) -> Result<Credentials, SaslError> {
        let message = match message.trim() {
            "=" => Vec::new(),
            encoded => STANDARD.decode(encoded).map_err(|_| SaslError::IncorrectEncoding)?,
        };
        let message = String::from_utf8(message).map_err(|_| SaslError::Malformed)?;
        match self {
            Self::Plain => plain(&message, domain),
            Self::OAuthBearer => bearer(&message, domain),
            Self::Anonymous => Ok(Credentials { user: random_user(domain)?, token: None }),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd`
fn plain(message: &str, domain: &Jid) -> Result<Credentials, SaslError> {
    let parts: Vec<_> = message.split('\0').collect();
    let &[authorized, name, password] = parts.as_slice() else { return Err(SaslError::Malformed) };
    let user = user(name, domain)?;
    if !authorized.is_empty() && Jid::parse(authorized).ok().as_ref() != Some(&user) {
        return Err(SaslError::InvalidAuthzid);
    }
    Ok(Credentials { user, token: Some(password.to_owned()) })
}

/// `n,[a=authzid],^A(key=value^A)*^A`
fn bearer(message: &str, domain: &Jid) -> Result<Credentials, SaslError> {
    let (header, pairs) = message.split_once('\u{1}').ok_or(SaslError::Malformed)?;
    let named = header.strip_prefix("n,").or_else(|| header.strip_prefix("y,"));
    let named = named.and_then(|rest| rest.strip_suffix(',')).ok_or(SaslError::Malformed)?;
    let user = match named.strip_prefix("a=") {
        Some(name) => user(name, domain)?,
        None if named.is_empty() => random_user(domain)?,
        None => return Err(SaslError::Malformed),
    };
    let value =
        pairs.split('\u{1}').find_map(|pair| pair.strip_prefix("auth=")).ok_or(SaslError::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(SaslError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(SaslError::Malformed);
    }
    Ok(Credentials { user, token: Some(token.trim().to_owned()) })
}

/// The address of a user, who is named with the domain or without.
fn user(name: &str, domain: &Jid) -> Result<Jid, SaslError> {
    let full = if name.contains('@') { name.to_owned() } else { format!("{name}@{domain}") };
    let user = Jid::parse(&full).map_err(|_| SaslError::InvalidAuthzid)?;
    let is_own = user.is_bare() && user.domain() == domain.as_str() && user != *domain;
    if is_own { Ok(user) } else { Err(SaslError::InvalidAuthzid) }
}

fn random_user(domain: &Jid) -> Result<Jid, SaslError> {
    user(&format!("{:016x}", fastrand::u64(..)), domain)
}

impl SaslError {
    pub(super) fn to_element(self) -> Element {
        let condition = match self {
            Self::Aborted => "aborted",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::Malformed => "malformed-request",
            Self::NotAuthorized => "not-authorized",
            Self::Temporary => "temporary-auth-failure",
        };
        element("failure", SASL).append(element(condition, SASL).build()).build()
    }
}

/// What OAUTHBEARER answers to a token that does not count (RFC 7628, section 3.2.2), in base64.
pub(super) fn invalid_token() -> Element {
    element("challenge", SASL).append(STANDARD.encode(r#"{"status":"invalid_token"}"#)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mechanism: Mechanism, message: &str) -> Result<(String, Option<String>), SaslError> {
        let domain = Jid::parse("b.example").unwrap();
        let read = mechanism.credentials(&STANDARD.encode(message), &domain);
        read.map(|found| (found.user.to_string(), found.token))
    }

    #[test]
    fn plain_has_a_name_and_a_password() {
        let plain = |message| read(Mechanism::Plain, message);
        let token = |user: &str| Ok((user.to_owned(), Some("token".to_owned())));
        assert_eq!(plain("\0anna\0token"), token("anna@b.example"));
        assert_eq!(plain("\0anna@b.example\0token"), token("anna@b.example"));
        assert_eq!(plain("anna@b.example\0anna\0token"), token("anna@b.example"));
        for (message, expected) in [
            ("eve@b.example\0anna\0token", SaslError::InvalidAuthzid),
            ("\0anna@c.example\0token", SaslError::InvalidAuthzid),
            ("\0anna@b.example/x\0token", SaslError::InvalidAuthzid),
            ("\0\0token", SaslError::InvalidAuthzid),
            ("anna\0token", SaslError::Malformed),
            ("\0anna\0token\0", SaslError::Malformed),
        ] {
            assert_eq!(plain(message), Err(expected), "{message:?}");
        }
        let domain = Jid::parse("b").unwrap();
        for (message, expected) in
            [("!", SaslError::IncorrectEncoding), ("=", SaslError::Malformed), ("/w==", SaslError::Malformed)]
        {
            assert_eq!(Mechanism::Plain.credentials(message, &domain).err(), Some(expected), "{message}");
        }
    }

    #[test]
    fn a_bearer_token_comes_with_a_name_or_without() {
        let bearer = |message| read(Mechanism::OAuthBearer, message);
        let (user, token) = bearer("n,a=anna@b.example,\u{1}host=x\u{1}auth=Bearer token\u{1}\u{1}").unwrap();
        assert_eq!((&*user, token.as_deref()), ("anna@b.example", Some("token")));
        let (user, token) = bearer("n,,\u{1}auth=bearer token\u{1}\u{1}").unwrap();
        assert!(user.ends_with("@b.example") && token.as_deref() == Some("token"));
        for malformed in [
            "",
            "n,,",
            "n,,\u{1}\u{1}",
            "p=x,,\u{1}auth=Bearer t\u{1}\u{1}",
            "n,,\u{1}auth=Basic t\u{1}\u{1}",
            "n,x,\u{1}auth=Bearer t\u{1}\u{1}",
        ] {
            assert_eq!(bearer(malformed), Err(SaslError::Malformed), "{malformed:?}");
        }
    }
}
