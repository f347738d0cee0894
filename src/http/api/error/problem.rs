//! The only mapping of errors to the wire: the status, header fields, and the problem document (RFC 9457) of each [`Error`].

use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
    SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use super::Error;
use crate::auth::Unauthorized;
use crate::http::api::answer::secure;
use crate::http::api::fields::{self, *};
use crate::http::conn::{Body, bare};
use crate::http_client::RefusedOrigin;
use crate::hub::{CreationError, DeviceError, PollError, TooManyPolls};
use crate::stream::{
    AppendError, AppendRefusal, ChangeError, CreateError, Failure, Gap, GapReason, InvalidMessages, Missing,
    Offset, ProducerRefusal, ReadError, Shortage,
};

/// A problem document.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// `urn:pollgate:` and the name of the problem type.
    #[serde(rename = "type")]
    kind: String,
    /// The reason phrase of the status.
    title: &'static str,
    /// The status code.
    status: u16,
    /// What is wrong, which limit applies, and what would be accepted.
    detail: String,
}

impl Error {
    /// Returns the status, the problem type, and header fields with the details that programs need.
    fn map(&self) -> (StatusCode, &'static str, HeaderMap) {
        let mut fields = HeaderMap::new();
        let (status, kind) = match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no-such-path"),
            Self::NameNotUtf8 | Self::Name(_) => (StatusCode::BAD_REQUEST, "stream-name"),
            Self::SubscriptionName => (StatusCode::BAD_REQUEST, "malformed"),
            Self::OwnStream => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Reserved => (StatusCode::NOT_IMPLEMENTED, "reserved"),
            Self::MethodNotAllowed { allowed } => {
                fields.insert(ALLOW, HeaderValue::from_static(allowed));
                (StatusCode::METHOD_NOT_ALLOWED, "method")
            }
            Self::UnknownMethod => (StatusCode::NOT_IMPLEMENTED, "method"),
            Self::Asterisk => (StatusCode::BAD_REQUEST, "target"),
            Self::PercentEscape => (StatusCode::BAD_REQUEST, "stream-name"),
            Self::Expectation => (StatusCode::EXPECTATION_FAILED, "expectation"),
            Self::ExtendedConnectRequired => (StatusCode::BAD_REQUEST, "extended-connect-required"),
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
            Self::Subprotocol { .. } => (StatusCode::BAD_REQUEST, "subprotocol"),
            Self::Misdirected { .. } => (StatusCode::MISDIRECTED_REQUEST, "misdirected"),
            Self::Origin { .. } | Self::CrossSite | Self::CookieWithoutOrigin => {
                (StatusCode::FORBIDDEN, "origin")
            }
            Self::Ticket(_) => {
                fields.insert(RETRY_AFTER, fields::retry_after());
                (StatusCode::TOO_MANY_REQUESTS, "too-many-tickets")
            }
            Self::Unauthorized(Unauthorized::KeysPending) => {
                fields.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                (StatusCode::SERVICE_UNAVAILABLE, "keys-pending")
            }
            Self::Unauthorized(Unauthorized::TooManyFailures { retry_after }) => {
                fields.insert(RETRY_AFTER, HeaderValue::from(*retry_after));
                (StatusCode::TOO_MANY_REQUESTS, "too-many-failed-logins")
            }
            Self::Unauthorized(reason) => {
                // Without credentials, the challenge names no error (RFC 6750, section 3.1).
                fields.insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static(match reason {
                        Unauthorized::Missing => "Bearer",
                        _ => "Bearer error=\"invalid_token\"",
                    }),
                );
                (StatusCode::UNAUTHORIZED, "unauthorized")
            }
            Self::Forbidden(_) => {
                let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
                fields.insert(WWW_AUTHENTICATE, challenge);
                (StatusCode::FORBIDDEN, "forbidden")
            }
            Self::TokenInQuery => (StatusCode::BAD_REQUEST, "token-in-query"),
            Self::FrameType { .. } => (StatusCode::BAD_REQUEST, "frame-type"),
            Self::ReadOnly => (StatusCode::METHOD_NOT_ALLOWED, "read-only"),
            Self::OriginsOff => (StatusCode::FORBIDDEN, "origins-off"),
            Self::OriginUrl(RefusedOrigin::Url) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::OriginUrl(RefusedOrigin::Address(_)) => (StatusCode::FORBIDDEN, "origin-address"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json"),
            Self::TooManyStreams { .. } => (StatusCode::BAD_REQUEST, "too-many-streams"),
            Self::SameStream | Self::SameHash => (StatusCode::BAD_REQUEST, "same-stream"),
            Self::ResumeToken(_) => (StatusCode::BAD_REQUEST, "resume"),
            Self::Json(error) | Self::Creation(CreationError::Messages(error)) => map_messages(error),
            Self::Creation(CreationError::Store(error)) => map_create(error, &mut fields),
            Self::Creation(CreationError::TooManyOrigins { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-origins")
            }
            Self::Append(error) => map_append(error, &mut fields),
            Self::Missing(missing) | Self::Change(ChangeError::Missing(missing)) => map_missing(*missing),
            Self::Change(ChangeError::Failed(failure)) => map_failure(*failure, &mut fields),
            Self::Device(DeviceError::Missing) => (StatusCode::NOT_FOUND, "device-not-found"),
            Self::Device(DeviceError::TooMany(_)) => (StatusCode::INSUFFICIENT_STORAGE, "too-many-devices"),
            Self::Device(DeviceError::Store(failure)) => map_failure(*failure, &mut fields),
            Self::Device(_) => (StatusCode::BAD_REQUEST, "device"),
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

    /// Returns the response: a problem document.
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

    /// Returns the problem document as a value, for delivery forms without a status.
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
                "an append needs at least one message; an empty body is allowed only with Stream-Closed: true"
                    .into()
            }
            Self::Append(AppendError::NoContentType) => {
                "Content-Type is missing; an append needs the content type of its stream".into()
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
        AppendRefusal::HasOrigin => (StatusCode::CONFLICT, "has-origin"),
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
        Failure::Unreachable | Failure::Superseded => {
            fields.insert(RETRY_AFTER, fields::retry_after());
            (StatusCode::SERVICE_UNAVAILABLE, "store-unreachable")
        }
        Failure::Short => {
            fields.insert(RETRY_AFTER, fields::retry_after());
            (StatusCode::SERVICE_UNAVAILABLE, "store-short")
        }
        Failure::OverBudget(shortage) => {
            fields.insert(RETRY_AFTER, fields::retry_after());
            let status = match shortage {
                Shortage::Memory
                | Shortage::Share
                | Shortage::Streams
                | Shortage::Tenant
                | Shortage::TenantStreams => StatusCode::INSUFFICIENT_STORAGE,
                Shortage::Passing => StatusCode::SERVICE_UNAVAILABLE,
                Shortage::OwnStreams | Shortage::TenantOpen => StatusCode::TOO_MANY_REQUESTS,
            };
            (status, shortage.as_str())
        }
        Failure::TooFast(wait) => {
            fields.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
            (StatusCode::TOO_MANY_REQUESTS, "too-fast")
        }
        Failure::UpstreamRefused(413) => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
        Failure::UpstreamRefused(_) => (StatusCode::BAD_GATEWAY, "upstream-refused"),
        Failure::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "store-broken"),
        Failure::Unreadable => (StatusCode::INTERNAL_SERVER_ERROR, "store-unreadable"),
    }
}

