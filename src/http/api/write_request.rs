//! PUT and POST: what to create, what to append and how.

use std::time::Duration;

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use hyper::http::request::Parts;

use super::error::Error;
use super::fields::{self, *};
use super::target::stream_of_path;
use super::target::{Parameters, Query};
use crate::stream::{
    Append, AppendType, ContentType, CreateIfMissing, Lifetime, Producer, Retention, Start, StreamName,
};

/// The head of a PUT.
#[derive(Debug)]
pub(in crate::http) struct Put {
    pub(in crate::http) content_type: Option<ContentType>,
    pub(in crate::http) lifetime: Option<Lifetime>,
    pub(in crate::http) retention: Option<Retention>,
    pub(in crate::http) closed: bool,
    pub(in crate::http) fork: Option<(StreamName, Option<Start>, u64)>,
    /// The absolute URL of the stream.
    pub(in crate::http) location: String,
}

impl Put {
    pub(in crate::http) fn parse(head: &Parts) -> Result<Self, Error> {
        refuse_content_encoding(&head.headers)?;
        Ok(Self {
            content_type: content_type(&head.headers)?,
            lifetime: lifetime(head)?,
            retention: retention(head)?,
            closed: fields::flag(&head.headers, &STREAM_CLOSED)?,
            fork: fork(head)?,
            location: location(head),
        })
    }
}

/// The head of a POST: an append without its messages.
pub(in crate::http) fn post(query: Option<&str>, headers: &(impl Fields + ?Sized)) -> Result<Append, Error> {
    refuse_content_encoding(headers)?;
    let create = match Query::parse(query)?.get("create") {
        None | Some("0") => None,
        Some("1") => Some(CreateIfMissing::default()),
        Some(_) => return Err(Error::parameter("create", "is 0 or 1")),
    };
    Ok(Append {
        content_type: content_type(headers)?.map_or(AppendType::Undeclared, AppendType::Declared),
        close: fields::flag(headers, &STREAM_CLOSED)?,
        producer: producer(headers)?,
        sequence: fields::text(headers, &STREAM_SEQ)?.map(Box::from),
        create,
        ..Append::default()
    })
}

pub(in crate::http) fn refuse_content_encoding(headers: &(impl Fields + ?Sized)) -> Result<(), Error> {
    let coded = headers.values(&CONTENT_ENCODING).any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    if coded { Err(Error::ContentEncoding) } else { Ok(()) }
}

pub(in crate::http) fn content_type(headers: &(impl Fields + ?Sized)) -> Result<Option<ContentType>, Error> {
    let text = fields::text(headers, &CONTENT_TYPE)?.filter(|text| !text.is_empty());
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
    let source =
        stream_of_path(source).map_err(|_| Error::field(&STREAM_FORKED_FROM, "is the path of a stream"))?;
    let offset = offset.map(|offset| offset.parse().map_err(Error::Offset)).transpose()?;
    Ok(Some((source, offset, sub_offset.unwrap_or(0))))
}

fn producer(headers: &(impl Fields + ?Sized)) -> Result<Option<Producer>, Error> {
    let id = fields::text(headers, &PRODUCER_ID)?;
    let epoch = fields::number(headers, &PRODUCER_EPOCH)?;
    let sequence = fields::number(headers, &PRODUCER_SEQ)?;
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
