//! Every reason to refuse a request, and the one mapping of them to the wire (RFC 9457).

use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use super::answer::secure;
use super::fields::{self, *};
use crate::http::conn::{Body, bare};
use crate::http::read::resume_token::InvalidResumeToken;
use crate::hub::{CreationError, InvalidClientId, PollError, TooManyPolls};
use crate::stream::{
    AppendError, AppendRefusal, ChangeError, CreateError, Failure, Gap, GapReason, InvalidContentType,
    InvalidMessages, InvalidName, InvalidOffset, Missing, Offset, ProducerRefusal, ReadError, Shortage,
};

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum Error {
    #[error("there is nothing at this path; streams are at /v1/stream/{{name}}")]
    NoSuchPath,
    #[error("the stream name is not UTF-8 after percent-decoding")]
    NameNotUtf8,
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(
        "names under __ds/ are reserved by the protocol for subscriptions, which this server does not have"
    )]
    Reserved,
    #[error("what is at this path knows {allowed}")]
    MethodNotAllowed { allowed: &'static str },
    #[error("a request target has at most {max} bytes")]
    TargetTooLong { max: usize },
    #[error("a request has either Content-Length or Transfer-Encoding, not both")]
    AmbiguousLength,
    #[error("a body has a Content-Length or comes in chunks; no other Transfer-Encoding is taken")]
    TransferEncoding,
    #[error("there are more connections than this server takes")]
    TooManyConnections,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Offset(InvalidOffset),
    #[error(transparent)]
    ContentType(#[from] InvalidContentType),
    #[error("bodies are taken as they are, without Content-Encoding")]
    ContentEncoding,
    #[error(transparent)]
    Client(#[from] InvalidClientId),
    #[error("a body has at most {max} bytes")]
    BodyTooLarge { max: usize },
    #[error("the body did not come in time: {seconds} s, and a second more per {per_second} bytes")]
    BodyTooSlow { seconds: u64, per_second: u64 },
    #[error("{0}")]
    Short(Shortage),
    #[error("the body ended before its time")]
    BodyBroken,
    #[error("this needs a WebSocket handshake of version 13 (RFC 6455; over HTTP/2 RFC 8441)")]
    UpgradeRequired,
    #[error("/mqtt speaks MQTT alone: a WebSocket with the subprotocol mqtt")]
    Subprotocol,
    #[error("this server does not answer for the host {host}; --host {host} makes it")]
    Misdirected { host: Box<str> },
    #[error(
        "pages of the origin {origin} may not use this server; --origin {} allows it",
        setting.as_deref().unwrap_or("'*'")
    )]
    Origin { origin: Box<str>, setting: Option<Box<str>> },
    #[error(
        "pages of other sites may not load this without CORS (the crossorigin attribute, or fetch); --origin '*' allows it"
    )]
    CrossSite,
    #[error("messages of this stream come in {} frames", if *binary { "binary" } else { "text" })]
    FrameType { binary: bool },
    #[error("a request for many streams is JSON: its Content-Type is application/json")]
    NotJson,
    #[error(transparent)]
    Json(InvalidMessages),
    #[error("a request has at most {max} streams (streams_per_request_max)")]
    TooManyStreams { max: usize },
    #[error("a request names each stream once")]
    SameStream,
    #[error(
        "the names of two of the streams collide in a resume token: ask for one of them in a request of its own"
    )]
    SameHash,
    #[error(transparent)]
    ResumeToken(#[from] InvalidResumeToken),
    #[error("this WebSocket brings many streams and takes no messages: publish by POST to the stream")]
    ReadOnly,
    #[error(transparent)]
    Creation(#[from] CreationError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Poll(#[from] PollError),
}

/// A problem document.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// `urn:pollgate:` and a word for the kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What was wrong, which limit applies and what would be accepted.
    detail: String,
}

impl Error {
    /// A header field with a value that can not be meant.
    pub(in crate::http) fn field(name: &HeaderName, what: &str) -> Self {
        Self::Malformed(Malformed::field(name, what))
    }

    /// A query parameter with a value that can not be meant.
    pub(in crate::http) fn parameter(name: &str, what: &str) -> Self {
        Self::Malformed(Malformed::parameter(name, what))
    }

