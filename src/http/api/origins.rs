//! Origins of pages: which pages may use the gateway, and the CORS fields of the responses that they may read.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, HeaderName,
    HeaderValue, VARY,
};
use std::num::NonZeroU16;

use super::authority::{Authority, Host};
use crate::http::conn::{FixedFields, Head, fixed_fields};

/// The origins whose pages may use the gateway besides its own: the setting `origin`.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Origins {
    any: bool,
    /// As browsers write them: in lower case, without a default port.
    allowed: Vec<HeaderValue>,
    /// Pages of the allowed origins may send cookies.
    with_credentials: bool,
}

/// The fields that pages may read if they send cookies; `*` does not count then (Fetch standard, section 3.3.5).
const EXPOSED_WITH_CREDENTIALS: &str = "etag, location, preference-applied, producer-epoch, producer-expected-seq, \
    producer-received-seq, producer-seq, retry-after, stream-closed, stream-cursor, stream-earliest-offset, \
    stream-expires-at, stream-gap, stream-lengths, stream-max-age, stream-max-bytes, stream-max-messages, stream-next-offset, \
    stream-origin, stream-origin-interval, stream-origin-key, stream-origin-poll, stream-origin-status, stream-sse-data-encoding, stream-superseded, stream-ttl, stream-up-to-date, stream-warning, www-authenticate";

/// Why a value of the setting `origin` is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// It is not an origin.
    #[error("--origin takes an origin such as https://app.example or http://localhost:3000, or *, not {0:?}")]
    Syntax(String),
    /// It is a host without a scheme.
    #[error("--origin takes a scheme and a host, so write https://{0} (or http://{0}) instead of {0:?}")]
    NoScheme(String),
    /// There are too many origins.
    #[error("--origin can be given at most 65535 times")]
    TooMany,
}

/// Number of an allowed origin in the list of them, from 1 on. It is small because each held poll stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct AllowedOrigin(NonZeroU16);

/// An origin: scheme, host and port (RFC 6454, section 4). An opaque origin, which browsers write as `null`, is invalid here.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (scheme, authority) = std::str::from_utf8(text).ok()?.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let authority = Authority::parse(authority.as_bytes())?;
        (!scheme.is_empty() && scheme.bytes().all(is_scheme)).then_some(Self { scheme, authority })
    }

    fn port(self) -> Option<u16> {
        self.authority.port.or_else(|| default_port(self.scheme))
    }

    fn is_same(self, other: Self) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.authority.host == other.authority.host
            && self.port() == other.port()
    }

    /// Whether this is the origin of the gateway at `authority`. The gateway speaks plain HTTP, but a proxy in front of it may
    /// speak TLS with the browser. `scheme` is the scheme that the proxy reports; without it both match, each with its default
    /// port.
    fn is_at(self, authority: Authority<'_>, scheme: Option<&[u8]>) -> bool {
        let Some(default) = default_port(self.scheme) else { return false };
        // For WebSockets some proxies report `ws` or `wss`.
        let spellings: [&[u8]; 2] = if default == 443 { [b"https", b"wss"] } else { [b"http", b"ws"] };
        scheme.is_none_or(|scheme| spellings.iter().any(|one| one.eq_ignore_ascii_case(scheme)))
            && self.authority.host == authority.host
            && self.port() == authority.port.or(Some(default))
    }

    /// Serializes the origin as browsers do.
    fn serialized(self) -> String {
        let scheme = self.scheme.to_ascii_lowercase();
        let host = match self.authority.host {
            Host::Name(name) => name.to_ascii_lowercase(),
            Host::Address(std::net::IpAddr::V4(address)) => address.to_string(),
            Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        };
        match self.authority.port.filter(|port| Some(*port) != default_port(&scheme)) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }
}

/// Returns the port of a URL without one.
fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else {
        None
    }
}

impl Origins {
    /// Parses origins such as `https://example.com`; `*` allows any.
    pub(super) fn new(texts: &[String]) -> Result<Self, InvalidOrigin> {
        let mut origins = Self::default();
        for text in texts {
            if text == "*" {
                origins.any = true;
                continue;
            }
            let is_host = Authority::parse(text.as_bytes()).is_some() && text != "null";
            let invalid = || match is_host {
                true => InvalidOrigin::NoScheme(text.clone()),
                false => InvalidOrigin::Syntax(text.clone()),
            };
            let origin = Origin::parse(text.as_bytes()).ok_or_else(invalid)?;
            let value = HeaderValue::try_from(origin.serialized()).map_err(|_| invalid())?;
            origins.allowed.push(value);
        }
        match u16::try_from(origins.allowed.len()) {
            Ok(_) => Ok(origins),
            Err(_) => Err(InvalidOrigin::TooMany),
        }
    }

