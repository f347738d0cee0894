//! Typed requests: what the handlers get instead of header fields and queries.

use std::time::Duration;

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, IF_NONE_MATCH};
use hyper::http::request::Parts;

use super::error::Error;
use super::fields::{self, *};
use super::query::Query;
use crate::hub::ClientId;
use crate::limits::{Limits, jittered};
use crate::metrics::Form;
use crate::stream::{ContentType, Cursor, Lifetime, Producer, Retention, Start, StreamName};

/// Heartbeats that a client may ask for.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(300);

/// A GET.
#[derive(Debug)]
pub(super) enum Read {
    ShortPoll(ShortPoll),
    LongPoll(LongPoll),
    Sse(Live),
}

#[derive(Debug)]
pub(super) struct ShortPoll {
    pub(super) start: Start,
    pub(super) if_none_match: Option<String>,
}

#[derive(Debug)]
pub(super) struct LongPoll {
    pub(super) start: Start,
    pub(super) cursor: Option<Cursor>,
    pub(super) hold: Duration,
    /// Whether the client asked for a hold, so that the one it gets is said back.
    pub(super) hold_asked: bool,
    pub(super) client: Option<ClientId>,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) start: Start,
    pub(super) cursor: Option<Cursor>,
    pub(super) heartbeat: Duration,
}

/// The head of a PUT.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) content_type: Option<ContentType>,
    pub(super) lifetime: Option<Lifetime>,
    pub(super) retention: Option<Retention>,
    pub(super) closed: bool,
    pub(super) fork: Option<(StreamName, Option<Start>, u64)>,
    /// The absolute URL of the stream.
    pub(super) location: String,
}

/// The head of a POST.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) content_type: Option<ContentType>,
    pub(super) close: bool,
    pub(super) producer: Option<Producer>,
    pub(super) sequence: Option<Box<str>>,
    pub(super) create: bool,
}

impl Read {
    pub(super) fn parse(head: &Parts, limits: &Limits) -> Result<Self, Error> {
        let query = Query::parse(head.uri.query())?;
        let start = query.get("offset").map(|offset| offset.parse().map_err(Error::Offset)).transpose()?;
        let Some(live) = query.get("live") else {
            let if_none_match = fields::text(&head.headers, &IF_NONE_MATCH)?.map(str::to_owned);
            return Ok(Self::ShortPoll(ShortPoll { start: start.unwrap_or(Start::Earliest), if_none_match }));
        };
        let start =
            start.ok_or_else(|| Error::parameter("offset", "is required with live; -1 is the beginning"));
        let cursor = query.get("cursor").map(|cursor| {
            Cursor::parse(cursor).ok_or_else(|| Error::parameter("cursor", "is what Stream-Cursor said"))
        });
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
                let cursor = cursor.transpose()?;
                Ok(Self::LongPoll(LongPoll {
                    start: start?,
                    cursor,
                    hold,
                    hold_asked: asked.is_some(),
                    client,
                }))
            }
            "sse" => {
                let asked = query.seconds("heartbeat")?.map(Duration::from_secs);
                let heartbeat =
                    asked.unwrap_or(limits.sse_heartbeat.get()).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
                Ok(Self::Sse(Live { start: start?, cursor: cursor.transpose()?, heartbeat }))
            }
            _ => Err(Error::parameter("live", "is long-poll or sse")),
        }
    }

    pub(super) fn form(&self) -> Form {
        match self {
            Self::ShortPoll(_) => Form::ShortPoll,
            Self::LongPoll(_) => Form::LongPoll,
            Self::Sse(_) => Form::Sse,
        }
    }

    /// Who asks, if it said so.
    pub(super) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::LongPoll(poll) => poll.client.as_ref(),
            Self::ShortPoll(_) | Self::Sse(_) => None,
        }
    }
}

impl Put {
    pub(super) fn parse(head: &Parts) -> Result<Self, Error> {
        refuse_content_encoding(head)?;
        Ok(Self {
            content_type: content_type(head)?,
            lifetime: lifetime(head)?,
            retention: retention(head)?,
            closed: fields::flag(&head.headers, &STREAM_CLOSED)?,
            fork: fork(head)?,
            location: location(head),
        })
    }
}