    /// Status, kind, and the fields that tell a program what the detail tells a person.
    fn map(&self) -> (StatusCode, &'static str, HeaderMap) {
        let mut fields = HeaderMap::new();
        let (status, kind) = match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no-such-path"),
            Self::NameNotUtf8 | Self::Name(_) => (StatusCode::BAD_REQUEST, "stream-name"),
            Self::Reserved => (StatusCode::NOT_IMPLEMENTED, "reserved"),
            Self::MethodNotAllowed { allowed } => {
                fields.insert(ALLOW, HeaderValue::from_static(allowed));
                (StatusCode::METHOD_NOT_ALLOWED, "method")
            }
            Self::TargetTooLong { .. } => (StatusCode::URI_TOO_LONG, "target-too-long"),
            Self::AmbiguousLength => (StatusCode::BAD_REQUEST, "ambiguous-length"),
            Self::TransferEncoding => (StatusCode::NOT_IMPLEMENTED, "transfer-encoding"),
            Self::TooManyConnections => {
                fields.insert(RETRY_AFTER, fields::retry_after());
                (StatusCode::SERVICE_UNAVAILABLE, "too-many-connections")
            }
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::Offset(_) => (StatusCode::BAD_REQUEST, "offset"),
            Self::ContentType(_) => (StatusCode::BAD_REQUEST, "content-type"),
            Self::ContentEncoding => {
                fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-encoding")
            }
            Self::Client(_) => (StatusCode::BAD_REQUEST, "client-id"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            Self::BodyTooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, "body-too-slow"),
            Self::Short(shortage) => map_failure(Failure::OverBudget(*shortage), &mut fields),
            Self::BodyBroken => (StatusCode::BAD_REQUEST, "body-broken"),
            Self::UpgradeRequired => {
                fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
                fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                (StatusCode::UPGRADE_REQUIRED, "upgrade-required")
            }
            Self::Subprotocol => (StatusCode::BAD_REQUEST, "subprotocol"),
            Self::Misdirected { .. } => (StatusCode::MISDIRECTED_REQUEST, "misdirected"),
            Self::Origin { .. } | Self::CrossSite => (StatusCode::FORBIDDEN, "origin"),
            Self::FrameType { .. } => (StatusCode::BAD_REQUEST, "frame-type"),
            Self::ReadOnly => (StatusCode::METHOD_NOT_ALLOWED, "read-only"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json"),
            Self::TooManyStreams { .. } => (StatusCode::BAD_REQUEST, "too-many-streams"),
            Self::SameStream | Self::SameHash => (StatusCode::BAD_REQUEST, "same-stream"),
            Self::ResumeToken(_) => (StatusCode::BAD_REQUEST, "resume"),
            Self::Json(error) | Self::Creation(CreationError::Messages(error)) => map_messages(error),
            Self::Creation(CreationError::Store(error)) => map_create(error, &mut fields),
            Self::Append(error) => map_append(error, &mut fields),
            Self::Missing(missing) | Self::Change(ChangeError::Missing(missing)) => map_missing(*missing),
            Self::Change(ChangeError::Failed(failure)) => map_failure(*failure, &mut fields),
            Self::Read(error) | Self::Poll(PollError::Read(error)) => map_read(error, &mut fields),
            Self::Poll(PollError::TooManyPolls(TooManyPolls { .. })) => {
                fields.insert(RETRY_AFTER, fields::retry_after());
                (StatusCode::TOO_MANY_REQUESTS, "too-many-polls")
            }
            Self::Poll(PollError::Draining) => {
                fields.insert(RETRY_AFTER, fields::retry_after());
                (StatusCode::SERVICE_UNAVAILABLE, "draining")
            }
        };
        (status, kind, fields)
    }

    /// The answer that says so.
    pub(in crate::http) fn into_answer(self) -> Response<Body> {
        let (status, kind, fields) = self.map();
        let mut text = serde_json::to_vec(&self.as_problem(status, kind)).unwrap_or_default();
        text.push(b'\n');
        let mut answer = bare(status, Body::full(text.into()));
        *answer.headers_mut() = fields;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        secure(headers);
        answer
    }

    /// The same as a value, for forms that have no status.
    pub(in crate::http) fn problem(&self) -> Problem {
        let (status, kind, _) = self.map();
        self.as_problem(status, kind)
    }

