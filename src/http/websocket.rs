//! WebSocket: one envelope a text frame, and each frame of the client an append (RFC 6455; over HTTP/2 RFC 8441).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::Response;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_websockets::{
    CloseCode, Config, Error as SocketError, Limits as SocketLimits, Message, ServerBuilder,
};

use super::body::Body;
use super::envelope::envelope;
use super::error::{Error, Problem};
use super::request::WebSocket;
use super::{Gateway, Link};
use crate::hub::{Hub, Publication};
use crate::limits::Limits;
use crate::metrics::Form;
use crate::stream::{ContentType, Encoding, StreamName};

/// An open socket and what it stands for.
struct Session {
    socket: tokio_websockets::WebSocketStream<TokioIo<Upgraded>>,
    publisher: Publisher,
    limits: Arc<Limits>,
    next_ping: Instant,
    /// Until when the client has to answer the last ping.
    pong_until: Option<Instant>,
}

/// Where a client's frames go.
struct Publisher {
    hub: Arc<Hub>,
    stream: StreamName,
    content_type: ContentType,
}

/// The answer to a client's frame.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    /// The offset behind the appended messages.
    Appended(String),
    Error(Problem),
}

/// Why a socket is closed by us.
struct Closing(CloseCode, &'static str);

impl Gateway {
    pub(super) async fn websocket(
        &self,
        name: StreamName,
        request: WebSocket,
        link: Arc<Link>,
    ) -> Result<Response<Body>, Error> {
        let answer = self.switch(&request.handshake, None)?;
        let tail = self
            .live_tail(name.clone(), &request.live, None, Form::WebSocket, link.clone(), envelope)
            .await?;
        let publisher = Publisher { hub: self.hub.clone(), stream: name, content_type: tail.content_type };
        let (limits, updates) = (self.limits.clone(), tail.updates);
        tokio::spawn(async move {
            let Ok(upgraded) = request.handshake.upgrade.await else { return };
            let session = Session::new(upgraded, publisher, limits);
            if let Err(error) = session.run(updates).await {
                tracing::debug!(%error, "websocket ended");
            }
            drop(link);
        });
        Ok(answer)
    }
}

impl Publisher {
    async fn append(&self, message: Message) -> Reply {
        let binary = self.content_type.encoding() == Encoding::Binary;
        if message.is_binary() != binary {
            return Reply::Error(Error::FrameType { binary }.problem());
        }
        let body = Bytes::copy_from_slice(message.as_payload());
        let publication = Publication {
            body,
            content_type: Some(self.content_type.clone()),
            close: false,
            producer: None,
            sequence: None,
            annotation: None,
            session: None,
            create: false,
        };
        match self.hub.publish(&self.stream, publication).await {
            Ok(appended) => Reply::Appended(appended.tail.to_string()),
            Err(error) => Reply::Error(Error::from(error).problem()),
        }
    }
}

impl Session {
    fn new(upgraded: Upgraded, publisher: Publisher, limits: Arc<Limits>) -> Self {
        let message_limits =
            SocketLimits::default().max_payload_len(Some(limits.websocket_message_bytes_max));
        let config = Config::default().frame_size(usize::MAX);
        let socket = ServerBuilder::new().config(config).limits(message_limits).serve(TokioIo::new(upgraded));
        let next_ping = Instant::now() + limits.websocket_ping.get();
        Self { socket, publisher, limits, next_ping, pong_until: None }
    }

    /// Sends updates and takes appends until either side has had enough.
    async fn run(mut self, updates: impl Stream<Item = Bytes>) -> Result<(), SocketError> {
        tokio::pin!(updates);
        loop {
            let timer = self.pong_until.unwrap_or(self.next_ping);
            tokio::select! {
                update = updates.next() => match update {
                    Some(envelope) => self.socket.send(text(envelope)).await?,
                    None => {
                        let closing = self.why_updates_end();
                        return self.close(closing).await;
                    }
                },
                message = self.socket.next() => match message {
                    Some(Ok(message)) => self.take(message).await?,
                    Some(Err(SocketError::PayloadTooLong { .. })) => {
                        return self.close(Closing(CloseCode::MESSAGE_TOO_BIG, "message too big")).await;
                    }
                    // The library has answered a breach of the protocol with its close code.
                    Some(Err(SocketError::Protocol(_))) => return self.finish().await,
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                () = sleep_until(timer) => {
                    if self.pong_until.is_some() {
                        return self.close(Closing(CloseCode::POLICY_VIOLATION, "no pong")).await;
                    }
                    self.socket.send(Message::ping(Bytes::new())).await?;
                    self.pong_until = Some(Instant::now() + self.limits.websocket_pong_timeout.get());
                }
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), SocketError> {
        if message.is_pong() {
            self.pong_until = None;
            self.next_ping = Instant::now() + self.limits.websocket_ping.get();
        }
        if message.is_text() || message.is_binary() {
            let reply = self.publisher.append(message).await;
            let json = serde_json::to_vec(&reply).unwrap_or_default();
            self.socket.send(text(json.into())).await?;
        }
        // What the library answers by itself (pong, close) goes out before the next frame is read, so that a client
        // which does not read can not pile up answers.
        self.socket.flush().await
    }

    fn why_updates_end(&self) -> Closing {
        if self.publisher.hub.is_draining() {
            Closing(CloseCode::GOING_AWAY, "draining")
        } else {
            Closing(CloseCode::NORMAL_CLOSURE, "nothing follows")
        }
    }

    /// Sends a close frame and gives the client time for its own.
    async fn close(mut self, Closing(code, reason): Closing) -> Result<(), SocketError> {
        match self.socket.send(Message::close(Some(code), reason)).await {
            Ok(()) | Err(SocketError::AlreadyClosed) => {}
            Err(error) => return Err(error),
        }
        let patience = self.limits.websocket_pong_timeout.get();
        let _closed = timeout(patience, async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
        self.finish().await
    }

    /// Ends the connection behind the last frame, and so that the client can still read it.
    async fn finish(mut self) -> Result<(), SocketError> {
        self.socket.flush().await?;
        Ok(self.socket.into_inner().shutdown().await?)
    }
}

/// A text frame of what an encoder made, which is UTF-8.
fn text(json: Bytes) -> Message {
    Message::text(tokio_websockets::Payload::from(json))
}
