//! The access policy of a listener: which requests it accepts, by the host that they name and the page that sent them.
//!
//! A browser lets any page send requests to any address that its machine reaches, so also to a gateway on loopback. The check
//! of the host refuses pages whose own name resolves to the gateway (DNS rebinding); the check of the origin refuses all other
//! pages. Clients other than browsers send no origin and are accepted.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use hyper::header::{FORWARDED, HOST, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Version};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::authority::{Authority, Host};
use super::error::Error;
use super::fields::{Fields, SEC_FETCH_DEST, SEC_FETCH_MODE, SEC_FETCH_SITE, X_FORWARDED_PROTO};
use super::origins::{AllowedOrigin, InvalidOrigin, Origins, as_setting};

/// At most one refusal is logged in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The longest text of a request that an error text quotes.
const QUOTED_CHARACTERS_MAX: usize = 200;

/// Decides which requests a listener accepts.
#[derive(Debug)]
pub struct AccessPolicy {
    hosts: Hosts,
    pub(in crate::http) origins: Origins,
    /// The scheme of the gateway's URLs, unless a proxy reports another one.
    scheme: &'static str,
    /// The first host that was accepted. Most requests name the same one, which is then not parsed again.
    known_host: OnceLock<Box<[u8]>>,
    refusals: Mutex<Refusals>,
}

/// Why the settings of an access policy are invalid. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAccess {
    /// A `host` is not a host name or an address.
    #[error("--host takes a name or an address without a port, such as gate.example, not {0:?}")]
    Host(String),
    /// An `origin` is invalid.
    #[error(transparent)]
    Origin(#[from] InvalidOrigin),
}

/// The hosts that a listener serves.
#[derive(Debug)]
struct Hosts {
    /// Whether hosts other than `names` and loopback names are refused.
    are_restricted: bool,
    names: Vec<String>,
}

/// Refusals since the last one that was logged.
#[derive(Debug, Default)]
struct Refusals {
    logged_at: Option<Instant>,
    silent: u64,
}

impl Hosts {
    /// On a loopback address, or if `hosts` are given, only `hosts` and loopback names are served; else any host is.
    fn new(listener: IpAddr, hosts: &[String]) -> Result<Self, InvalidAccess> {
        for host in hosts {
            let is_one = |authority: Authority<'_>| authority.port.is_none() && !host.ends_with(':');
            if host.contains('*') || !Authority::parse(host.as_bytes()).is_some_and(is_one) {
                return Err(InvalidAccess::Host(host.clone()));
            }
        }
        let are_restricted = listener.to_canonical().is_loopback() || !hosts.is_empty();
        Ok(Self { are_restricted, names: hosts.to_vec() })
    }

    fn serve(&self, host: Host<'_>) -> bool {
        let is_named = |name: &String| {
            Authority::parse(name.as_bytes()).is_some_and(|named| named.host.is_alias_of(host))
        };
        !self.are_restricted || host.is_loopback() || self.names.iter().any(is_named)
    }
}

impl AccessPolicy {
    /// Creates the policy of a listener: it accepts requests for loopback names and for `hosts`, and requests of pages of its
    /// own origin and of `origins`.
    pub fn new(listener: IpAddr, hosts: &[String], origins: &[String]) -> Result<Self, InvalidAccess> {
        let (hosts, origins) = (Hosts::new(listener, hosts)?, Origins::new(origins)?);
        let (known_host, refusals) = Default::default();
        Ok(Self { hosts, origins, scheme: "http", known_host, refusals })
    }

    /// Clients reach the listener over TLS, its own or that of a proxy.
    pub fn encrypted(self, is_encrypted: bool) -> Self {
        Self { scheme: if is_encrypted { "https" } else { "http" }, ..self }
    }

