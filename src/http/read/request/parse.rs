//! Parses the parameters, header fields and bodies of reads.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::IF_NONE_MATCH;
use hyper::http::request::Parts;

use super::{
    HEARTBEAT_NONE, Hold, LiveRead, LongPoll, PostRead, Read, ReadFrom, ReadOrSocket, ShortPoll, WebSocket,
};
use crate::http::api::answer::Audience;
use crate::http::api::error::Error;
use crate::http::api::fields::{self, CLIENT_ID, Fields, LAST_EVENT_ID};
use crate::http::api::gateway::HoldPolicy;
use crate::http::api::handlers::{content_type, refuse_content_encoding};
use crate::http::api::handshake::Handshake;
use crate::http::api::target::{Parameter, Parameters, Query};
use crate::http::read::requested_streams::{JsonRead, requested_streams};
use crate::hub::ClientId;
use crate::limits::Limits;
use crate::stream::{CacheCursor, Start, StreamName};

/// The shortest and the longest heartbeat that a client may request.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(300);

/// How a delivery form resumes reading.
#[derive(Clone, Copy)]
struct Resumption<'a> {
    /// Whether the form waits for messages.
    is_live: bool,
    /// The id of the last event that the client received, which takes precedence over the parameters.
    last_event_id: Option<&'a str>,
}

