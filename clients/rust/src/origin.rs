//! The address of the gateway, by its URL.

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::BuildError;

/// Characters that are escaped in a query or a path segment: all but the unreserved ones (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Characters that are escaped in the name of a stream in a path, where slashes stay.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Address of the gateway, and the path before `/v1`.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether connections to it use TLS.
    pub(crate) is_secure: bool,
    /// Value of the field `Host`.
    pub(crate) authority: String,
    prefix: String,
}

impl Origin {
    pub(crate) fn parse(url: &str) -> Result<Self, BuildError> {
        // A password is not shown, wherever it stands.
        let has_user_info = url.contains('@');
        let not_a_url =
            || if has_user_info { BuildError::UserInfo } else { BuildError::NotAUrl(url.to_owned()) };
        let uri: Uri = url.parse().map_err(|_| not_a_url())?;
        let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or_else(not_a_url)?;
        let is_secure = match scheme {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(BuildError::Scheme(scheme.to_owned())),
        };
        if authority.as_str().contains('@') {
            return Err(BuildError::UserInfo);
        }
        // A port beyond 65 535 would otherwise count as none.
        let behind_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if authority.port_u16().is_none() && !matches!(behind_host, "" | ":") {
            return Err(not_a_url());
        }
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            is_secure,
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Target of requests for many streams.
    pub(crate) fn streams(&self) -> String {
        format!("{}/v1/streams", self.prefix)
    }

    /// Target of requests for names of streams.
    pub(crate) fn names(&self) -> String {
        format!("{}/v1/names", self.prefix)
    }

    /// Target of requests about a device.
    pub(crate) fn device(&self, id: &str) -> String {
        format!("{}/v1/devices/{}", self.prefix, utf8_percent_encode(id, RESERVED))
    }

    /// Target of requests for one stream.
    pub(crate) fn stream(&self, name: &str) -> String {
        format!("{}/v1/stream/{}", self.prefix, utf8_percent_encode(name, RESERVED_IN_PATH))
    }
}

/// Escapes the value of a query parameter.
pub(crate) fn in_query(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_host_port_and_prefix() {
        let origin = Origin::parse("http://[::1]:8080/behind/").unwrap();
        assert_eq!((&*origin.host, origin.port, &*origin.authority), ("::1", 8080, "[::1]:8080"));
        assert_eq!(origin.stream("a b/ü%"), "/behind/v1/stream/a%20b/%C3%BC%25");
        assert_eq!(origin.device("a/b"), "/behind/v1/devices/a%2Fb");
        for (url, port, is_secure) in
            [("http://a", 80, false), ("https://a", 443, true), ("ws://a", 80, false), ("wss://a:1", 1, true)]
        {
            let origin = Origin::parse(url).unwrap();
            assert_eq!((origin.port, origin.is_secure), (port, is_secure), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_gateway_is_refused() {
        for text in ["", "gateway", "/v1", "http://", "http://a:65536"] {
            assert_eq!(Origin::parse(text).unwrap_err(), BuildError::NotAUrl(text.to_owned()), "{text}");
        }
        assert_eq!(Origin::parse("http://user:secret@a").unwrap_err(), BuildError::UserInfo);
        assert_eq!(Origin::parse("ftp://a").unwrap_err(), BuildError::Scheme("ftp".to_owned()));
    }
}
