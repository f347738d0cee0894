//! The frames of a WebSocket besides updates: appends of the client, the replies to them, tokens, and the reasons for which the gateway
//! closes the socket.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::auth::Action;
use crate::http::api::credentials::SocketRights;
use crate::http::api::error::{Error, Problem};
use crate::hub::Hub;
use crate::stream::{Append, ContentType, Encoding, Payload, Principal, StreamName};

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

/// Appends the frames of a client to the stream that it reads.
pub(in crate::http) struct Publisher {
    pub(in crate::http) hub: Arc<Hub>,
    pub(in crate::http) stream: StreamName,
    pub(in crate::http) content_type: ContentType,
    pub(in crate::http) principal: Principal,
}

impl Publisher {
    pub(super) async fn append(
        &self,
        (body, is_binary): (Bytes, bool),
        rights: Option<&SocketRights>,
        json_depth_max: usize,
    ) -> FrameReply {
        let binary = self.content_type.encoding() == Encoding::Binary;
        if is_binary != binary {
            return FrameReply::Error(Error::FrameType { binary }.problem());
        }
        if let Some(rights) = rights
            && let Err(error) = rights.rights().check(Action::Append, &self.stream)
        {
            rights.audit_refusal(Some(&self.stream), &error);
            return FrameReply::Error(error.problem());
        }
        let append = Append::of(self.content_type.clone(), Payload::default());
        let appended = match append.with_body(body, json_depth_max) {
            Ok(append) => {
                self.hub.publish(&self.stream, Append { principal: self.principal, ..append }).await
            }
            Err(error) => Err(error),
        };
        match appended {
            Ok(appended) => FrameReply::Appended(appended.tail.to_string()),
            Err(error) => FrameReply::Error(Error::from(error).problem()),
        }
    }
}

/// The code and the reason with which the gateway closes a socket (RFC 6455, section 7.4.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing(pub(super) u16, pub(super) &'static str);

/// How a socket ends.
pub(super) enum SocketEnd {
    /// With a close frame.
    Close(Closing),
    /// Without another frame: the client has closed it, or a close frame was sent.
    ShutDown,
}

pub(super) const DRAINING: Closing = Closing(1001, "draining");
pub(super) const POLICY_VIOLATION: u16 = 1008;
pub(super) const TOO_LARGE: Closing = Closing(1009, "message too big");

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