impl Post {
    pub(super) fn parse(head: &Parts) -> Result<Self, Error> {
        refuse_content_encoding(head)?;
        let create = match Query::parse(head.uri.query())?.get("create") {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => return Err(Error::parameter("create", "is 0 or 1")),
        };
        Ok(Self {
            content_type: content_type(head)?,
            close: fields::flag(&head.headers, &STREAM_CLOSED)?,
            producer: producer(head)?,
            sequence: fields::text(&head.headers, &STREAM_SEQ)?.map(Box::from),
            create,
        })
    }
}

fn refuse_content_encoding(head: &Parts) -> Result<(), Error> {
    let coded = head
        .headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if coded { Err(Error::ContentEncoding) } else { Ok(()) }
}

fn content_type(head: &Parts) -> Result<Option<ContentType>, Error> {
    let text = fields::text(&head.headers, &CONTENT_TYPE)?.filter(|text| !text.is_empty());
    Ok(text.map(ContentType::parse).transpose()?)
}

fn lifetime(head: &Parts) -> Result<Option<Lifetime>, Error> {
    let idle = fields::number(&head.headers, &STREAM_TTL)?;
    let until = fields::timestamp(&head.headers, &STREAM_EXPIRES_AT)?;
    match (idle, until) {
        (Some(_), Some(_)) => Err(Error::field(&STREAM_TTL, "and Stream-Expires-At exclude each other")),
        (Some(idle), None) => Ok(Some(Lifetime::Idle(Duration::from_secs(idle)))),
        (None, until) => Ok(until.map(Lifetime::Until)),
    }
}

fn retention(head: &Parts) -> Result<Option<Retention>, Error> {
    let positive = |name| match fields::number(&head.headers, name)? {
        Some(0) => Err(Error::field(name, "is at least 1")),
        number => Ok(number),
    };
    let retention = Retention {
        messages_max: positive(&STREAM_MAX_MESSAGES)?,
        bytes_max: positive(&STREAM_MAX_BYTES)?,
        age_max: positive(&STREAM_MAX_AGE)?.map(Duration::from_secs),
    };
    Ok((retention != Retention::default()).then_some(retention))
}

fn fork(head: &Parts) -> Result<Option<(StreamName, Option<Start>, u64)>, Error> {
    let offset = fields::text(&head.headers, &STREAM_FORK_OFFSET)?;
    let sub_offset = fields::number(&head.headers, &STREAM_FORK_SUB_OFFSET)?;
    let Some(source) = fields::text(&head.headers, &STREAM_FORKED_FROM)? else {
        let stray = [(offset.is_some(), STREAM_FORK_OFFSET), (sub_offset.is_some(), STREAM_FORK_SUB_OFFSET)];
        return match stray.into_iter().find(|(given, _)| *given) {
            Some((_, name)) => Err(Error::field(&name, "needs Stream-Forked-From")),
            None => Ok(None),
        };
    };
    let source = super::stream_name(source)
        .map_err(|_| Error::field(&STREAM_FORKED_FROM, "is the path of a stream"))?;
    let offset = offset.map(|offset| offset.parse().map_err(Error::Offset)).transpose()?;
    Ok(Some((source, offset, sub_offset.unwrap_or(0))))
}

fn producer(head: &Parts) -> Result<Option<Producer>, Error> {
    let id = fields::text(&head.headers, &PRODUCER_ID)?;
    let epoch = fields::number(&head.headers, &PRODUCER_EPOCH)?;
    let sequence = fields::number(&head.headers, &PRODUCER_SEQ)?;
    match (id, epoch, sequence) {
        (None, None, None) => Ok(None),
        (Some(""), ..) => Err(Error::field(&PRODUCER_ID, "must not be empty")),
        (Some(id), Some(epoch), Some(sequence)) => Ok(Some(Producer { id: id.into(), epoch, sequence })),
        _ => Err(Error::field(&PRODUCER_ID, "goes with Producer-Epoch and Producer-Seq: all three or none")),
    }
}

/// The URL under which the client reached the stream.
fn location(head: &Parts) -> String {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    let scheme = match head.headers.get(X_FORWARDED_PROTO) {
        Some(scheme) if scheme.as_bytes().eq_ignore_ascii_case(b"https") => "https",
        _ => "http",
    };
    let path = head.uri.path();
    authority.map_or_else(|| path.to_owned(), |authority| format!("{scheme}://{authority}{path}"))
}
