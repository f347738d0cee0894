//! Addresses to which the gateway connects for a URL that a client has chosen: public ones, and those of hosts that the operator
//! allows. Without this, a client could make the gateway send requests to services that only its machine or network can reach.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::net::lookup_host;

/// The longest name of a host, in bytes (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// IPv4 networks that are not public (IANA's registry of special-purpose addresses, and multicast).
const SPECIAL_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The IPv6 addresses that are assigned to networks; all others are for special purposes.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// The parts of [`GLOBAL_V6`] that are not public: Teredo, benchmarks and ORCHID; documentation; 6to4, whose addresses contain an
/// IPv4 address that a relay connects to; documentation.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Addresses that a NAT64 translates to the IPv4 address in their last 32 bits (RFC 6052). In a network without IPv4 they stand for
/// the public hosts that have no IPv6 address.
const NAT64: (Ipv6Addr, u8) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Looks up the addresses of a host.
pub trait Resolve: Send + Sync + 'static {
    /// Returns the addresses of `host`, which is a name or an address.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolved<'a>;
}

/// The future of a lookup.
pub type Resolved<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Looks up hosts as the operating system does.
#[derive(Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolved<'a> {
        Box::pin(async move { Ok(lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// The hosts and networks that the operator allows besides public addresses. Only URLs that clients choose are subject to it.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    hosts: Vec<String>,
    networks: Vec<IpNet>,
}

/// The text is neither the name of a host nor an address or a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a host, an address, or a network such as 10.0.0.0/8")]
pub struct InvalidAllowedHost(pub String);

impl AddressPolicy {
    /// Creates a policy that allows public addresses, and the hosts, addresses and networks in `allowed`.
    pub fn new(allowed: &[String]) -> Result<Self, InvalidAllowedHost> {
        let mut policy = Self::default();
        for text in allowed {
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            let network = bare.parse::<IpNet>().ok().or_else(|| Some(bare.parse::<IpAddr>().ok()?.into()));
            match network {
                Some(network) => policy.networks.push(network),
                None if is_host_name(text) => policy.hosts.push(text.to_ascii_lowercase()),
                None => return Err(InvalidAllowedHost(text.clone())),
            }
        }
        Ok(policy)
    }

    /// Allows loopback addresses too.
    pub fn allowing_loopback(mut self) -> Self {
        self.networks.extend(Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).map(IpNet::from));
        self.networks.push(IpAddr::V6(Ipv6Addr::LOCALHOST).into());
        self
    }

    /// Whether a connection to `address`, which is one of `host`, is allowed.
    pub fn allows(&self, host: &str, address: IpAddr) -> bool {
        self.names(host, address) || is_public(address)
    }

    /// Whether the operator allows `address`, which is one of `host`, besides public addresses.
    pub fn names(&self, host: &str, address: IpAddr) -> bool {
        let is_named = self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
        is_named || self.networks.iter().any(|network| network.contains(&address.to_canonical()))
    }
}

fn is_host_name(text: &str) -> bool {
    let is_part = |one: char| one.is_ascii_alphanumeric() || "-_.".contains(one);
    !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.chars().all(is_part)
}

/// Whether an address is one of the public internet, which anybody could connect to.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !SPECIAL_V4.into_iter().any(|(net, length)| contains_v4(net, length, address)),
        IpAddr::V6(address) => {
            let is_in =
                |(net, length)| Ipv6Net::new(net, length).is_ok_and(|network| network.contains(&address));
            if is_in(NAT64) {
                let [.., a, b, c, d] = address.octets();
                return is_public(Ipv4Addr::new(a, b, c, d).into());
            }
            is_in(GLOBAL_V6) && !SPECIAL_V6.into_iter().any(is_in)
        }
    }
}

fn contains_v4(net: Ipv4Addr, length: u8, address: Ipv4Addr) -> bool {
    Ipv4Net::new(net, length).is_ok_and(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for (text, what) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "this network"),
            ("10.0.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "CGNAT"),
            ("100.127.255.255", "CGNAT"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.169.254", "link-local, metadata of clouds"),
            ("192.0.0.8", "protocol assignments"),
            ("192.0.2.1", "documentation"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("192.88.99.1", "6to4 relay"),
            ("198.18.0.1", "benchmarks"),
            ("198.19.255.255", "benchmarks"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::7f00:1", "v4-compatible"),
            ("::ffff:127.0.0.1", "v4-mapped"),
            ("::ffff:10.0.0.1", "v4-mapped"),
            ("::ffff:0:10.0.0.1", "v4-translated"),
            ("64:ff9b::10.0.0.1", "NAT64"),
            ("64:ff9b::127.0.0.1", "NAT64"),
            ("64:ff9b:1::8.8.8.8", "NAT64 of a network"),
            ("100::1", "discard"),
            ("2001::1", "Teredo"),
            ("2001:2::1", "benchmarks"),
            ("2001:20::1", "ORCHID"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("2002:7f00:1::1", "6to4"),
            ("2002:808:808::1", "6to4"),
            ("5f00::1", "SRv6"),
            ("fc00::1", "ULA"),
            ("fd12:3456::1", "ULA"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}: {what}");
        }
    }

    #[test]
    fn an_operator_allows_hosts_addresses_and_networks() {
        let allowed = ["Hooks.internal", "10.1.0.0/16", "192.168.7.7", "[fd00::1]"].map(str::to_owned);
        let policy = AddressPolicy::new(&allowed).unwrap();
        let allows = |host: &str, address: &str| policy.allows(host, address.parse().unwrap());
        assert!(
            allows("hooks.INTERNAL", "10.9.9.9") && allows("x", "10.1.2.3") && allows("x", "::ffff:10.1.2.3")
        );
        assert!(allows("x", "192.168.7.7") && allows("x", "fd00::1") && allows("x", "8.8.8.8"));
        assert!(
            !allows("x", "10.2.0.1") && !allows("x.hooks.internal", "10.9.9.9") && !allows("x", "fd00::2")
        );
        assert!(!allows("x", "127.0.0.1"));
        let local = policy.allowing_loopback();
        assert!(local.allows("x", "127.8.0.1".parse().unwrap()) && local.allows("x", "::1".parse().unwrap()));
        for text in ["", "a b", "http://a", "10.0.0.0/40", "a/b"] {
            assert!(AddressPolicy::new(&[text.to_owned()]).is_err(), "{text:?}");
        }
    }
}
