//! [`Destination`]: where requests go, from a URL, with what it trusts and which addresses it may have.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use hyper::Uri;
use rustls_platform_verifier::Verifier;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::address::AddressPolicy;

/// The longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// The application protocols that are offered in a TLS handshake, in the order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The addresses that a destination may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum AllowedAddresses {
    /// Any: the operator has chosen the URL.
    Any,
    /// Loopback addresses, because the requests are not encrypted.
    Loopback,
    /// Those that the [`AddressPolicy`](super::AddressPolicy) allows: a client has chosen the URL.
    Allowed,
    /// The same, but without encryption only those that the operator allows besides public ones.
    Named,
}

/// The certificates that are trusted. Cheap to clone; clones are equal.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

/// Why certificates cannot be trusted. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The roots of the operating system or the settings of TLS cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The file cannot be used.
    #[error("cannot read the roots of {file}: {why}")]
    Roots {
        /// The path of the file.
        file: String,
        /// Why it cannot be used.
        why: String,
    },
}

/// The URL cannot be a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the URL must be https://, or http:// to a loopback address, without a password, and at most 2048 bytes long"
)]
pub struct InvalidUrl;

/// Where requests go. Cheap to clone.
#[derive(Clone)]
pub struct Destination(Arc<Parts>);

struct Parts {
    place: TargetUrl,
    reach: AllowedAddresses,
    tls: Option<(Trust, ServerName<'static>)>,
}

/// A URL that requests may go to.
struct TargetUrl {
    host: String,
    port: u16,
    /// Host and port as the URL has them.
    authority: String,
    /// Path and query, which a request without a path of its own gets.
    path: String,
    is_encrypted: bool,
}

/// Tells destinations apart that may not share a connection.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ConnectionKey {
    host: String,
    port: u16,
    reach: AllowedAddresses,
    trust: Option<Trust>,
}

impl Trust {
    /// Trusts the roots of the operating system, and those in the file `further`, if there is one.
    pub fn system(further: Option<&Path>) -> Result<Self, TrustError> {
        let roots = further.map(roots).transpose()?.unwrap_or_default();
        let verifier = Arc::new(Verifier::new_with_extra_roots(roots, Arc::new(default_provider()))?);
        let builder = builder()?.dangerous().with_custom_certificate_verifier(verifier);
        Ok(Self::of(builder.with_no_client_auth()))
    }

    /// Trusts the roots in a file, and no others.
    pub fn only(file: &Path) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        for root in roots(file)? {
            store.add(root)?;
        }
        Self::roots(store)
    }

    /// Trusts nothing, for destinations without encryption.
    pub fn nothing() -> Result<Self, TrustError> {
        Self::roots(RootCertStore::empty())
    }

    fn roots(store: RootCertStore) -> Result<Self, TrustError> {
        Ok(Self::of(builder()?.with_root_certificates(store).with_no_client_auth()))
    }

    fn of(mut config: ClientConfig) -> Self {
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Self(Arc::new(config))
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()
}

