//! The opening handshake of a WebSocket and its response (RFC 6455, section 4.2.1; over HTTP/2 RFC 8441, section 4).

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::ext::Protocol;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode, Version};

use super::answer;
use super::error::Error;
use super::fields;
use crate::auth::Grants;
use crate::http::conn::{Body, bare};

/// Constants of RFC 6455, sections 1.3 and 4.1.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;

/// A WebSocket subprotocol that the MQTT or XMPP front serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Subprotocol {
    /// MQTT 5, section 6.
    Mqtt,
    /// RFC 7395.
    Xmpp,
}

impl Subprotocol {
    pub(in crate::http) const ALL: [Self; 2] = [Self::Mqtt, Self::Xmpp];

    pub(in crate::http) fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Xmpp => "xmpp",
        }
    }

    /// The path of WebSockets with this subprotocol.
    pub(in crate::http) fn path(self) -> &'static str {
        match self {
            Self::Mqtt => "/mqtt",
            Self::Xmpp => "/v1/xmpp",
        }
    }
}

/// A valid handshake of a client.
#[derive(Debug)]
pub(in crate::http) struct Handshake {
    /// The `Sec-WebSocket-Accept` of the response. `None`: over HTTP/2, which has no such field.
    pub(in crate::http) accept: Option<String>,
    /// The address of the client that a proxy tells. `None`: the connection is the client's own.
    pub(in crate::http) forwarded: Option<IpAddr>,
    /// Rights of the credentials in the handshake. They hold for an MQTT client whose CONNECT has no credentials; XMPP ignores them.
    pub(in crate::http) grants: Option<Arc<Grants>>,
}

impl Handshake {
    pub(in crate::http) fn parse(head: &Parts) -> Result<Self, Error> {
        // Only an extended CONNECT has a `:protocol`, and HTTP/2 forbids the fields of the HTTP/1.1 handshake.
        let accept = match head.extensions.get::<Protocol>() {
            Some(_) => None,
            None => Some(accept(head)?),
        };
        Ok(Self { accept, forwarded: None, grants: None })
    }

    /// Parses the handshake of a client that has to offer a subprotocol.
    pub(in crate::http) fn parse_for(subprotocol: Subprotocol, head: &Parts) -> Result<Self, Error> {
        let handshake = Self::parse(head)?;
        match has_token(head, &SEC_WEBSOCKET_PROTOCOL, subprotocol.name()) {
            true => Ok(handshake),
            false => Err(Error::Subprotocol { path: subprotocol.path(), name: subprotocol.name() }),
        }
    }

    /// Returns the response that opens the WebSocket: 101, or over HTTP/2 200, since the connection does not switch protocols.
    pub(in crate::http) fn response(&self, subprotocol: Option<&'static str>) -> Response<Body> {
        let mut response = match &self.accept {
            None => {
                let mut response = bare(StatusCode::OK, Body::empty());
                answer::secure(response.headers_mut());
                response
            }
            Some(accept) => {
                let mut response = bare(StatusCode::SWITCHING_PROTOCOLS, Body::empty());
                let headers = response.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_ACCEPT, fields::value(accept));
                response
            }
        };
        if let Some(subprotocol) = subprotocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        response
    }
}

/// Whether a field with comma-separated values contains a token.
fn has_token(head: &Parts, name: &HeaderName, token: &str) -> bool {
    let values = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Checks an HTTP/1.1 handshake, and returns its `Sec-WebSocket-Accept` (RFC 6455, section 4.2.2, number 5.4).
fn accept(head: &Parts) -> Result<String, Error> {
    if head.version > Version::HTTP_11 {
        return Err(Error::ExtendedConnectRequired);
    }
    let upgrades = has_token(head, &UPGRADE, "websocket") && has_token(head, &CONNECTION, "upgrade");
    if head.version != Version::HTTP_11 || !upgrades || !has_token(head, &SEC_WEBSOCKET_VERSION, "13") {
        return Err(Error::UpgradeRequired);
    }
    // What follows the head of a handshake are frames.
    let has_length = head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_length || head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Error::field(&UPGRADE, "must not be sent in a request with a body"));
    }
    let key = fields::text(&head.headers, &SEC_WEBSOCKET_KEY)?.unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != KEY_BYTES {
        return Err(Error::field(&SEC_WEBSOCKET_KEY, "must be 16 bytes in base64"));
    }
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(WEBSOCKET_GUID);
    Ok(STANDARD.encode(sha1.digest().bytes()))
}
