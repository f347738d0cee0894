//! Requests to read: of one stream or many, from which position, in which delivery form, and for how long.

mod parse;

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;

use crate::access_log::LoggedAddress;
use crate::auth::Grants;
use crate::http::api::answer::Audience;
use crate::http::api::credentials::{HeldCredentials, Renewals, Rights};
use crate::http::api::form::Form;
use crate::http::api::handshake::Handshake;
use crate::hub::{ClientId, RequestedStream};
use crate::stream::{CacheCursor, Progress, Start, StreamName, Tenant};

/// The heartbeat of a client that gets none: longer than any connection needs one.
pub(in crate::http) const HEARTBEAT_NONE: Duration = Duration::from_secs(24 * 3600);

/// A read in one of the delivery forms over plain HTTP.
#[derive(Debug)]
pub(in crate::http) enum Read {
    ShortPoll(ShortPoll),
    LongPoll(LongPoll),
    Sse(LiveRead),
    Ndjson(LiveRead),
}

/// A GET, or the CONNECT that opens a WebSocket over HTTP/2.
#[derive(Debug)]
pub(in crate::http) enum ReadOrSocket {
    Read(Read),
    WebSocket(Box<WebSocket>),
}

/// The streams to read: one or many, each with its position.
#[derive(Debug)]
pub(in crate::http) enum ReadFrom {
    One {
        stream: StreamName,
        start: Start,
        /// The last cache cursor that the client received.
        cursor: Option<CacheCursor>,
    },
    Many(Vec<RequestedStream>),
}

#[derive(Debug)]
pub(in crate::http) struct ShortPoll {
    pub(in crate::http) from: ReadFrom,
    /// The request names an offset; without one, the earliest message is the first.
    pub(in crate::http) has_offset: bool,
    /// The client asks for the lengths of the appends to a stream that is not JSON.
    pub(in crate::http) asks_lengths: bool,
    pub(in crate::http) if_none_match: Option<String>,
    /// The client, which may be a device.
    pub(in crate::http) client: Option<ClientId>,
    /// Which clients get the same response.
    pub(in crate::http) audience: Audience,
}

#[derive(Debug)]
pub(in crate::http) struct LongPoll {
    pub(in crate::http) from: ReadFrom,
    pub(in crate::http) hold: Hold,
    pub(in crate::http) client: Option<ClientId>,
    /// The credentials of the client. `None`: they never end.
    pub(in crate::http) credentials: Option<HeldCredentials>,
    /// Which clients get the same response.
    pub(in crate::http) audience: Audience,
    /// For the audit log, if there is one: the client in case that it takes over from an older poll.
    pub(in crate::http) taker: Option<Box<Taker>>,
}

/// A client with an id, which may take over from an older poll of its own.
#[derive(Debug)]
pub(in crate::http) struct Taker {
    pub(in crate::http) who: Option<Arc<Grants>>,
    pub(in crate::http) client: ClientId,
    /// Where the client is, if a proxy has told it.
    pub(in crate::http) address: Option<LoggedAddress>,
}

/// The hold time of a long poll.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Hold {
    pub(in crate::http) time: Duration,
    /// The client requested a hold time, so the response tells the one that was applied.
    pub(in crate::http) requested: bool,
}

/// SSE, NDJSON, or the envelopes of a WebSocket.
#[derive(Debug)]
pub(in crate::http) struct LiveRead {
    pub(in crate::http) from: ReadFrom,
    pub(in crate::http) heartbeat: Duration,
    /// The client, which may be a device.
    pub(in crate::http) client: Option<ClientId>,
    /// The rights of the client. `None`: they never end.
    pub(in crate::http) grants: Option<Arc<Grants>>,
    /// The rights of the client of a WebSocket, which it may renew; they take the place of `grants`.
    pub(in crate::http) renewals: Option<Renewals>,
    /// The client reconnects with the id of the last event that it received.
    pub(in crate::http) reconnects: bool,
    /// Only clients with a token may read the stream.
    pub(in crate::http) is_private: bool,
}

#[derive(Debug)]
pub(in crate::http) struct WebSocket {
    pub(in crate::http) handshake: Handshake,
    /// `None`: the first frame names the streams to read.
    pub(in crate::http) live: Option<LiveRead>,
    /// What the client may do. `None`: the gateway checks no credentials.
    pub(in crate::http) rights: Option<Rights>,
    /// The streams need a token, which the client has to send in a frame before anything is read.
    pub(in crate::http) awaits_token: bool,
}

/// The head of a POST that reads many streams. Its body names them.
#[derive(Debug)]
pub(in crate::http) struct PostRead {
    headers: HeaderMap,
}

impl WebSocket {
    /// The name of the stream; empty for a read of many streams.
    pub(in crate::http) fn stream(&self) -> &str {
        self.live.as_ref().map_or("", |live| live.from.stream())
    }
}

impl Read {
    pub(in crate::http) fn form(&self) -> Form {
        match self {
            Self::ShortPoll(_) => Form::ShortPoll,
            Self::LongPoll(_) => Form::LongPoll,
            Self::Sse(_) => Form::Sse,
            Self::Ndjson(_) => Form::Ndjson,
        }
    }

    /// The name of the stream; empty for a read of many streams.
    pub(in crate::http) fn stream(&self) -> &str {
        match self {
            Self::ShortPoll(poll) => poll.from.stream(),
            Self::LongPoll(poll) => poll.from.stream(),
            Self::Sse(live) | Self::Ndjson(live) => live.from.stream(),
        }
    }

    /// The client id, if the client sent one.
    pub(in crate::http) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::LongPoll(poll) => poll.client.as_ref(),
            Self::ShortPoll(_) | Self::Sse(_) | Self::Ndjson(_) => None,
        }
    }
}

impl ReadFrom {
    fn stream(&self) -> &str {
        match self {
            Self::One { stream, .. } => stream.as_str(),
            Self::Many(_) => "",
        }
    }

    /// The streams.
    pub(in crate::http) fn streams(&self) -> impl Iterator<Item = &StreamName> {
        let (one, many) = match self {
            Self::One { stream, .. } => (Some(stream), &[][..]),
            Self::Many(streams) => (None, &streams[..]),
        };
        one.into_iter().chain(many.iter().map(|requested| &requested.stream))
    }

    /// The streams with the points from which they are read.
    pub(in crate::http) fn starts(&self) -> impl Iterator<Item = (&StreamName, Start)> {
        let (one, many) = match self {
            Self::One { stream, start, .. } => (Some((stream, *start)), &[][..]),
            Self::Many(streams) => (None, &streams[..]),
        };
        let start = |requested: &RequestedStream| requested.progress.map_or(Start::Tail, Progress::start);
        let served = many.iter().filter(|requested| !requested.withheld);
        one.into_iter().chain(served.map(move |requested| (&requested.stream, start(requested))))
    }

    /// The tenant of the streams, once the request is admitted.
    pub(in crate::http) fn tenant(&self) -> Tenant {
        self.streams().next().map(StreamName::tenant).unwrap_or_default()
    }

    /// The streams that the client may read.
    pub(in crate::http) fn served(&self) -> Vec<StreamName> {
        match self {
            Self::One { stream, .. } => vec![stream.clone()],
            Self::Many(streams) => {
                let served = streams.iter().filter(|requested| !requested.withheld);
                served.map(|requested| requested.stream.clone()).collect()
            }
        }
    }
}
