//! A request for many streams: which of them, from where, in which form. The query and the body say the same things.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Handshake;
use super::read::{HEARTBEAT_NONE, Hold, HoldPolicy, client, heartbeat};
use super::write::{content_type, refuse_content_encoding};
use crate::http::error::Error;
use crate::http::form::Form;
use crate::http::query::Query;
use crate::http::routes::decoded_name;
use crate::http::streams::cursor::{Known, NameHash};
use crate::hub::{ClientId, Follow};
use crate::limits::Limits;
use crate::stream::{InvalidMessages, Progress, StreamName, json_depth};

/// A request for many streams.
#[derive(Debug)]
pub(in crate::http) enum ReadMany {
    ShortPoll(Vec<Follow>),
    LongPoll(LongPollMany),
    Sse(LiveMany),
    Ndjson(LiveMany),
    WebSocket(WebSocketMany),
}

#[derive(Debug)]
pub(in crate::http) struct LongPollMany {
    pub(in crate::http) follows: Vec<Follow>,
    pub(in crate::http) hold: Hold,
    pub(in crate::http) client: Option<ClientId>,
}

#[derive(Debug)]
pub(in crate::http) struct LiveMany {
    pub(in crate::http) follows: Vec<Follow>,
    pub(in crate::http) heartbeat: Duration,
}

#[derive(Debug)]
pub(in crate::http) struct WebSocketMany {
    /// `None`: the first frame says it.
    pub(in crate::http) live: Option<LiveMany>,
    pub(in crate::http) handshake: Handshake,
}

/// The head of a POST for many streams; its body says the rest.
#[derive(Debug)]
pub(in crate::http) struct PostMany {
    headers: HeaderMap,
}

/// What is asked for, as it was said.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    cursor: Option<String>,
    from: Option<String>,
    live: Option<String>,
    timeout: Option<u64>,
    heartbeat: Option<u64>,
    client: Option<String>,
}

