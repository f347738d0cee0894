//! The first frames of a WebSocket: a token, and the streams to read; also each later token.

use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::time::timeout;
use tokio_websockets::Error as SocketError;

use super::frames::{
    Closing, DRAINING, FrameReply, POLICY_VIOLATION, Received, UNAUTHORIZED, messages_up_to, token_of,
};
use super::{SocketSession, log_end};
use crate::auth::Unauthorized;
use crate::http::api::error::Error;
use crate::stream::StreamName;

/// The largest message of a client that has not sent its token yet, in bytes: a token and what is around it.
const TOKEN_MESSAGE_BYTES_MAX: usize = 16 * 1024;

impl SocketSession {
    /// Waits for the token of a client that has none, for at most `websocket_auth_timeout`. `None`: the socket has ended.
    pub(in crate::http) async fn first_token(mut self) -> Option<Self> {
        *self.socket.limits_mut() = messages_up_to(TOKEN_MESSAGE_BYTES_MAX);
        let patience = self.limits.websocket_auth_timeout.get();
        let (mut session, text) =
            self.first_text_within(patience, Closing(UNAUTHORIZED, "no token in time")).await?;
        let outcome = match token_of(&text) {
            Some(token) => session.renew(&token.auth, &[]).await,
            None => session.refuse_token(&Error::Unauthorized(Unauthorized::Missing)).await,
        };
        *session.socket.limits_mut() = messages_up_to(session.limits.websocket_message_bytes_max);
        session.unless_closing(outcome).await
    }

    /// Waits for the first text frame of the client, for at most `first_byte_timeout`, and for a token before it, if the client
    /// sends one. `None`: the socket has ended.
    pub(in crate::http) async fn first_text(self) -> Option<(Self, Bytes)> {
        let patience = self.limits.first_byte_timeout.get();
        let too_late = Closing(POLICY_VIOLATION, "no request in time");
        let (mut session, text) = self.first_text_within(patience, too_late).await?;
        let Some(token) = token_of(&text) else { return Some((session, text)) };
        let outcome = session.renew(&token.auth, &[]).await;
        session.unless_closing(outcome).await?.first_text_within(patience, too_late).await
    }

    async fn first_text_within(mut self, patience: Duration, too_late: Closing) -> Option<(Self, Bytes)> {
        let mut draining = self.hub.draining();
        let drained = async { drop(draining.wait_for(|draining| *draining).await) };
        let text = tokio::select! {
            text = timeout(patience, self.text()) => text.ok(),
            () = drained => None,
        };
        let ended = match text {
            Some(Ok(Ok(text))) => return Some((self, text)),
            Some(Ok(Err(end))) => self.end(end).await,
            Some(Err(error)) => Err(error),
            None if self.hub.is_draining() => self.close(DRAINING).await,
            None => self.close(too_late).await,
        };
        log_end(ended);
        None
    }

    /// Takes the rights of a token, which has to grant `streams`. Returns with what to close the socket if it is refused. A gateway
    /// that checks no tokens ignores it.
    pub(super) async fn renew(
        &mut self,
        token: &str,
        streams: &[StreamName],
    ) -> Result<Option<Closing>, SocketError> {
        let Some(rights) = &mut self.rights else { return Ok(None) };
        if let Err(error) = rights.renew(token, streams) {
            return self.refuse_token(&error).await;
        }
        let expires_in = rights.left().map(|left| left.as_secs());
        self.reply(&FrameReply::Authorized { expires_in }).await.map(|()| None)
    }

    async fn refuse_token(&mut self, error: &Error) -> Result<Option<Closing>, SocketError> {
        self.audit(error);
        self.reply(&FrameReply::Error(error.problem())).await?;
        Ok(Some(Closing(UNAUTHORIZED, "unauthorized")))
    }

    pub(super) fn audit(&self, error: &Error) {
        if let Some(rights) = &self.rights {
            rights.audit_refusal(None, error);
        }
    }

    /// Closes the socket if `outcome` says so. `None`: it has ended.
    async fn unless_closing(self, outcome: Result<Option<Closing>, SocketError>) -> Option<Self> {
        log_end(match outcome {
            Ok(None) => return Some(self),
            Ok(Some(closing)) => self.close(closing).await,
            Err(error) => Err(error),
        });
        None
    }

    /// Returns the next text frame; an inner error is the end of the socket.
    async fn text(&mut self) -> Result<Result<Bytes, Received>, SocketError> {
        loop {
            match self.receive().await? {
                Received::Message(message) if message.is_text() => {
                    return Ok(Ok(Bytes::copy_from_slice(message.as_payload())));
                }
                Received::Message(_) => self.socket.flush().await?,
                end => return Ok(Err(end)),
            }
        }
    }
}
