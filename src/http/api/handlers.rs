//! The operations on a stream that deliver no messages: create, append, delete and describe. Parses their requests and answers
//! them.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::answer;
use super::error::Error;
use super::fields::{self, *};
use super::gateway::Gateway;
use super::polled_origins;
use super::target::{Parameter, Parameters, Query, stream_of_path};
use crate::clock::rfc3339;
use crate::http::conn::{Answer, Body};
use crate::hub::{Creation, OriginSettings};
use crate::stream::{
    Append, AppendType, Appended, ChangeError, ContentType, CreateIfMissing, Lifetime, PRODUCER_ID_BYTES_MAX,
    Principal, Producer, Retention, Start, StreamName,
};

/// The methods of a stream.
pub(in crate::http) const STREAM_METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// The longest `Stream-Seq`, in bytes.
const SEQUENCE_BYTES_MAX: usize = 256;

/// The head of a PUT.
#[derive(Debug)]
pub(in crate::http) struct Put {
    /// The principal of the client's token; the gateway, if its address is its principal.
    pub(in crate::http) principal: Principal,
    pub(in crate::http) content_type: Option<ContentType>,
    pub(in crate::http) lifetime: Option<Lifetime>,
    pub(in crate::http) retention: Option<Retention>,
    pub(in crate::http) closed: bool,
    /// The source of a fork, and the offset and sub-offset at which it forks.
    pub(in crate::http) fork: Option<(StreamName, Option<Start>, u64)>,
    /// The URL from which the gateway fills the stream, and how often.
    pub(in crate::http) origin: Option<OriginSettings>,
    /// The absolute URL of the stream.
    pub(in crate::http) location: String,
}

impl Put {
    /// Parses the head of a PUT. `scheme` is that of the gateway's URLs.
    pub(in crate::http) fn parse(head: &Parts, scheme: &str) -> Result<Self, Error> {
        refuse_content_encoding(&head.headers)?;
        // RFC 9110, section 14.5: the part of something must not be taken for the whole.
        if head.headers.contains_key(CONTENT_RANGE) {
            return Err(Error::field(&CONTENT_RANGE, "is not supported; a PUT creates a whole stream"));
        }
        Ok(Self {
            principal: Principal::GATEWAY,
            content_type: content_type(&head.headers)?,
            lifetime: lifetime(head)?,
            retention: retention(head)?,
            closed: fields::flag(&head.headers, &STREAM_CLOSED)?,
            fork: fork(head)?,
            origin: polled_origins::origin(head)?,
            location: location(head, scheme),
        })
    }
}

/// Parses the head of a POST into an append without messages.
pub(in crate::http) fn post(query: Option<&str>, headers: &(impl Fields + ?Sized)) -> Result<Append, Error> {
    refuse_content_encoding(headers)?;
    let create = match Query::parse(query)?.get(Parameter::Create) {
        None | Some("0") => None,
        Some("1") => Some(CreateIfMissing::default()),
        Some(_) => return Err(Error::parameter("create", "must be 0 or 1")),
    };
    Ok(Append {
        content_type: content_type(headers)?.map_or(AppendType::Undeclared, AppendType::Declared),
        close: fields::flag(headers, &STREAM_CLOSED)?,
        producer: producer(headers)?,
        sequence: sequence(headers)?,
        create,
        ..Append::default()
    })
}

pub(in crate::http) fn refuse_content_encoding(headers: &(impl Fields + ?Sized)) -> Result<(), Error> {
    let mut codings = headers
        .values(&CONTENT_ENCODING)
        .flat_map(|list| list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    let coded = codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
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
        (Some(_), Some(_)) => Err(Error::field(&STREAM_TTL, "cannot be combined with Stream-Expires-At")),
        (Some(idle), None) => Ok(Some(Lifetime::Idle(Duration::from_secs(idle)))),
        (None, until) => Ok(until.map(Lifetime::Until)),
    }
}

fn retention(head: &Parts) -> Result<Option<Retention>, Error> {
    let positive = |name| match fields::number(&head.headers, name)? {
        Some(0) => Err(Error::field(name, "must be at least 1")),
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
            Some((_, name)) => Err(Error::field(&name, "requires Stream-Forked-From")),
            None => Ok(None),
        };
    };
    let source = stream_of_path(source)
        .map_err(|_| Error::field(&STREAM_FORKED_FROM, "must be the path of a stream"))?;
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
        (Some(id), ..) if id.len() > PRODUCER_ID_BYTES_MAX => {
            Err(Error::field(&PRODUCER_ID, "must have at most 256 bytes"))
        }
        (Some(id), Some(epoch), Some(sequence)) => Ok(Some(Producer { id: id.into(), epoch, sequence })),
        _ => Err(Error::field(&PRODUCER_ID, "must be sent together with Producer-Epoch and Producer-Seq")),
    }
}

/// Parses `Stream-Seq`. Its length is limited, because the stream stores the last one.
fn sequence(headers: &(impl Fields + ?Sized)) -> Result<Option<Box<str>>, Error> {
    match fields::text(headers, &STREAM_SEQ)? {
        Some(text) if text.len() > SEQUENCE_BYTES_MAX => {
            Err(Error::field(&STREAM_SEQ, "must have at most 256 bytes"))
        }
        text => Ok(text.map(Box::from)),
    }
}