    fn as_problem(&self, status: StatusCode, kind: &str) -> Problem {
        Problem {
            kind: format!("urn:pollgate:{kind}"),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.detail(),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Append(AppendError::Refused { refusal, .. }) => refusal_in_words(refusal),
            Self::Append(AppendError::Empty) => {
                "an append needs at least one message; an empty body only closes, with Stream-Closed: true"
                    .into()
            }
            Self::Append(AppendError::NoContentType) => {
                "an append needs the Content-Type of its stream".into()
            }
            Self::Read(ReadError::Gap(gap)) | Self::Poll(PollError::Read(ReadError::Gap(gap))) => {
                gap_in_words(gap)
            }
            other => other.to_string(),
        }
    }
}

fn map_messages(error: &InvalidMessages) -> (StatusCode, &'static str) {
    match error {
        InvalidMessages::NotJson(_) => (StatusCode::BAD_REQUEST, "json"),
        InvalidMessages::TooDeep(_) => (StatusCode::BAD_REQUEST, "json-depth"),
    }
}

fn map_create(error: &CreateError, fields: &mut HeaderMap) -> (StatusCode, &'static str) {
    match error {
        CreateError::ExistsDifferently => (StatusCode::CONFLICT, "exists-differently"),
        CreateError::NameTaken => (StatusCode::CONFLICT, "name-taken"),
        CreateError::SourceNotFound => (StatusCode::NOT_FOUND, "fork-source-not-found"),
        CreateError::SourceDeleted => (StatusCode::CONFLICT, "fork-source-deleted"),
        CreateError::SourceContentType => (StatusCode::CONFLICT, "content-type-mismatch"),
        CreateError::ForkOffset => (StatusCode::BAD_REQUEST, "fork-offset"),
        CreateError::ForkTrimmed(gap) => map_gap(gap, fields),
        CreateError::ForkTooDeep => (StatusCode::CONFLICT, "fork-too-deep"),
        CreateError::Failed(failure) => map_failure(*failure, fields),
    }
}

fn map_append(error: &AppendError, fields: &mut HeaderMap) -> (StatusCode, &'static str) {
    let (refusal, tail) = match error {
        AppendError::Empty => return (StatusCode::BAD_REQUEST, "empty"),
        AppendError::NoContentType => return (StatusCode::BAD_REQUEST, "content-type"),
        AppendError::Messages(error) => return map_messages(error),
        AppendError::Missing(missing) => return map_missing(*missing),
        AppendError::Failed(failure) => return map_failure(*failure, fields),
        AppendError::Refused { refusal, tail } => (refusal, *tail),
    };
    match refusal {
        AppendRefusal::Closed => {
            fields.insert(STREAM_CLOSED, TRUE);
            fields.insert(STREAM_NEXT_OFFSET, fields::offset_value(tail));
            (StatusCode::CONFLICT, "stream-closed")
        }
        AppendRefusal::ContentType => (StatusCode::CONFLICT, "content-type-mismatch"),
        AppendRefusal::SequenceRegression => (StatusCode::CONFLICT, "sequence-regression"),
        AppendRefusal::Producer(ProducerRefusal::StaleEpoch { current }) => {
            fields.insert(PRODUCER_EPOCH, HeaderValue::from(*current));
            (StatusCode::FORBIDDEN, "producer-stale-epoch")
        }
        AppendRefusal::Producer(ProducerRefusal::EpochNotFromZero) => {
            (StatusCode::BAD_REQUEST, "producer-epoch-start")
        }
        AppendRefusal::Producer(ProducerRefusal::SequenceGap { expected, received }) => {
            fields.insert(PRODUCER_EXPECTED_SEQ, HeaderValue::from(*expected));
            fields.insert(PRODUCER_RECEIVED_SEQ, HeaderValue::from(*received));
            (StatusCode::CONFLICT, "producer-sequence-gap")
        }
        AppendRefusal::Producer(ProducerRefusal::TooMany) => {
            fields.insert(RETRY_AFTER, fields::retry_after());
            (StatusCode::TOO_MANY_REQUESTS, "too-many-producers")
        }
    }
}

