//! GET: where to read from, in which form, for how long.

use std::time::Duration;

use hyper::Method;
use hyper::header::IF_NONE_MATCH;
use hyper::http::request::Parts;

use super::Handshake;
use crate::clock::jittered;
use crate::http::error::Error;
use crate::http::fields::{self, CLIENT_ID, Fields};
use crate::http::form::Form;
use crate::http::query::Query;
use crate::hub::ClientId;
use crate::limits::Limits;
use crate::stream::{Cursor, Start};

/// Heartbeats that a client may ask for.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(300);

/// As good as never.
pub(in crate::http) const HEARTBEAT_NONE: Duration = Duration::from_secs(24 * 3600);

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
    pub(in crate::http) hold: Hold,
    pub(in crate::http) client: Option<ClientId>,
}

/// How long polls are held: the settings `hold` and `hold_max`.
#[derive(Debug, Clone, Copy)]
pub struct HoldPolicy {
    /// For a poll that does not say, give or take a tenth.
    pub default: Duration,
    /// The most that a poll may ask for.
    pub max: Duration,
}

/// How long to hold a poll.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Hold {
    pub(in crate::http) time: Duration,
    /// Whether the client asked for one, so that the one it gets is said back.
    pub(in crate::http) asked: bool,
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
    pub(in crate::http) handshake: Handshake,
}

impl Read {
    pub(in crate::http) fn parse(
        head: &mut Parts,
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<Self, Error> {
        let query = Query::parse(head.uri.query())?;
        if query.get("live") == Some("websocket") {
            // Pings show life; envelopes do so on request, for clients that can not see pings.
            let live = Live::of(&query, HEARTBEAT_NONE)?;
            let handshake = Handshake::parse(head)?;
            return Ok(Self::WebSocket(Box::new(WebSocket { live, handshake })));
        }
        if head.method == Method::CONNECT {
            return Err(Error::parameter("live", "is websocket for a CONNECT"));
        }
        Self::plain(&query, &head.headers, limits, holds)
    }

    /// A GET in any form but the WebSocket.
    pub(in crate::http) fn plain(
        query: &Query<'_>,
        headers: &(impl Fields + ?Sized),
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<Self, Error> {
        match query.get("live") {
            None => {
                let start = start(query)?.unwrap_or(Start::Earliest);
                let if_none_match = fields::text(headers, &IF_NONE_MATCH)?.map(str::to_owned);
                Ok(Self::ShortPoll(ShortPoll { start, if_none_match }))
            }
            Some("long-poll") => {
                let (start, cursor) = (live_start(query)?, cursor(query)?);
                let hold = Hold::of(query.seconds("timeout")?, headers, holds);
                let client = client(query.get("client"), headers)?;
                Ok(Self::LongPoll(LongPoll { start, cursor, hold, client }))
            }
            Some("sse") => Ok(Self::Sse(Live::of(query, limits.live_heartbeat.get())?)),
            Some("ndjson") => Ok(Self::Ndjson(Live::of(query, limits.live_heartbeat.get())?)),
            Some(_) => Err(Error::parameter("live", "is long-poll, sse, ndjson or websocket")),
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

impl Live {
    fn of(query: &Query<'_>, default: Duration) -> Result<Self, Error> {
        let (start, cursor) = (live_start(query)?, cursor(query)?);
        Ok(Self { start, cursor, heartbeat: heartbeat(query.seconds("heartbeat")?, default) })
    }
}

fn start(query: &Query<'_>) -> Result<Option<Start>, Error> {
    query.get("offset").map(|offset| offset.parse().map_err(Error::Offset)).transpose()
}

fn live_start(query: &Query<'_>) -> Result<Start, Error> {
    start(query)?.ok_or_else(|| Error::parameter("offset", "is required with live; -1 is the beginning"))
}

fn cursor(query: &Query<'_>) -> Result<Option<Cursor>, Error> {
    let parse = |cursor| {
        Cursor::parse(cursor).ok_or_else(|| Error::parameter("cursor", "is what Stream-Cursor said"))
    };
    query.get("cursor").map(parse).transpose()
}

impl Hold {
    /// As the parameter or the header field says, else the default.
    pub(super) fn of(parameter: Option<u64>, headers: &(impl Fields + ?Sized), holds: HoldPolicy) -> Self {
        let asked = parameter.or_else(|| fields::preferred_wait(headers));
        let time = asked.map_or_else(|| jittered(holds.default), Duration::from_secs).min(holds.max);
        Self { time, asked: asked.is_some() }
    }
}

/// The longest silence of a live form, as the parameter says.
pub(super) fn heartbeat(parameter: Option<u64>, default: Duration) -> Duration {
    let asked = parameter.map(Duration::from_secs);
    asked.map_or(default, |asked| asked.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX))
}

/// Who asks, as the parameter or the header field says.
pub(super) fn client(
    parameter: Option<&str>,
    headers: &(impl Fields + ?Sized),
) -> Result<Option<ClientId>, Error> {
    let client = match parameter {
        Some(client) => Some(client),
        None => fields::text(headers, &CLIENT_ID)?,
    };
    Ok(client.map(ClientId::parse).transpose()?)
}