impl ReadOrSocket {
    /// Parses a request that reads `stream`, or the streams that the query names.
    pub(in crate::http) fn parse(
        stream: Option<StreamName>,
        head: &Parts,
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<Self, Error> {
        let query = Query::parse(head.uri.query())?;
        if query.get(Parameter::Live) == Some("websocket") {
            let live = match stream {
                Some(stream) => Some(ReadFrom::one(stream, &query, Resumption::LIVE)?),
                None if query.streams().next().is_some() => {
                    Some(ReadFrom::many(&query, Resumption::LIVE, limits)?)
                }
                None => ReadFrom::check_seconds(&query).map(|()| None)?,
            };
            // A WebSocket has pings; empty envelopes are sent on request, for clients that cannot see pings.
            let live = live.map(|from| LiveRead::new(from, &query, HEARTBEAT_NONE)).transpose()?;
            let handshake = Handshake::parse(head)?;
            return Ok(Self::WebSocket(Box::new(WebSocket {
                handshake,
                live,
                rights: None,
                awaits_token: false,
            })));
        }
        if head.method == Method::CONNECT {
            return Err(Error::parameter("live", "must be websocket for CONNECT"));
        }
        Read::plain(stream, &query, &head.headers, limits, holds).map(Self::Read)
    }
}

impl Read {
    /// Parses a GET in any form but the WebSocket.
    pub(in crate::http) fn plain(
        stream: Option<StreamName>,
        query: &Query<'_>,
        headers: &(impl Fields + ?Sized),
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<Self, Error> {
        match stream {
            Some(stream) => Self::in_form(query, headers, limits, holds, |resumption| {
                ReadFrom::one(stream, query, resumption)
            }),
            None => Self::in_form(query, headers, limits, holds, |resumption| {
                ReadFrom::many(query, resumption, limits)
            }),
        }
    }

    /// Parses a HEAD for many streams, which is answered like a short poll.
    pub(in crate::http) fn head_of_many(head: &Parts, limits: &Limits) -> Result<Self, Error> {
        let query = Query::parse(head.uri.query())?;
        let from = ReadFrom::many(&query, Resumption { is_live: false, last_event_id: None }, limits)?;
        Ok(Self::ShortPoll(ShortPoll {
            from,
            has_offset: false,
            asks_lengths: false,
            if_none_match: None,
            client: None,
            audience: Audience::All,
        }))
    }

    /// Parses the JSON body of a POST that reads many streams.
    pub(in crate::http) fn from_json(
        body: &Bytes,
        headers: &(impl Fields + ?Sized),
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<Self, Error> {
        let json = JsonRead::parse(body, limits)?;
        Self::in_form(&json, headers, limits, holds, |Resumption { last_event_id, .. }| {
            json.streams(last_event_id, limits).map(ReadFrom::Many)
        })
    }

    /// Parses the parameters of a delivery form. `from` parses the streams and their positions.
    fn in_form(
        parameters: &impl Parameters,
        headers: &(impl Fields + ?Sized),
        limits: &Limits,
        holds: HoldPolicy,
        from: impl FnOnce(Resumption<'_>) -> Result<ReadFrom, Error>,
    ) -> Result<Self, Error> {
        let live = |from| LiveRead::new(from, parameters, limits.live_heartbeat.get());
        match parameters.get(Parameter::Live) {
            None => {
                let from = from(Resumption { is_live: false, last_event_id: None })?;
                let if_none_match = match &from {
                    ReadFrom::One { .. } => fields::list(headers, &IF_NONE_MATCH),
                    ReadFrom::Many(_) => None,
                };
                let has_offset = parameters.get(Parameter::Offset).is_some();
                let asks_lengths = parameters.get(Parameter::Lengths) == Some("1");
                let (client, audience) = (device(parameters), Audience::All);
                Ok(Self::ShortPoll(ShortPoll {
                    from,
                    has_offset,
                    asks_lengths,
                    if_none_match,
                    client,
                    audience,
                }))
            }
            Some("long-poll") => {
                let from = from(Resumption::LIVE)?;
                let hold = Hold::new(parameters.seconds(Parameter::Timeout)?, headers, holds);
                let client = client(parameters.get(Parameter::Client), headers)?;
                Ok(Self::LongPoll(LongPoll {
                    from,
                    hold,
                    client,
                    credentials: None,
                    audience: Audience::All,
                    taker: None,
                }))
            }
            Some("sse") => {
                let last_event_id = fields::text(headers, &LAST_EVENT_ID)?.filter(|id| !id.is_empty());
                let from = from(Resumption { last_event_id, ..Resumption::LIVE })?;
                Ok(Self::Sse(LiveRead { reconnects: last_event_id.is_some(), ..live(from)? }))
            }
            Some("ndjson") => Ok(Self::Ndjson(live(from(Resumption::LIVE)?)?)),
            Some("websocket") => Err(Error::parameter("live", "can be websocket only for GET")),
            Some(_) => Err(Error::parameter("live", "must be long-poll, sse, ndjson or websocket")),
        }
    }
}

impl ReadFrom {
    /// Parses a read of one stream. Only a form that waits requires an offset, and has a cache cursor.
    fn one(
        stream: StreamName,
        query: &Query<'_>,
        Resumption { is_live, last_event_id }: Resumption<'_>,
    ) -> Result<Self, Error> {
        Self::check_seconds(query)?;
        let not_an_id = |_| Error::field(&LAST_EVENT_ID, "must be the id of an event of the stream");
        let start: Option<Start> = match last_event_id {
            Some(id) => Some(id.parse().map_err(not_an_id)?),
            None => query
                .get(Parameter::Offset)
                .map(|offset| offset.parse().map_err(Error::Offset))
                .transpose()?,
        };
        if !is_live {
            return Ok(Self::One { stream, start: start.unwrap_or(Start::Earliest), cursor: None });
        }
        let start =
            start.ok_or_else(|| Error::parameter("offset", "is required with live; -1 is the beginning"))?;
        let parse = |cursor| {
            CacheCursor::parse(cursor)
                .ok_or_else(|| Error::parameter("cursor", "must be a value of Stream-Cursor"))
        };
        let cursor = query.get(Parameter::Cursor).map(parse).transpose()?;
        Ok(Self::One { stream, start, cursor })
    }

    fn many(query: &Query<'_>, resumption: Resumption<'_>, limits: &Limits) -> Result<Self, Error> {
        Self::check_seconds(query)?;
        Ok(Self::Many(requested_streams(query.streams(), query, resumption.last_event_id, limits)?))
    }

    /// Checks parameters that must be valid even if the delivery form does not use them.
    fn check_seconds(query: &Query<'_>) -> Result<(), Error> {
        query.seconds(Parameter::Timeout)?;
        query.seconds(Parameter::Heartbeat)?;
        Ok(())
    }
}

impl Resumption<'_> {
    /// A form that waits, of a client that does not reconnect.
    const LIVE: Self = Self { is_live: true, last_event_id: None };
}

impl LiveRead {
    fn new(from: ReadFrom, parameters: &impl Parameters, default: Duration) -> Result<Self, Error> {
        let requested = parameters.seconds(Parameter::Heartbeat)?.map(Duration::from_secs);
        let heartbeat = requested.map_or(default, |heartbeat| heartbeat.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX));
        let (grants, renewals, reconnects, is_private) = (None, None, false, false);
        let client = device(parameters);
        Ok(Self { from, heartbeat, client, grants, renewals, reconnects, is_private })
    }

    /// Parses the first frame of a WebSocket that reads many streams.
    pub(in crate::http) fn from_frame(text: &Bytes, limits: &Limits) -> Result<Self, Error> {
        let json = JsonRead::parse(text, limits)?;
        Self::new(ReadFrom::Many(json.streams(None, limits)?), &json, HEARTBEAT_NONE)
    }
}

impl PostRead {
    pub(in crate::http) fn parse(head: Parts) -> Result<Self, Error> {
        refuse_content_encoding(&head.headers)?;
        if !content_type(&head.headers)?.is_some_and(|content_type| content_type.is_json()) {
            return Err(Error::NotJson);
        }
        Ok(Self { headers: head.headers })
    }

    /// Parses the body of the request.
    pub(in crate::http) fn read(
        &self,
        body: &Bytes,
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<Read, Error> {
        Read::from_json(body, &self.headers, limits, holds)
    }
}

impl Hold {
    /// The hold time of the parameter `timeout`, else of `Prefer: wait`, else the default.
    fn new(parameter: Option<u64>, headers: &(impl Fields + ?Sized), holds: HoldPolicy) -> Self {
        let requested = parameter.or_else(|| fields::preferred_wait(headers));
        Self { time: holds.hold(requested), requested: requested.is_some() }
    }
}

/// The client of a read that joins no wait queue. It counts only if it is a device, so that another text is no error.
fn device(parameters: &impl Parameters) -> Option<ClientId> {
    ClientId::parse(parameters.get(Parameter::Client)?).ok()
}

/// Parses the client id: the parameter `client`, else the header field `Client-Id`.
fn client(parameter: Option<&str>, headers: &(impl Fields + ?Sized)) -> Result<Option<ClientId>, Error> {
    let client = match parameter {
        Some(client) => Some(client),
        None => fields::text(headers, &CLIENT_ID)?,
    };
    Ok(client.map(ClientId::parse).transpose()?)
}
