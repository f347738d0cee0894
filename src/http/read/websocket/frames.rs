//! The frames of a WebSocket besides messages: replies, tokens, and the reasons for which the gateway closes it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_websockets::{Limits as SocketLimits, Message};

use crate::http::api::error::Problem;

/// The reply to a frame of the client.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum FrameReply {
    /// The offset after the appended messages.
    Appended(String),
    /// The token was accepted.
    #[serde(rename_all = "camelCase")]
    Authorized {
        /// For how many seconds the client has its rights.
        expires_in: Option<u64>,
    },
    Error(Problem),
}

/// The code and the reason with which the gateway closes a socket (RFC 6455, section 7.4.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing(pub(super) u16, pub(super) &'static str);

pub(super) const DRAINING: Closing = Closing(1001, "draining");
pub(super) const POLICY_VIOLATION: u16 = 1008;

/// The close code of a client whose token is missing, refused or expired: 4000 and the status 401. Codes from 4000 are private.
pub(super) const UNAUTHORIZED: u16 = 4401;

/// A frame with a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenFrame<'a> {
    #[serde(borrow)]
    pub(super) auth: std::borrow::Cow<'a, str>,
}

/// Returns the token in a text frame that has nothing else.
pub(super) fn token_of(text: &(impl AsRef<[u8]> + ?Sized)) -> Option<TokenFrame<'_>> {
    let text = text.as_ref();
    let behind_brace = text.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    if behind_brace.starts_with(b"\"auth\"") { serde_json::from_slice(text).ok() } else { None }
}

pub(super) fn messages_up_to(bytes: usize) -> SocketLimits {
    SocketLimits::default().max_payload_len(Some(bytes))
}

/// The outcome of receiving from a client.
pub(super) enum Received {
    Message(Message),
    /// A message above the size limit.
    TooLarge,
    /// A violation of the protocol, which the library has answered with a close frame.
    Violation,
    /// The end of the connection.
    End,
}

/// Returns a text frame with JSON, which is UTF-8.
pub(super) fn text(json: Bytes) -> Message {
    Message::text(tokio_websockets::Payload::from(json))
}
