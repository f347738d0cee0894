//! GET: where to read from, in which form, for how long.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::ext::Protocol;
use hyper::header::{
    CONNECTION, HOST, HeaderName, IF_NONE_MATCH, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;

use crate::http::error::Error;
use crate::http::fields::{self, CLIENT_ID};
use crate::http::query::Query;
use crate::hub::ClientId;
use crate::limits::{Limits, jittered};
use crate::metrics::Form;
use crate::stream::{Cursor, Start};

/// Heartbeats that a client may ask for.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(300);

/// As good as never.
const HEARTBEAT_NONE: Duration = Duration::from_secs(24 * 3600);

/// From RFC 6455, sections 1.3 and 4.1.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;

/// A GET, or the CONNECT that opens a WebSocket.
#[derive(Debug)]
pub(in crate::http) enum Read {
    ShortPoll(ShortPoll),
    LongPoll(LongPoll),
    Sse(Live),
    Ndjson(Live),
    WebSocket(Box<WebSocket>),
}

#[derive(Debug)]
pub(in crate::http) struct ShortPoll {
    pub(in crate::http) start: Start,
    pub(in crate::http) if_none_match: Option<String>,
}

#[derive(Debug)]
pub(in crate::http) struct LongPoll {
    pub(in crate::http) start: Start,
    pub(in crate::http) cursor: Option<Cursor>,
    pub(in crate::http) hold: Duration,
    /// Whether the client asked for a hold, so that the one it gets is said back.
    pub(in crate::http) hold_asked: bool,
    pub(in crate::http) client: Option<ClientId>,
}

#[derive(Debug)]
pub(in crate::http) struct Live {
    pub(in crate::http) start: Start,
    pub(in crate::http) cursor: Option<Cursor>,
    pub(in crate::http) heartbeat: Duration,
}

#[derive(Debug)]
pub(in crate::http) struct WebSocket {
    pub(in crate::http) live: Live,
    /// What proves to an HTTP/1.1 client that we speak WebSocket; HTTP/2 needs no proof.
    pub(in crate::http) accept: Option<String>,
    pub(in crate::http) origin: Option<String>,
    pub(in crate::http) host: Option<String>,
    /// The connection once it has left HTTP behind.
    pub(in crate::http) upgrade: OnUpgrade,
}

impl Read {
    pub(in crate::http) fn parse(head: &mut Parts, limits: &Limits) -> Result<Self, Error> {
        let query = Query::parse(head.uri.query())?;
        let start = query.get("offset").map(|offset| offset.parse().map_err(Error::Offset)).transpose()?;
        if head.method == Method::CONNECT && query.get("live") != Some("websocket") {
            return Err(Error::parameter("live", "is websocket for a CONNECT"));
        }
        let Some(live) = query.get("live") else {
            let if_none_match = fields::text(&head.headers, &IF_NONE_MATCH)?.map(str::to_owned);
            return Ok(Self::ShortPoll(ShortPoll { start: start.unwrap_or(Start::Earliest), if_none_match }));
        };
        let start =
            start.ok_or_else(|| Error::parameter("offset", "is required with live; -1 is the beginning"))?;
        let cursor = query.get("cursor").map(|cursor| {
            Cursor::parse(cursor).ok_or_else(|| Error::parameter("cursor", "is what Stream-Cursor said"))
        });
        let cursor = cursor.transpose()?;
        let heartbeat = query.seconds("heartbeat")?.map(Duration::from_secs);
        let live_with = |default: Duration| {
            let heartbeat = heartbeat.map_or(default, |asked| asked.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX));
            Live { start, cursor, heartbeat }
        };
        match live {
            "long-poll" => {
                let asked = query.seconds("timeout")?.or_else(|| fields::preferred_wait(&head.headers));
                let hold =
                    asked.map_or_else(|| jittered(limits.hold), Duration::from_secs).min(limits.hold_max);
                let client = match query.get("client") {
                    Some(client) => Some(client),
                    None => fields::text(&head.headers, &CLIENT_ID)?,
                };
                let client = client.map(ClientId::parse).transpose()?;
                Ok(Self::LongPoll(LongPoll { start, cursor, hold, hold_asked: asked.is_some(), client }))
            }
            "sse" => Ok(Self::Sse(live_with(limits.live_heartbeat.get()))),
            "ndjson" => Ok(Self::Ndjson(live_with(limits.live_heartbeat.get()))),
            // Pings show life; envelopes do so on request, for clients that can not see pings.
            "websocket" => {
                let upgrade = head.extensions.remove().ok_or(Error::UpgradeRequired)?;
                let socket = WebSocket::parse(head, live_with(HEARTBEAT_NONE), upgrade)?;
                Ok(Self::WebSocket(Box::new(socket)))
            }
            _ => Err(Error::parameter("live", "is long-poll, sse, ndjson or websocket")),
        }
    }

    pub(in crate::http) fn form(&self) -> Form {
        match self {
            Self::ShortPoll(_) => Form::ShortPoll,
            Self::LongPoll(_) => Form::LongPoll,
            Self::Sse(_) => Form::Sse,
            Self::Ndjson(_) => Form::Ndjson,
            Self::WebSocket(_) => Form::WebSocket,
        }
    }

    /// Who asks, if it said so.
    pub(in crate::http) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::LongPoll(poll) => poll.client.as_ref(),
            Self::ShortPoll(_) | Self::Sse(_) | Self::Ndjson(_) | Self::WebSocket(_) => None,
        }
    }
}

impl WebSocket {
    /// Reads the opening handshake (RFC 6455, section 4.2.1; over HTTP/2 RFC 8441, section 4).
    fn parse(head: &Parts, live: Live, upgrade: OnUpgrade) -> Result<Self, Error> {
        let text = |name: &HeaderName| fields::text(&head.headers, name);
        // Only an extended CONNECT has a protocol, and HTTP/2 can not say what the other handshake needs.
        let protocol = head.extensions.get::<Protocol>().map(Protocol::as_str);
        let accept = if protocol == Some("websocket") { None } else { Some(accept(head)?) };
        let origin = text(&ORIGIN)?.map(str::to_owned);
        let host = text(&HOST)?.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
        Ok(Self { live, accept, origin, host: host.map(str::to_owned), upgrade })
    }
}

/// What proves to the client that its handshake was understood (RFC 6455, section 4.2.2, number 5.4).
fn accept(head: &Parts) -> Result<String, Error> {
    let says = |name: &HeaderName, token: &str| {
        let values = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    if !says(&UPGRADE, "websocket") || !says(&CONNECTION, "upgrade") || !says(&SEC_WEBSOCKET_VERSION, "13") {
        return Err(Error::UpgradeRequired);
    }
    let key = fields::text(&head.headers, &SEC_WEBSOCKET_KEY)?.unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != KEY_BYTES {
        return Err(Error::field(&SEC_WEBSOCKET_KEY, "is 16 bytes in base64"));
    }
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(WEBSOCKET_GUID);
    Ok(STANDARD.encode(sha1.digest().bytes()))
}
