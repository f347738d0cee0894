//! The authority of a URL: a host with an optional port (RFC 3986, section 3.2), as in `Host`, `:authority` and `Origin`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host and a port. Parsing it allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Authority<'a> {
    pub(in crate::http) host: Host<'a>,
    /// `None`: the default port of the scheme.
    pub(in crate::http) port: Option<u16>,
}

/// A host by its name or its address. Names are compared without regard to case.
#[derive(Debug, Clone, Copy, Eq)]
pub(in crate::http) enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

impl<'a> Authority<'a> {
    /// Parses `host`, `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`. An empty host and a user name are invalid in HTTP
    /// (RFC 9110, sections 4.2.1 and 4.2.4).
    pub(in crate::http) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, behind) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, behind) = rest.split_once(']')?;
                (Host::Address(address.parse::<Ipv6Addr>().ok()?.into()), behind)
            }
            None => {
                let (name, behind) = text.split_at(text.find(':').unwrap_or(text.len()));
                (Host::parse_name(name)?, behind)
            }
        };
        let port = match behind.strip_prefix(':') {
            None if behind.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { host, port })
    }
}

impl<'a> Host<'a> {
    /// Parses a name, or an address in dotted decimals.
    fn parse_name(text: &'a str) -> Option<Self> {
        // The characters of `reg-name` (RFC 3986, section 3.2.2).
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_allowed) {
            return None;
        }
        let may_be_address = text.ends_with(|last: char| last.is_ascii_digit());
        let address = may_be_address.then(|| text.parse::<Ipv4Addr>().ok()).flatten();
        Some(address.map_or(Self::Name(text), |address| Self::Address(address.into())))
    }

    /// Whether the host always is the machine that resolves it, independent of DNS (RFC 6761, section 6.3).
    pub(in crate::http) fn is_loopback(self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => {
                let last = without_root(name).rsplit('.').next().unwrap_or_default();
                last.eq_ignore_ascii_case("localhost")
            }
        }
    }

    /// Whether both name the same host. Unlike `==` this ignores a trailing dot.
    pub(in crate::http) fn is_alias_of(self, other: Self) -> bool {
        match (self, other) {
            (Self::Name(one), Self::Name(other)) => {
                without_root(one).eq_ignore_ascii_case(without_root(other))
            }
            (one, other) => one == other,
        }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(one), Self::Name(other)) => one.eq_ignore_ascii_case(other),
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Name(_), Self::Address(_)) | (Self::Address(_), Self::Name(_)) => false,
        }
    }
}

/// The name without the dot of the DNS root.
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Authority<'_>> {
        Authority::parse(text.as_bytes())
    }

    #[test]
    fn hosts_have_names_or_addresses_and_perhaps_a_port() {
        for (text, host, port) in [
            ("localhost", Host::Name("localhost"), None),
            ("localhost:", Host::Name("LOCALHOST"), None),
            ("Gate.Example:4437", Host::Name("gate.example"), Some(4437)),
            ("127.0.0.1:80", Host::Address([127, 0, 0, 1].into()), Some(80)),
            ("[::1]", Host::Address(Ipv6Addr::LOCALHOST.into()), None),
            ("[2001:DB8::1]:8080", Host::Address("2001:db8::1".parse().unwrap()), Some(8080)),
            ("127.1", Host::Name("127.1"), None),
            ("a_b.example", Host::Name("a_b.example"), None),
            ("x:65535", Host::Name("x"), Some(65535)),
        ] {
            assert_eq!(parse(text), Some(Authority { host, port }), "{text}");
        }
        for text in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:65536",
            "a:+1",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]80",
            "[::1%25lo]",
            "[127.0.0.1]",
            "h\u{f6}st",
            "a\\b",
            "http://a",
            "a,b ",
            "a?",
            "a#",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(Authority::parse(b"\xff"), None);
    }

    #[test]
    fn loopback_names_lead_to_no_other_machine() {
        for text in [
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "a.localhost",
            "a.b.LocalHost.:80",
            "127.0.0.1",
            "127.255.255.254:9",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(parse(text).unwrap().host.is_loopback(), "{text}");
        }
        for text in [
            "localhost.example",
            "notlocalhost",
            "localhost..",
            "128.0.0.1",
            "0.0.0.0",
            "127.0.0.1.example",
            "127.0.0.1.",
            "[::2]",
            "[::]",
            "rebind.test",
            "localhost%2e",
        ] {
            assert!(!parse(text).unwrap().host.is_loopback(), "{text}");
        }
    }
}