fn map_gap(gap: &Gap, fields: &mut HeaderMap) -> (StatusCode, &'static str) {
    fields.insert(STREAM_GAP, fields::value(&gap_text(gap)));
    fields.insert(STREAM_EARLIEST_OFFSET, fields::offset_value(gap.earliest));
    (StatusCode::GONE, "gap")
}

/// Returns the value of `Stream-Gap`. For another epoch it has no `missed`: the number of missed messages is unknown.
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
        GapReason::Epoch => "the offset is from another epoch of the stream".to_owned(),
    };
    let which = if matches!(gap.reason, GapReason::Damaged { .. }) { "next" } else { "earliest" };
    let go_on = if earliest == Offset::ZERO { "-1".to_owned() } else { earliest.to_string() };
    format!("{why}; the {which} offset that can be read is {go_on}")
}

fn refusal_in_words(refusal: &AppendRefusal) -> String {
    match refusal {
        AppendRefusal::Closed => "the stream is closed".into(),
        AppendRefusal::ContentType => "the content type of the body is not that of the stream".into(),
        AppendRefusal::HasOrigin => "this stream is filled from its origin, and nobody else appends to it".into(),
        AppendRefusal::SequenceRegression => "Stream-Seq must be greater than the last one, compared byte by byte".into(),
        AppendRefusal::Producer(ProducerRefusal::StaleEpoch { current }) => {
            format!("a newer instance of this producer has epoch {current}")
        }
        AppendRefusal::Producer(ProducerRefusal::EpochNotFromZero) => {
            "a new producer epoch must begin at sequence 0".into()
        }
        AppendRefusal::Producer(ProducerRefusal::SequenceGap { expected, received }) => {
            format!("the next sequence of the producer is {expected}, not {received}")
        }
        AppendRefusal::Producer(ProducerRefusal::TooMany) => {
            "the stream has too many producers, or too many of this client; a producer that is idle for an hour makes room"
                .into()
        }
    }
}