    /// Lets pages of the allowed origins send cookies, and read the responses. Pages of any origin may never do that.
    pub(super) fn accept_credentials(&mut self, with_credentials: bool) {
        self.with_credentials = with_credentials && !self.any;
    }

    /// Whether pages of any origin are allowed.
    pub(super) fn allow_any(&self) -> bool {
        self.any
    }

    /// Checks whether a page of `origin` may use the gateway at `authority`. `scheme` is the scheme that a proxy reports.
    /// Returns `Ok(None)` if the origin is the gateway's own, or if any origin is allowed.
    pub(super) fn admit(
        &self,
        origin: &[u8],
        authority: Option<Authority<'_>>,
        scheme: Option<&[u8]>,
    ) -> Result<Option<AllowedOrigin>, OriginRefused> {
        if self.any {
            return Ok(None);
        }
        let origin = Origin::parse(origin).ok_or(OriginRefused)?;
        if authority.is_some_and(|authority| origin.is_at(authority, scheme)) {
            return Ok(None);
        }
        let is_it = |allowed: &HeaderValue| {
            Origin::parse(allowed.as_bytes()).is_some_and(|allowed| allowed.is_same(origin))
        };
        let place = self.allowed.iter().position(is_it).ok_or(OriginRefused)?;
        let number = u16::try_from(place + 1).ok().and_then(NonZeroU16::new);
        number.map(|number| Some(AllowedOrigin(number))).ok_or(OriginRefused)
    }

    /// Returns the CORS fields of a response. `origin` is the allowed origin of the page that gets it; `None`: any other
    /// client.
    pub(in crate::http) fn fields(&self, origin: Option<AllowedOrigin>) -> CorsFields<'_> {
        if self.any {
            return CorsFields::Any;
        }
        if self.allowed.is_empty() {
            return CorsFields::None;
        }
        let origin = origin.and_then(|AllowedOrigin(number)| self.allowed.get(usize::from(number.get()) - 1));
        if self.with_credentials { CorsFields::WithCredentials(origin) } else { CorsFields::Varying(origin) }
    }
}

/// The origin is not allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OriginRefused;

/// Returns an origin as `--origin` takes it; `None` if it is invalid.
pub(super) fn as_setting(origin: &[u8]) -> Option<String> {
    Origin::parse(origin).map(Origin::serialized)
}

impl AllowedOrigin {
    /// Returns a distinct number for each origin, 0 for none. It tells the variants of a shared response apart.
    pub(in crate::http) fn number(origin: Option<Self>) -> u64 {
        origin.map_or(0, |Self(number)| number.get().into())
    }
}