impl ReadMany {
    /// Of a GET, or of the CONNECT that opens a WebSocket.
    pub(in crate::http) fn parse(
        head: &mut Parts,
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<Self, Error> {
        let uri = head.uri.clone();
        let query = Query::parse(uri.query())?;
        let is_socket = query.get("live") == Some("websocket");
        if head.method == Method::CONNECT && !is_socket {
            return Err(Error::parameter("live", "is websocket for a CONNECT"));
        }
        let text = |name| query.get(name).map(str::to_owned);
        let asked = Asked {
            stream: None,
            cursor: text("cursor"),
            from: text("from"),
            live: text("live"),
            timeout: query.seconds("timeout")?,
            heartbeat: query.seconds("heartbeat")?,
            client: text("client"),
        };
        if !is_socket {
            return asked.read(query.streams(), &head.headers, limits, holds);
        }
        let is_named = query.streams().next().is_some();
        let live = is_named.then(|| asked.socket(query.streams(), limits)).transpose()?;
        Ok(Self::WebSocket(WebSocketMany { live, handshake: Handshake::parse(head)? }))
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

impl PostMany {
    pub(in crate::http) fn parse(head: Parts) -> Result<Self, Error> {
        refuse_content_encoding(&head.headers)?;
        if !content_type(&head.headers)?.is_some_and(|content_type| content_type.is_json()) {
            return Err(Error::NotJson);
        }
        Ok(Self { headers: head.headers })
    }

    /// The request, once its body is there.
    pub(in crate::http) fn read(
        &self,
        body: &Bytes,
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<ReadMany, Error> {
        let asked = Asked::parse(body, limits)?;
        let names = asked.names(limits)?;
        asked.read(names.iter().map(String::as_str), &self.headers, limits, holds)
    }
}

impl LiveMany {
    /// Of the first frame of a WebSocket.
    pub(in crate::http) fn parse(text: &Bytes, limits: &Limits) -> Result<Self, Error> {
        let asked = Asked::parse(text, limits)?;
        let names = asked.names(limits)?;
        asked.socket(names.iter().map(String::as_str), limits)
    }
}

impl<'a> Asked<'a> {
    fn parse(body: &'a Bytes, limits: &Limits) -> Result<Self, Error> {
        if json_depth(body) > limits.json_depth_max {
            return Err(Error::Json(InvalidMessages::TooDeep(limits.json_depth_max)));
        }
        serde_json::from_slice(body).map_err(not_json)
    }

    /// The names in a body: at most one more than are allowed, whatever was sent.
    fn names(&self, limits: &Limits) -> Result<Vec<String>, Error> {
        let Some(list) = self.stream else { return Ok(Vec::new()) };
        let mut list = serde_json::Deserializer::from_str(list.get());
        list.deserialize_seq(AtMost(limits.streams_per_request_max.saturating_add(1))).map_err(not_json)
    }

    fn read<'n>(
        self,
        names: impl Iterator<Item = &'n str>,
        headers: &HeaderMap,
        limits: &Limits,
        holds: HoldPolicy,
    ) -> Result<ReadMany, Error> {
        let follows = self.follows(names, limits)?;
        let live =
            |follows| LiveMany { follows, heartbeat: heartbeat(self.heartbeat, limits.live_heartbeat.get()) };
        match self.live.as_deref() {
            None => Ok(ReadMany::ShortPoll(follows)),
            Some("long-poll") => {
                let hold = Hold::of(self.timeout, headers, holds);
                let client = client(self.client.as_deref(), headers)?;
                Ok(ReadMany::LongPoll(LongPollMany { follows, hold, client }))
            }
            Some("sse") => Ok(ReadMany::Sse(live(follows))),
            Some("ndjson") => Ok(ReadMany::Ndjson(live(follows))),
            Some("websocket") => Err(Error::parameter("live", "is websocket for a GET alone")),
            Some(_) => Err(Error::parameter("live", "is long-poll, sse, ndjson or websocket")),
        }
    }

    fn socket<'n>(self, names: impl Iterator<Item = &'n str>, limits: &Limits) -> Result<LiveMany, Error> {
        let follows = self.follows(names, limits)?;
        Ok(LiveMany { follows, heartbeat: heartbeat(self.heartbeat, HEARTBEAT_NONE) })
    }

    /// The streams, each with what the cursor says of it, in the order of their turns.
    fn follows<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
        limits: &Limits,
    ) -> Result<Vec<Follow>, Error> {
        let known = self.cursor.as_deref().map(Known::parse).transpose()?.unwrap_or_default();
        let begin = match self.from.as_deref() {
            None => None,
            Some("earliest") => Some(Progress::Earliest),
            Some(_) => return Err(Error::parameter("from", "is earliest, or is left out to begin now")),
        };
        let mut named: HashMap<NameHash, StreamName> = HashMap::new();
        let mut follows = Vec::new();
        for name in names {
            let stream = decoded_name(name)?;
            let hash = NameHash::of(&stream);
            if let Some(other) = named.insert(hash, stream.clone()) {
                return Err(if other == stream { Error::SameStream } else { Error::SameHash });
            }
            if named.len() > limits.streams_per_request_max {
                return Err(Error::TooManyStreams { max: limits.streams_per_request_max });
            }
            let (turn, progress) =
                known.get(hash).map_or((usize::MAX, begin), |(turn, progress)| (turn, Some(progress)));
            follows.push((turn, Follow { stream, progress }));
        }
        if follows.is_empty() {
            return Err(Error::parameter("stream", "is required, once for each stream"));
        }
        follows.sort_by_key(|(turn, _)| *turn);
        Ok(follows.into_iter().map(|(_, follow)| follow).collect())
    }
}

fn not_json(error: serde_json::Error) -> Error {
    Error::Json(InvalidMessages::NotJson(error.to_string()))
}

/// A list of texts of which no more are kept.
struct AtMost(usize);

impl<'de> Visitor<'de> for AtMost {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of stream names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        let mut names = Vec::new();
        while names.len() < self.0
            && let Some(name) = list.next_element()?
        {
            names.push(name);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(names)
    }
}