    /// Returns the scheme of the URLs under which the client of a request reaches the gateway: what a proxy in front of the gateway
    /// reports, else that of the listener.
    pub(super) fn url_scheme(&self, head: &Parts, is_of_proxy: bool) -> &'static str {
        match forwarded_scheme(&head.headers).filter(|_| is_of_proxy) {
            Some(reported) if reported.eq_ignore_ascii_case(b"https") => "https",
            Some(_) => "http",
            None => self.scheme,
        }
    }

    /// Checks a request that hyper has parsed, and logs a refusal.
    pub(in crate::http) fn admit(&self, head: &Parts) -> Result<Option<AllowedOrigin>, Error> {
        let target = head.uri.authority().map(|authority| authority.as_str());
        let admitted = self.check(head.version, &head.method, target, &head.headers);
        if let Err(error @ (Error::Misdirected { .. } | Error::Origin { .. } | Error::CrossSite)) = &admitted
        {
            self.log(error);
        }
        admitted
    }

    /// Checks a request. `target` is the authority of its target, which takes precedence over `Host` (RFC 9112, section 3.2.2;
    /// RFC 9113, section 8.3.1). Returns the allowed origin of the page that sent the request; `None` for the gateway's own
    /// pages, for clients other than pages, and if any origin is allowed.
    pub(in crate::http) fn check(
        &self,
        version: Version,
        method: &Method,
        target: Option<&str>,
        fields: &(impl Fields + ?Sized),
    ) -> Result<Option<AllowedOrigin>, Error> {
        let authority = || authority(version, target, fields);
        if !self.names_known_host(target, fields) {
            self.check_host(authority()?, target, fields)?;
        }
        match single(fields, &ORIGIN)? {
            Some(origin) => {
                let authority = authority()?;
                let admitted = self.origins.admit(origin, authority, forwarded_scheme(fields));
                admitted.map_err(|_| Error::Origin {
                    origin: quoted(String::from_utf8_lossy(origin).into_owned()),
                    setting: as_setting(origin).map(quoted),
                })
            }
            None if self.origins.allow_any() || !is_cross_site(method, fields) => Ok(None),
            None => Err(Error::CrossSite),
        }
    }

    fn names_known_host(&self, target: Option<&str>, fields: &(impl Fields + ?Sized)) -> bool {
        let mut hosts = fields.values(&HOST);
        let host = hosts.next();
        target.is_none()
            && host.is_some()
            && host == self.known_host.get().map(|known| &**known)
            && hosts.next().is_none()
    }

    #[cold]
    fn check_host(
        &self,
        authority: Option<Authority<'_>>,
        target: Option<&str>,
        fields: &(impl Fields + ?Sized),
    ) -> Result<(), Error> {
        if let Some(authority) = authority
            && !self.hosts.serve(authority.host)
        {
            return Err(Error::Misdirected { host: quoted(shown(authority.host)) });
        }
        if target.is_none()
            && let Some(host) = fields.values(&HOST).next()
        {
            self.known_host.get_or_init(|| host.into());
        }
        Ok(())
    }

    fn log(&self, error: &Error) {
        let mut refusals = self.refusals.lock();
        if refusals.logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            refusals.silent += 1;
            return;
        }
        let not_logged = std::mem::take(&mut refusals.silent);
        refusals.logged_at = Some(Instant::now());
        drop(refusals);
        tracing::warn!(not_logged, "refused a request: {error}");
    }
}

/// Returns the authority that a request names. HTTP/1.0, which no browser uses, does not require one (RFC 9112, section 3.2).
fn authority<'a>(
    version: Version,
    target: Option<&'a str>,
    fields: &'a (impl Fields + ?Sized),
) -> Result<Option<Authority<'a>>, Error> {
    let parse = |text: &'a [u8]| {
        Authority::parse(text)
            .ok_or_else(|| Error::field(&HOST, "must be a host name or an address, with an optional port"))
    };
    let host = single(fields, &HOST)?.map(parse).transpose()?;
    let target = target.map(|target| parse(target.as_bytes())).transpose()?;
    let is_needed = match version {
        Version::HTTP_09 | Version::HTTP_10 => false,
        Version::HTTP_11 => host.is_none(),
        _ => target.or(host).is_none(),
    };
    if is_needed { Err(Error::field(&HOST, "is required")) } else { Ok(target.or(host)) }
}

/// Returns the value of a field that must not be repeated.
fn single<'a>(fields: &'a (impl Fields + ?Sized), name: &HeaderName) -> Result<Option<&'a [u8]>, Error> {
    let mut values = fields.values(name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Error::field(name, "must not be given twice")),
    }
}

/// Returns the scheme between the client and the first proxy in front of the gateway, if the proxies report it: the first
/// element of `X-Forwarded-Proto`, else `proto` in the first element of `Forwarded` (RFC 7239, section 5.4).
///
/// Any client can send these fields. Unless they come from a proxy in front of the gateway, they decide only whether a page with the
/// gateway's host is the gateway's own.
fn forwarded_scheme(fields: &(impl Fields + ?Sized)) -> Option<&[u8]> {
    if let Some(schemes) = fields.values(&X_FORWARDED_PROTO).next() {
        return schemes.split(|byte| *byte == b',').next().map(<[u8]>::trim_ascii);
    }
    let first = fields.values(&FORWARDED).next()?.split(|byte| *byte == b',').next()?;
    first.split(|byte| *byte == b';').find_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        let (name, value) = (parts.next()?, parts.next()?);
        name.eq_ignore_ascii_case(b"proto").then(|| unquoted(value))
    })
}

/// Returns the text of a quoted string that has no escapes (RFC 9110, section 5.6.4); any other text as it is.
fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

/// Whether a page of another site sent a request without an origin, as for `<img>` and `<script>` (Fetch Metadata). Following a
/// link is not such a request: the page with the link cannot read what the link leads to.
fn is_cross_site(method: &Method, fields: &(impl Fields + ?Sized)) -> bool {
    let Some(site) = fields.values(&SEC_FETCH_SITE).next() else { return false };
    let is = |name, text: &[u8]| fields.values(&name).any(|value| value == text);
    let is_link =
        || method == Method::GET && is(SEC_FETCH_MODE, b"navigate") && is(SEC_FETCH_DEST, b"document");
    (site == b"cross-site" || site == b"same-site") && !is_link()
}

fn shown(host: Host<'_>) -> String {
    match host {
        Host::Name(name) => name.to_owned(),
        Host::Address(IpAddr::V4(address)) => address.to_string(),
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
    }
}

/// Cuts a text of a request to the length that an error text quotes.
fn quoted(text: String) -> Box<str> {
    if text.len() <= QUOTED_CHARACTERS_MAX {
        return text.into();
    }
    text.chars().take(QUOTED_CHARACTERS_MAX).collect::<String>().into()
}