/// The fields of a response that tell browsers which pages may read it (Fetch standard, section 3).
#[derive(Debug, Clone, Copy)]
pub(in crate::http) enum CorsFields<'a> {
    /// Only the gateway's own pages.
    None,
    /// Pages of any origin.
    Any,
    /// Pages of this origin; `None`: only the gateway's own. Caches must keep the responses for different origins apart.
    Varying(Option<&'a HeaderValue>),
    /// The same, for pages that may send cookies.
    WithCredentials(Option<&'a HeaderValue>),
}

// Whether other pages may have `<img>` and `<script>` of the gateway, which need no CORS.
static SAME_ORIGIN: FixedFields<1> = fixed_fields! { "cross-origin-resource-policy": "same-origin" };
static CROSS_ORIGIN: FixedFields<1> = fixed_fields! { "cross-origin-resource-policy": "cross-origin" };

impl CorsFields<'_> {
    pub(in crate::http) fn put(self, head: &mut impl Head) {
        const EXPOSED: (HeaderName, &str) = (ACCESS_CONTROL_EXPOSE_HEADERS, "*");
        head.put_fixed(if matches!(self, Self::Any) { &CROSS_ORIGIN } else { &SAME_ORIGIN });
        match self {
            Self::None => {}
            Self::Any => {
                head.put_static(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
                head.put_static(EXPOSED.0, EXPOSED.1);
            }
            Self::Varying(origin) => {
                head.put_static(VARY, "origin");
                if let Some(origin) = origin {
                    head.put(ACCESS_CONTROL_ALLOW_ORIGIN, origin.as_bytes());
                    head.put_static(EXPOSED.0, EXPOSED.1);
                }
            }
            Self::WithCredentials(origin) => {
                head.put_static(VARY, "origin");
                if let Some(origin) = origin {
                    head.put(ACCESS_CONTROL_ALLOW_ORIGIN, origin.as_bytes());
                    head.put_static(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
                    head.put_static(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_WITH_CREDENTIALS);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Origins {
        Origins::new(&texts.iter().map(|text| text.to_string()).collect::<Vec<_>>()).unwrap()
    }

    fn admit(
        origins: &Origins,
        origin: &str,
        host: &str,
        scheme: Option<&str>,
    ) -> Result<u64, OriginRefused> {
        let authority = Authority::parse(host.as_bytes());
        origins.admit(origin.as_bytes(), authority, scheme.map(str::as_bytes)).map(AllowedOrigin::number)
    }

    #[test]
    fn a_page_is_of_the_gateway_if_host_and_port_are() {
        let none = Origins::default();
        for (origin, host, scheme, is_own) in [
            ("http://gate.example:4437", "gate.example:4437", None, true),
            ("http://GATE.example:4437", "gate.EXAMPLE:4437", None, true),
            ("https://gate.example:4437", "gate.example:4437", None, true),
            ("http://gate.example", "gate.example", None, true),
            ("http://gate.example", "gate.example:80", None, true),
            ("http://gate.example:80", "gate.example", None, true),
            ("https://gate.example", "gate.example", None, true),
            ("https://gate.example", "gate.example:443", None, true),
            ("http://[::1]:4437", "[0::1]:4437", None, true),
            ("https://gate.example", "gate.example", Some("https"), true),
            ("http://gate.example", "gate.example", Some("HTTP"), true),
            ("https://gate.example", "gate.example", Some("wss"), true),
            ("http://gate.example", "gate.example", Some("ws"), true),
            ("http://gate.example", "gate.example", Some("wss"), false),
            ("http://gate.example", "gate.example", Some("https"), false),
            ("https://gate.example", "gate.example", Some("http"), false),
            ("https://gate.example", "gate.example:80", None, false),
            ("http://gate.example", "gate.example:443", None, false),
            ("http://gate.example", "gate.example:4437", None, false),
            ("http://gate.example:4438", "gate.example:4437", None, false),
            ("http://gate.example.", "gate.example", None, false),
            ("http://evil.gate.example", "gate.example", None, false),
            ("http://gate.example.evil", "gate.example", None, false),
            ("http://user@gate.example", "gate.example", None, false),
            ("http://gate.example/", "gate.example", None, false),
            ("ftp://gate.example", "gate.example", None, false),
            ("gate.example", "gate.example", None, false),
            ("://gate.example", "gate.example", None, false),
            ("null", "null", None, false),
            ("", "gate.example", None, false),
        ] {
            assert_eq!(admit(&none, origin, host, scheme).is_ok(), is_own, "{origin} at {host}, {scheme:?}");
        }
        assert_eq!(none.admit(b"http://a", None, None), Err(OriginRefused));
    }

    #[test]
    fn pages_of_listed_origins_are_allowed_and_told_apart() {
        let listed = origins(&["https://APP.example:443", "http://localhost:3000", "app://Gate"]);
        for (origin, number) in [
            ("https://app.example", 1),
            ("HTTPS://App.example:443", 1),
            ("http://localhost:3000", 2),
            ("app://gate", 3),
        ] {
            assert_eq!(admit(&listed, origin, "gate.example", None), Ok(number), "{origin}");
        }
        for origin in ["http://app.example", "https://app.example:8443", "http://localhost", "null"] {
            assert_eq!(admit(&listed, origin, "gate.example", None), Err(OriginRefused), "{origin}");
        }
        let any = origins(&["https://app.example", "*"]);
        assert_eq!(admit(&any, "null", "gate.example", None), Ok(0));
        for text in
            ["", "null", "app.example", "https://app.example/", "https://a/b", "https://", "https://*.a b"]
        {
            assert!(Origins::new(&[text.to_owned()]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn fields_name_the_origin_as_browsers_write_it() {
        let listed = origins(&["https://APP.example:443"]);
        let text = |origin| match listed.fields(origin) {
            CorsFields::Varying(value) => value.map(|value| value.to_str().unwrap().to_owned()),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(Some(AllowedOrigin(NonZeroU16::MIN))).as_deref(), Some("https://app.example"));
        assert_eq!(text(None), None);
        assert!(matches!(Origins::default().fields(None), CorsFields::None));
        assert!(matches!(origins(&["*"]).fields(None), CorsFields::Any));
        assert_eq!(as_setting(b"HTTP://[::1]:80").as_deref(), Some("http://[::1]"));
    }
}