fn map_missing(missing: Missing) -> (StatusCode, &'static str) {
    match missing {
        Missing::NotFound => (StatusCode::NOT_FOUND, "stream-not-found"),
        Missing::Deleted => (StatusCode::GONE, "stream-deleted"),
    }
}

fn map_read(error: &ReadError, fields: &mut HeaderMap) -> (StatusCode, &'static str) {
    match error {
        ReadError::Missing(missing) => map_missing(*missing),
        ReadError::BehindTail => (StatusCode::BAD_REQUEST, "offset"),
        ReadError::Gap(gap) => map_gap(gap, fields),
        ReadError::Failed(failure) => map_failure(*failure, fields),
    }
}

fn map_failure(failure: Failure, fields: &mut HeaderMap) -> (StatusCode, &'static str) {
    match failure {
        Failure::Full => {
            fields.insert(RETRY_AFTER, fields::retry_after());
            (StatusCode::INSUFFICIENT_STORAGE, "store-full")
        }
        Failure::Short => {
            fields.insert(RETRY_AFTER, fields::retry_after());
            (StatusCode::SERVICE_UNAVAILABLE, "store-short")
        }
        Failure::OverBudget(shortage) => {
            fields.insert(RETRY_AFTER, fields::retry_after());
            let status = match shortage {
                Shortage::Memory | Shortage::Share | Shortage::Streams => StatusCode::INSUFFICIENT_STORAGE,
                Shortage::Passing => StatusCode::SERVICE_UNAVAILABLE,
                Shortage::OwnStreams => StatusCode::TOO_MANY_REQUESTS,
            };
            (status, shortage.as_str())
        }
        Failure::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "store-broken"),
        Failure::Unreadable => (StatusCode::INTERNAL_SERVER_ERROR, "store-unreadable"),
    }
}

fn map_gap(gap: &Gap, fields: &mut HeaderMap) -> (StatusCode, &'static str) {
    fields.insert(STREAM_GAP, fields::value(&gap_text(gap)));
    fields.insert(STREAM_EARLIEST_OFFSET, fields::offset_value(gap.earliest));
    (StatusCode::GONE, "gap")
}

/// `Stream-Gap` as DESIGN has it. How many messages another epoch had nobody knows, so it says none.
pub(in crate::http) fn gap_text(gap: &Gap) -> String {
    match gap.reason {
        GapReason::Trimmed { missed } => format!("reason=trimmed; missed={missed}"),
        GapReason::Damaged { missed } => format!("reason=damaged; missed={missed}"),
        GapReason::Epoch => "reason=epoch".to_owned(),
    }
}

fn gap_in_words(gap: &Gap) -> String {
    let (earliest, why) = (gap.earliest, gap.reason);
    let why = match why {
        GapReason::Trimmed { missed } => {
            format!("{missed} messages (bytes, if the stream is not JSON) were trimmed")
        }
        GapReason::Damaged { missed } => {
            format!("at most {missed} messages (bytes, if the stream is not JSON) were damaged in the store")
        }
        GapReason::Epoch => "the offset is from an earlier life of the stream".to_owned(),
    };
    let which = if matches!(gap.reason, GapReason::Damaged { .. }) { "next" } else { "earliest" };
    let go_on = if earliest == Offset::ZERO { "-1".to_owned() } else { earliest.to_string() };
    format!("{why}; the {which} offset that can be read is {go_on}")
}

fn refusal_in_words(refusal: &AppendRefusal) -> String {
    match refusal {
        AppendRefusal::Closed => "the stream is closed".into(),
        AppendRefusal::ContentType => "the body has another content type than the stream".into(),
        AppendRefusal::SequenceRegression => "Stream-Seq must be above the last one, byte by byte".into(),
        AppendRefusal::Producer(ProducerRefusal::StaleEpoch { current }) => {
            format!("a newer start of this producer has epoch {current}")
        }
        AppendRefusal::Producer(ProducerRefusal::EpochNotFromZero) => {
            "a new producer epoch begins at sequence 0".into()
        }
        AppendRefusal::Producer(ProducerRefusal::SequenceGap { expected, received }) => {
            format!("the producer's next sequence is {expected}, not {received}")
        }
        AppendRefusal::Producer(ProducerRefusal::TooMany) => {
            "the stream remembers no more producers, or no more from this address; those that were idle for an hour give way"
                .into()
        }
    }
}
