//! All reasons to refuse a request. Their mapping to the wire is in [`problem`].

mod problem;

use hyper::header::HeaderName;

use super::fields::Malformed;
use crate::auth::{Forbidden, TicketRefused, Unauthorized};
use crate::http::read::resume_token::InvalidResumeToken;
use crate::http_client::RefusedOrigin;
use crate::hub::{CreationError, DeviceError, InvalidClientId, PollError};
use crate::stream::{
    AppendError, ChangeError, InvalidContentType, InvalidMessages, InvalidName, InvalidOffset, Missing,
    ReadError, Shortage,
};

pub use problem::Problem;
pub(in crate::http) use problem::gap_text;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum Error {
    #[error("no resource at this path; streams are at /v1/stream/{{name}}")]
    NoSuchPath,
    #[error("the stream name is not UTF-8 after percent-decoding")]
    NameNotUtf8,
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(
        "names under __ds/ are reserved by the protocol; subscriptions are at /v1/stream/__ds/subscriptions/{{name}}"
    )]
    Reserved,
    #[error("the name of a subscription must be 1 to 256 bytes of UTF-8 without control characters")]
    SubscriptionName,
    #[error("names under $auth/ and $tenant/ are the gateway's own; no client may use them")]
    OwnStream,
    #[error("method not allowed; this resource supports {allowed}")]
    MethodNotAllowed { allowed: &'static str },
    #[error("no resource of this server supports this method")]
    UnknownMethod,
    #[error("only OPTIONS may have the target *")]
    Asterisk,
    #[error("the path has a % that two hexadecimal digits do not follow")]
    PercentEscape,
    #[error("this server cannot send 100 Continue over HTTP/2; send the body without Expect")]
    Expectation,
    #[error("over HTTP/2 a WebSocket needs an extended CONNECT with the :protocol websocket (RFC 8441)")]
    ExtendedConnectRequired,
    #[error("the request target is longer than {max} bytes (limit target_bytes_max)")]
    TargetTooLong { max: usize },
    #[error("a request must not have both Content-Length and Transfer-Encoding")]
    AmbiguousLength,
    #[error("unsupported Transfer-Encoding; send the body with Content-Length, or chunked")]
    TransferEncoding,
    #[error("too many connections; retry after the seconds in Retry-After")]
    TooManyConnections,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Offset(InvalidOffset),
    #[error(transparent)]
    ContentType(#[from] InvalidContentType),
    #[error("Content-Encoding is not supported; send the body without it")]
    ContentEncoding,
    #[error(transparent)]
    Client(#[from] InvalidClientId),
    #[error("the body is larger than {max} bytes (limit body_bytes_max)")]
    BodyTooLarge { max: usize },
    #[error(
        "the body did not arrive in time; it may take {seconds} s, and a second more per {per_second} bytes"
    )]
    BodyTooSlow { seconds: u64, per_second: u64 },
    #[error("{0}")]
    Short(Shortage),
    #[error("the body is incomplete or malformed")]
    BodyBroken,
    #[error("this resource needs a WebSocket handshake of version 13 (RFC 6455; over HTTP/2 RFC 8441)")]
    UpgradeRequired,
    #[error("{path} accepts only WebSockets with the subprotocol {name}")]
    Subprotocol { path: &'static str, name: &'static str },
    #[error("this server does not serve the host {host}; start it with --host {host} to allow that")]
    Misdirected { host: Box<str> },
    #[error(
        "pages of the origin {origin} may not use this server; start it with --origin {} to allow that",
        setting.as_deref().unwrap_or("'*'")
    )]
    Origin { origin: Box<str>, setting: Option<Box<str>> },
    #[error(
        "pages of other sites may not load this without CORS (the crossorigin attribute, or fetch); start the server \
         with --origin '*' to allow that"
    )]
    CrossSite,
    #[error("{0}")]
    Unauthorized(Unauthorized),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error(
        "a token must not be in the URL, which logs and histories keep; send it as `Authorization: Bearer TOKEN`, or \
         exchange it for a ticket with POST /v1/ticket"
    )]
    TokenInQuery,
    #[error(
        "a request with the cookie __Host-pollgate that changes something or opens a WebSocket needs an `Origin`, which \
         browsers send; other clients send the token as `Authorization: Bearer TOKEN`"
    )]
    CookieWithoutOrigin,
    #[error(transparent)]
    Ticket(TicketRefused),
    #[error("this stream accepts {} frames only", if *binary { "binary" } else { "text" })]
    FrameType { binary: bool },
    #[error("a request for many streams must be JSON, with the Content-Type application/json")]
    NotJson,
    #[error(transparent)]
    Json(InvalidMessages),
    #[error("the request names more than {max} streams (limit streams_per_request_max)")]
    TooManyStreams { max: usize },
    #[error("the request names a stream twice")]
    SameStream,
    #[error(
        "the names of two of the streams collide in a resume token; read one of them with a request of its own"
    )]
    SameHash,
    #[error(transparent)]
    ResumeToken(#[from] InvalidResumeToken),
    #[error("this WebSocket reads many streams and accepts no messages; publish with POST to the stream")]
    ReadOnly,
    #[error(
        "this server fills no streams from origins; start it with --poll-origins, or with --auth, to allow that"
    )]
    OriginsOff,
    #[error("Stream-Origin: {0}")]
    OriginUrl(RefusedOrigin),
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
    #[error(transparent)]
    Device(DeviceError),
}

impl Error {
    /// A header field with an invalid value; `what` continues the sentence after its name.
    pub(in crate::http) fn field(name: &HeaderName, what: &str) -> Self {
        Self::Malformed(Malformed::field(name, what))
    }

    /// A query parameter with an invalid value; `what` continues the sentence after its name.
    pub(in crate::http) fn parameter(name: &str, what: &str) -> Self {
        Self::Malformed(Malformed::parameter(name, what))
    }

    /// Whether the request is refused for lack of rights: with other credentials, or from another page, it could be accepted.
    pub(super) fn lacks_rights(&self) -> bool {
        match self {
            Self::Unauthorized(reason) => *reason != Unauthorized::KeysPending,
            Self::Forbidden(_) | Self::OwnStream | Self::TokenInQuery | Self::CookieWithoutOrigin => true,
            Self::Origin { .. } | Self::CrossSite | Self::Misdirected { .. } => true,
            _ => false,
        }
    }
}