/// Returns the URL under which the client reached the stream.
fn location(head: &Parts, scheme: &str) -> String {
    let target = head.uri.authority().map(|authority| authority.as_str());
    let authority = target.or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok()));
    let path = head.uri.path();
    authority.map_or_else(|| path.to_owned(), |authority| format!("{scheme}://{authority}{path}"))
}

/// The parts of an append that its response depends on.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct AppendAnswer {
    has_messages: bool,
    producer_epoch: Option<u64>,
}

impl AppendAnswer {
    pub(in crate::http) fn to(append: &Append) -> Self {
        let producer_epoch = append.producer.as_ref().map(|producer| producer.epoch);
        Self { has_messages: !append.payload.is_empty(), producer_epoch }
    }

    /// Returns the response to the append.
    pub(in crate::http) fn write<A: Answer>(self, appended: &Appended) -> A {
        let Self { has_messages, producer_epoch } = self;
        let is_news = producer_epoch.is_some() && has_messages && !appended.duplicate;
        let status = if is_news { StatusCode::OK } else { StatusCode::NO_CONTENT };
        let mut answer: A = answer::tail(status, appended.tail, appended.closed);
        if let (Some(epoch), Some(highest)) = (producer_epoch, appended.highest) {
            answer.put(PRODUCER_EPOCH, itoa::Buffer::new().format(epoch).as_bytes());
            answer.put(PRODUCER_SEQ, itoa::Buffer::new().format(highest).as_bytes());
        }
        answer
    }
}

impl Gateway {
    /// PUT: creates a stream or a fork (protocol, sections 4.2 and 5.1).
    pub(in crate::http) async fn create(
        &self,
        name: StreamName,
        put: Put,
        body: Bytes,
        address: Principal,
    ) -> Result<Response<Body>, Error> {
        let Put { principal, content_type, lifetime, retention, closed, fork, origin, location } = put;
        let principal = principal.or(address);
        let creation = Creation { principal, content_type, lifetime, retention, closed, body, fork };
        let created = match &origin {
            None => self.hub.create(&name, creation).await?,
            Some(origin) => {
                self.origin_policy.admit(origin)?;
                if closed || !creation.body.is_empty() || creation.fork.is_some() {
                    let what = "cannot be combined with a body, Stream-Closed or Stream-Forked-From";
                    return Err(Error::field(&STREAM_ORIGIN, what));
                }
                self.hub.create_polled(&name, creation, origin.clone()).await?
            }
        };
        let status = if created.fresh { StatusCode::CREATED } else { StatusCode::OK };
        let mut answer: Response<Body> = answer::tail(status, created.tail, created.closed);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, fields::value(created.content_type.as_str()));
        if let Some(origin) = self.hub.origin_of(&name).filter(|_| origin.is_some()) {
            polled_origins::put_settings(headers, origin.settings());
        }
        if created.fresh {
            headers.insert(LOCATION, fields::value(&location));
        }
        Ok(answer)
    }

    /// POST: appends and closes (protocol, sections 5.2 and 5.3). Sets `has_created` if that has created the stream.
    pub(in crate::http) async fn append<A: Answer>(
        &self,
        name: StreamName,
        append: Box<Append>,
        has_created: &mut bool,
    ) -> Result<A, Error> {
        let answer = AppendAnswer::to(&append);
        let appended = self.hub.publish(&name, append).await?;
        *has_created = appended.created;
        Ok(answer.write(&appended))
    }

    /// DELETE: deletes a stream (protocol, section 5.4).
    pub(in crate::http) async fn delete(&self, name: StreamName) -> Result<Response<Body>, Error> {
        self.hub.delete(&name).await?;
        Ok(answer::uncached(StatusCode::NO_CONTENT))
    }

    /// HEAD: describes a stream, with its earliest offset and its tail (protocol, section 5.5).
    /// `may_manage`: the client may know where the stream comes from.
    pub(in crate::http) async fn head(
        &self,
        name: StreamName,
        may_manage: bool,
    ) -> Result<Response<Body>, Error> {
        let stream = self.hub.describe(&name).await?;
        let mut answer: Response<Body> = answer::tail(StatusCode::OK, stream.tail, stream.closed);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, fields::value(stream.content_type.as_str()));
        headers.insert(STREAM_EARLIEST_OFFSET, fields::offset_value(stream.earliest));
        let origin = self.hub.origin_of_described(&name, &stream).await.map_err(ChangeError::Failed)?;
        if let Some(origin) = origin {
            polled_origins::put_status(headers, &origin.status());
            if may_manage {
                polled_origins::put_settings(headers, origin.settings());
            }
        }
        match stream.lifetime {
            Lifetime::Unlimited => None,
            Lifetime::Idle(idle) => headers.insert(STREAM_TTL, fields::seconds(idle)),
            Lifetime::Until(end) => headers.insert(STREAM_EXPIRES_AT, fields::value(&rfc3339(end))),
        };
        let bounds = [
            (STREAM_MAX_MESSAGES, stream.retention.messages_max),
            (STREAM_MAX_BYTES, stream.retention.bytes_max),
            (STREAM_MAX_AGE, stream.retention.age_max.map(|age| age.as_secs())),
        ];
        for (name, bound) in bounds {
            if let Some(bound) = bound {
                headers.insert(name, HeaderValue::from(bound));
            }
        }
        Ok(answer)
    }
}
