//! The first frames of a WebSocket: a token, and the streams to read; also each later token.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::frames::{
    Closing, DRAINING, FrameReply, POLICY_VIOLATION, SocketEnd, TOO_LARGE, UNAUTHORIZED, token_of,
};
use super::{SocketSession, log_end};
use crate::auth::Unauthorized;
use crate::http::api::error::Error;
use crate::http::conn::ClientMessage;
use crate::stream::StreamName;

/// The largest message of a client that has not sent its token yet, in bytes: a token and what is around it.
const TOKEN_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The socket has ended.
pub(in crate::http) struct SocketEnded;

impl SocketSession {
    /// Waits for the token of a client that has none, for at most `websocket_auth_timeout`.
    pub(in crate::http) async fn first_token(&mut self) -> Result<(), SocketEnded> {
        self.socket.set_message_bytes_max(TOKEN_MESSAGE_BYTES_MAX);
        let patience = self.limits.websocket_auth_timeout.get();
        let text = self.first_text_within(patience, Closing(UNAUTHORIZED, "no token in time")).await?;
        let outcome = match token_of(&text) {
            Some(token) => self.renew(&token.auth, &[]).await,
            None => self.refuse_token(&Error::Unauthorized(Unauthorized::Missing)).await,
        };
        self.socket.set_message_bytes_max(self.limits.websocket_message_bytes_max);
        self.unless_closing(outcome).await
    }

    /// Waits for the first text frame of the client, for at most `first_byte_timeout`, and for a token before it, if the client
    /// sends one.
    pub(in crate::http) async fn first_text(&mut self) -> Result<Bytes, SocketEnded> {
        let patience = self.limits.first_byte_timeout.get();
        let too_late = Closing(POLICY_VIOLATION, "no request in time");
        let text = self.first_text_within(patience, too_late).await?;
        let Some(token) = token_of(&text) else { return Ok(text) };
        let outcome = self.renew(&token.auth, &[]).await;
        self.unless_closing(outcome).await?;
        self.first_text_within(patience, too_late).await
    }

    async fn first_text_within(
        &mut self,
        patience: Duration,
        too_late: Closing,
    ) -> Result<Bytes, SocketEnded> {
        let mut draining = self.hub.draining();
        let drained = async { drop(draining.wait_for(|draining| *draining).await) };
        let text = tokio::select! {
            text = timeout(patience, self.text()) => text.ok(),
            () = drained => None,
        };
        log_end(match text {
            Some(Ok(Ok(text))) => return Ok(text),
            Some(Ok(Err(SocketEnd::Close(closing)))) => self.close(closing).await,
            Some(Ok(Err(SocketEnd::ShutDown))) => self.socket.shut_down().await,
            Some(Err(error)) => Err(error),
            None if self.hub.is_draining() => self.close(DRAINING).await,
            None => self.close(too_late).await,
        });
        Err(SocketEnded)
    }

    /// Takes the rights of a token, which has to grant `streams`. Returns with what to close the socket if it is refused. A gateway
    /// that checks no tokens ignores it.
    pub(super) async fn renew(&mut self, token: &str, streams: &[StreamName]) -> io::Result<Option<Closing>> {
        let Some(rights) = &mut self.rights else { return Ok(None) };
        if let Err(error) = rights.renew(token, streams) {
            return self.refuse_token(&error).await;
        }
        let expires_in = rights.left().map(|left| left.as_secs());
        self.reply(&FrameReply::Authorized { expires_in }).await.map(|()| None)
    }

    async fn refuse_token(&mut self, error: &Error) -> io::Result<Option<Closing>> {
        self.audit(error);
        self.reply(&FrameReply::Error(error.problem())).await?;
        Ok(Some(Closing(UNAUTHORIZED, "unauthorized")))
    }

    pub(super) fn audit(&self, error: &Error) {
        if let Some(rights) = &self.rights {
            rights.audit_refusal(None, error);
        }
    }

    /// Closes the socket if `outcome` says so.
    async fn unless_closing(&mut self, outcome: io::Result<Option<Closing>>) -> Result<(), SocketEnded> {
        log_end(match outcome {
            Ok(None) => return Ok(()),
            Ok(Some(closing)) => self.close(closing).await,
            Err(error) => Err(error),
        });
        Err(SocketEnded)
    }

    /// Returns the next text message, or how to end the socket. Cancel safe.
    async fn text(&mut self) -> io::Result<Result<Bytes, SocketEnd>> {
        loop {
            match self.socket.receive().await? {
                ClientMessage::Text(text) => return Ok(Ok(text)),
                ClientMessage::Binary(_) | ClientMessage::Control { .. } => {}
                ClientMessage::TooLarge => return Ok(Err(SocketEnd::Close(TOO_LARGE))),
                ClientMessage::Violation | ClientMessage::End => return Ok(Err(SocketEnd::ShutDown)),
            }
        }
    }
}