fn roots(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let roots = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    roots.map_err(|error| TrustError::Roots { file: file.display().to_string(), why: error.to_string() })
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trust {}

impl Hash for Trust {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl TargetUrl {
    /// Parses a URL. Without encryption, its host is this machine unless `is_plain_allowed`.
    fn parse(url: &str, is_plain_allowed: bool) -> Result<Self, InvalidUrl> {
        let uri: Uri = url.parse().map_err(|_| InvalidUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidUrl);
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let is_encrypted = scheme == "https";
        let port = authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let place = Self { host, port, authority: authority.as_str().to_owned(), path, is_encrypted };
        let is_here = place.address().is_some_and(|address| address.is_loopback());
        let is_valid = url.len() <= URL_BYTES_MAX
            && !place.host.is_empty()
            && !place.authority.contains('@')
            && (is_encrypted || scheme == "http" && (is_here || is_plain_allowed));
        if is_valid { Ok(place) } else { Err(InvalidUrl) }
    }

    /// The address, if the URL has one instead of a name, or the name is `localhost`.
    fn address(&self) -> Option<IpAddr> {
        match self.host.as_str() {
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            host => host.parse().ok(),
        }
    }
}

impl Destination {
    /// Parses a URL that the operator has chosen; its host may have any address. It is https, or http to this machine.
    pub fn of_operator(url: &str, trust: &Trust) -> Result<Self, InvalidUrl> {
        Self::parse(url, trust, AllowedAddresses::Any)
    }

    /// Parses a URL that a client has chosen. It is https, or http to `localhost` or an address in 127.0.0.0/8; its addresses are
    /// checked when a connection is made, and [`AddressPolicy::allows`](super::AddressPolicy::allows) can be asked before.
    pub fn of_client(url: &str, trust: &Trust) -> Result<Self, InvalidUrl> {
        Self::parse(url, trust, AllowedAddresses::Allowed)
    }

    /// Parses a URL that a client has chosen, of a service that is asked for data. It is https, or http to a host, an address or a
    /// network that the operator [allows by name](super::AddressPolicy::new).
    pub fn of_origin(url: &str, trust: &Trust) -> Result<Self, InvalidUrl> {
        Self::parse(url, trust, AllowedAddresses::Named)
    }

    fn parse(url: &str, trust: &Trust, reach: AllowedAddresses) -> Result<Self, InvalidUrl> {
        let place = TargetUrl::parse(url, reach == AllowedAddresses::Named)?;
        let name = || ServerName::try_from(place.host.clone()).map_err(|_| InvalidUrl);
        let tls = if place.is_encrypted { Some((trust.clone(), name()?)) } else { None };
        let reach = if place.is_encrypted || reach != AllowedAddresses::Any {
            reach
        } else {
            AllowedAddresses::Loopback
        };
        Ok(Self(Arc::new(Parts { place, reach, tls })))
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.0.place.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.place.port
    }

    /// Host and port as the URL has them, for `Host`, logs and metrics.
    pub fn authority(&self) -> &str {
        &self.0.place.authority
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.0.tls.is_some() { "https" } else { "http" }
    }

    /// Whether requests are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.0.tls.is_some()
    }

    pub(super) fn reach(&self) -> AllowedAddresses {
        self.0.reach
    }

    pub(super) fn tls(&self) -> Option<&(Trust, ServerName<'static>)> {
        self.0.tls.as_ref()
    }

    /// Path and query of a request with the URI `uri`: its own behind the path of this URL, or those of this URL.
    pub(super) fn target(&self, uri: &Uri) -> String {
        match uri.path_and_query().map(|target| target.as_str()) {
            None | Some("/") => self.0.place.path.clone(),
            Some(target) => {
                let base = self.0.place.path.split('?').next().unwrap_or_default();
                format!("{}{target}", base.trim_end_matches('/'))
            }
        }
    }

    pub(super) fn key(&self) -> ConnectionKey {
        let trust = self.0.tls.as_ref().map(|(trust, _)| trust.clone());
        ConnectionKey { host: self.0.place.host.clone(), port: self.0.place.port, reach: self.0.reach, trust }
    }
}

/// Checks a URL that a client has chosen before it is stored: what [`Destination::of_client`] requires, and that an address in it is
/// allowed. The addresses of a name are checked with each connection. The error is a text for the client.
pub fn check_client_url(url: &str, policy: &AddressPolicy) -> Result<(), &'static str> {
    let place = TargetUrl::parse(url, false).map_err(|_| {
        "the URL must be https://, or http:// to localhost or 127.0.0.0/8, without a password, and at most 2048 bytes long"
    })?;
    match place.address() {
        Some(address) if !policy.allows(&place.host, address) => Err(
            "the URL leads to an address that is not public, and the operator has not allowed its host (--outbound-allow)",
        ),
        _ => Ok(()),
    }
}

/// Why a URL cannot be that of an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedOrigin {
    /// It is no such URL.
    #[error(
        "must be an https:// URL without a password and at most 2048 bytes long, or an http:// URL of a host that --outbound-allow names"
    )]
    Url,
    /// Its address is not allowed.
    #[error("{0} is not a public host; start this server with --outbound-allow {0} to allow it as an origin")]
    Address(String),
}

/// Checks a URL that a client has chosen as an origin before it is stored: what [`Destination::of_origin`] requires, and that an address
/// in it is allowed. The addresses of a name are checked with each connection.
pub fn check_origin_url(url: &str, policy: &AddressPolicy) -> Result<(), RefusedOrigin> {
    let place = TargetUrl::parse(url, true).map_err(|_| RefusedOrigin::Url)?;
    let Some(address) = place.address() else { return Ok(()) };
    let is_named = policy.names(&place.host, address);
    if is_named || place.is_encrypted && policy.allows(&place.host, address) {
        Ok(())
    } else {
        Err(RefusedOrigin::Address(place.host))
    }
}

/// Without the path, which may be a secret.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_https_or_go_to_this_machine() {
        let trust = Trust::nothing().unwrap();
        for url in [
            "https://a.example/x?y=z",
            "https://10.0.0.1:8443/",
            "http://127.0.0.1:9/k",
            "http://127.9.9.9/",
            "http://[::1]/k",
            "http://LOCALHOST/",
        ] {
            assert!(Destination::of_operator(url, &trust).is_ok(), "{url}");
        }
        let long = format!("https://a.example/{}", "x".repeat(URL_BYTES_MAX));
        for url in [
            "http://a.example/",
            "http://10.0.0.1/",
            "http://127.1/",
            "https://user:secret@a.example/",
            "ftp://localhost/",
            "/path",
            "",
            "https://",
            "https:///x",
            "https://a b/",
            long.as_str(),
        ] {
            assert_eq!(Destination::of_client(url, &trust).err(), Some(InvalidUrl), "{url}");
        }
    }

    #[test]
    fn the_path_of_a_request_follows_that_of_its_destination() {
        let target = |base: &str, uri: &str| {
            Destination::of_operator(base, &Trust::nothing().unwrap()).unwrap().target(&uri.parse().unwrap())
        };
        assert_eq!(target("https://a/hook?x=1", "/"), "/hook?x=1");
        assert_eq!(target("https://a/hook?x=1", "https://b"), "/hook?x=1");
        assert_eq!(target("https://a", "/v1/send?y"), "/v1/send?y");
        assert_eq!(target("https://a/base/", "https://b/v1/send"), "/base/v1/send");
    }

    #[test]
    fn logs_do_not_show_the_path() {
        let to = Destination::of_operator("https://a.example:444/secret?token=x", &Trust::nothing().unwrap())
            .unwrap();
        assert_eq!(format!("{to:?}"), "https://a.example:444");
    }
}
