//! Proxies in front of the gateway, and the address of the client that they tell in `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! A proxy appends the address of its own client to what it has received, so that only the end of the list can be trusted: the
//! address of the client is the last one that is not itself a proxy's. Everything before it is what the client says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

use super::fields::Fields;
use crate::auth::Grants;
use crate::budget::principal_of;
use crate::stream::Principal;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A text that is no network.
#[derive(Debug, thiserror::Error)]
#[error("--behind-proxy {0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct InvalidNetwork(String);

/// The networks of the proxies in front of the gateway.
#[derive(Debug, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
}

impl TrustedProxies {
    /// Parses addresses and networks.
    pub fn new(texts: &[String]) -> Result<Self, InvalidNetwork> {
        let network = |text: &String| {
            let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            parsed.map_err(|_| InvalidNetwork(text.clone()))
        };
        Ok(Self { networks: texts.iter().map(network).collect::<Result<_, _>>()? })
    }

    /// Whether a proxy has the address. An IPv4 address in an IPv6 one counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Returns the address of the client of a request that a proxy has sent. `None`: the proxy tells none, or none that can be
    /// used, or only those of other proxies. `Forwarded` counts only if there is no `X-Forwarded-For`, which most proxies send:
    /// they pass on a `Forwarded` that the client has made up.
    pub(in crate::http) fn client(&self, fields: &(impl Fields + ?Sized)) -> Option<IpAddr> {
        let elements = |name| fields.values(name).flat_map(|value: &[u8]| value.split(|byte| *byte == b','));
        let mut client = None;
        if fields.values(&X_FORWARDED_FOR).next().is_some() {
            self.note_all(elements(&X_FORWARDED_FOR).map(node), &mut client);
        } else {
            self.note_all(elements(&FORWARDED).map(|element| node(parameter(element)?)), &mut client);
        }
        client
    }

    /// The addresses are noted in the order of the list, each in place of the one before, except those of proxies.
    fn note_all(&self, addresses: impl Iterator<Item = Option<IpAddr>>, client: &mut Option<IpAddr>) {
        for address in addresses {
            if !address.is_some_and(|address| self.contains(address)) {
                *client = address;
            }
        }
    }
}

/// The client of a request: of the connection, or of the proxy that has opened it.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct ClientSource<'a> {
    /// The principal of the address that the connection comes from.
    pub(in crate::http) connection: Principal,
    /// The address that a proxy tells. `None`: the client has opened the connection itself.
    pub(in crate::http) forwarded: Option<IpAddr>,
    /// The rights of the client's certificate.
    pub(in crate::http) certificate: Option<&'a Arc<Grants>>,
}

impl ClientSource<'_> {
    /// The principal of the client's address.
    pub(in crate::http) fn principal(self) -> Principal {
        self.forwarded.map_or(self.connection, principal_of)
    }
}

/// The value of `for` in an element of `Forwarded`.
fn parameter(element: &[u8]) -> Option<&[u8]> {
    element.split(|byte| *byte == b';').find_map(|pair| {
        let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        name.trim_ascii().eq_ignore_ascii_case(b"for").then_some(value.get(1..)?)
    })
}

/// The address in the identification of a node: an address with an optional port, perhaps in quotes (RFC 7239, section 6).
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse().ok().or_else(in_brackets);
    let address = address.or_else(|| text.parse().ok().map(|node: SocketAddr| node.ip()));
    Some(address?.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::HeaderValue;

    use super::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(&["10.0.0.0/8".to_owned(), "127.0.0.1".to_owned(), "fd00::/8".to_owned()])
            .unwrap()
    }

    fn client(name: HeaderName, values: &[&str]) -> Option<String> {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(&name, HeaderValue::from_str(value).unwrap());
        }
        proxies().client(&fields).map(|address| address.to_string())
    }

    #[test]
    fn proxies_are_known_by_their_addresses() {
        let is_proxy = |text: &str| proxies().contains(text.parse().unwrap());
        assert!(is_proxy("10.255.0.1") && is_proxy("127.0.0.1") && is_proxy("fd00::1"));
        assert!(is_proxy("::ffff:10.0.0.1"));
        assert!(!is_proxy("11.0.0.1") && !is_proxy("127.0.0.2") && !is_proxy("fe80::1"));
        assert!(TrustedProxies::new(&["10.0.0.0/33".to_owned()]).is_err());
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy() {
        for (values, expected) in [
            (&["203.0.113.7"][..], Some("203.0.113.7")),
            (&["6.6.6.6, 203.0.113.7"], Some("203.0.113.7")),
            (&["6.6.6.6,203.0.113.7 , 10.1.2.3,127.0.0.1"], Some("203.0.113.7")),
            (&["6.6.6.6", "203.0.113.7", "10.0.0.1"], Some("203.0.113.7")),
            (&["::ffff:203.0.113.7"], Some("203.0.113.7")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["[2001:db8::1]:443"], Some("2001:db8::1")),
            (&["203.0.113.7:4711"], Some("203.0.113.7")),
            (&["garbage, 203.0.113.7"], Some("203.0.113.7")),
            (&["203.0.113.7, garbage"], None),
            (&["203.0.113.7, unknown, 10.0.0.1"], None),
            (&["203.0.113.7,"], None),
            (&["10.0.0.1, 127.0.0.1"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(client(X_FORWARDED_FOR, values).as_deref(), expected, "{values:?}");
        }
    }

    #[test]
    fn forwarded_tells_the_same() {
        for (values, expected) in [
            (&["for=203.0.113.7"][..], Some("203.0.113.7")),
            (&["for=6.6.6.6, For=203.0.113.7;proto=https;by=10.0.0.9, for=10.0.0.1"], Some("203.0.113.7")),
            (&["proto=http; for=\"[2001:db8::1]:4711\""], Some("2001:db8::1")),
            (&["for=203.0.113.7, for=unknown"], None),
            (&["for=203.0.113.7, for=_hidden"], None),
            (&["for=203.0.113.7, proto=https"], None),
            // An open quote of the client does not swallow what the proxy has added.
            (&["for=\"6.6.6.6, for=203.0.113.7"], Some("203.0.113.7")),
        ] {
            assert_eq!(client(FORWARDED, values).as_deref(), expected, "{values:?}");
        }
    }

    #[test]
    fn a_forwarded_of_the_client_does_not_count_beside_the_field_of_the_proxy() {
        let mut fields = HeaderMap::new();
        fields.append(FORWARDED, HeaderValue::from_static("for=6.6.6.6"));
        fields.append(X_FORWARDED_FOR, HeaderValue::from_static("203.0.113.7"));
        assert_eq!(proxies().client(&fields), Some([203, 0, 113, 7].into()));
    }
}
