//! MQTT URLs: `mqtt://`, `mqtts://`, and `ws://` or `wss://` with a path that ends in `/mqtt`.

use std::error::Error;
use std::fmt;

use hyper::Uri;
use percent_encoding::percent_decode_str;

/// Where a broker is, and as whom to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerUrl {
    scheme: &'static str,
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the connection uses TLS.
    pub(super) is_secure: bool,
    /// Path of the WebSocket. `None`: MQTT runs over TCP or TLS directly.
    pub(super) path: Option<String>,
    /// The credentials of the URL.
    pub(super) login: Option<BrokerLogin>,
}

/// User name and password. A token is a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BrokerLogin {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// The URL begins like that of a broker and is none. It is not shown, because it may have a password.
#[derive(Debug)]
pub(crate) struct InvalidMqttUrl(&'static str);

impl fmt::Display for InvalidMqttUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the MQTT URL is not valid: {}", self.0)
    }
}

impl Error for InvalidMqttUrl {}

impl fmt::Debug for BrokerLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerLogin").field("user", &self.user).finish_non_exhaustive()
    }
}

impl BrokerUrl {
    /// Parses a URL. `None`: it is not that of a broker.
    pub(crate) fn parse(url: &str) -> Option<Result<Self, InvalidMqttUrl>> {
        let (scheme, rest) = url.split_once("://")?;
        let is_socket_path = || rest.trim_end_matches('/').ends_with("/mqtt");
        let (scheme, is_secure, is_web) = match scheme {
            "mqtt" => ("mqtt", false, false),
            "mqtts" => ("mqtts", true, false),
            "ws" if is_socket_path() => ("ws", false, true),
            "wss" if is_socket_path() => ("wss", true, true),
            _ => return None,
        };
        Some(Self::of(scheme, is_secure, is_web, url))
    }

    fn of(scheme: &'static str, is_secure: bool, is_web: bool, url: &str) -> Result<Self, InvalidMqttUrl> {
        let uri: Uri = url.parse().map_err(|_| InvalidMqttUrl("it is not a URL"))?;
        let authority = uri.authority().ok_or(InvalidMqttUrl("it has no host"))?;
        let (login, place) = match authority.as_str().rsplit_once('@') {
            Some((login, place)) => (Some(BrokerLogin::parse(login)?), place),
            None => (None, authority.as_str()),
        };
        let host = authority.host();
        let port = match place.strip_prefix(host).unwrap_or_default().strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| InvalidMqttUrl("its port is not a number up to 65535"))?,
            None => match (is_web, is_secure) {
                (false, false) => 1883,
                (false, true) => 8883,
                (true, false) => 80,
                (true, true) => 443,
            },
        };
        if !is_web && !matches!(uri.path(), "" | "/") {
            return Err(InvalidMqttUrl("it has a path; topics are the arguments of the command"));
        }
        let path = is_web.then(|| uri.path().to_owned());
        Ok(Self { scheme, host: host.trim_matches(['[', ']']).to_owned(), port, is_secure, path, login })
    }
}

impl BrokerLogin {
    fn parse(text: &str) -> Result<Self, InvalidMqttUrl> {
        let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
            Ok(text) => Ok((!text.is_empty()).then(|| text.into_owned())),
            Err(_) => Err(InvalidMqttUrl("its user or password is not UTF-8")),
        };
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { user: decoded(user)?, password: decoded(password)? })
    }
}

/// The URL without credentials.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, path, .. } = self;
        let path = path.as_deref().unwrap_or_default();
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}{path}")
        } else {
            write!(f, "{scheme}://{host}:{port}{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_place_and_credentials_that_are_not_shown() {
        for (url, shown, login) in [
            ("mqtt://a", "mqtt://a:1883", None),
            ("mqtts://[::1]/", "mqtts://[::1]:8883", None),
            ("mqtt://ada:p%40ss@a:1", "mqtt://a:1", Some((Some("ada"), Some("p@ss")))),
            ("mqtts://:token@a", "mqtts://a:8883", Some((None, Some("token")))),
            ("ws://a/mqtt", "ws://a:80/mqtt", None),
            ("wss://a:444/behind/mqtt", "wss://a:444/behind/mqtt", None),
        ] {
            let address = BrokerUrl::parse(url).unwrap().unwrap();
            let known =
                address.login.as_ref().map(|login| (login.user.as_deref(), login.password.as_deref()));
            assert_eq!((&*address.to_string(), known), (shown, login), "{url}");
            assert!(!format!("{address:?}").contains("p@ss"));
        }
    }

    #[test]
    fn other_urls_are_none_and_malformed_ones_are_refused_without_showing_them() {
        for url in ["http://a", "ws://a", "wss://a/v1/streams", "a"] {
            assert!(BrokerUrl::parse(url).is_none(), "{url}");
        }
        for url in ["mqtt://", "mqtt://a:65536", "mqtt://a:p/q@b", "mqtt://a/topic", "mqtt://a b"] {
            let refused = BrokerUrl::parse(url).unwrap().unwrap_err().to_string();
            assert!(!refused.contains("//"), "{url}: {refused}");
        }
    }
}
