//! XMPP over WebSocket (RFC 7395): each text frame is one element, and `<open/>` and `<close/>` stand for the root of the stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use minidom::Element;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_websockets::{CloseCode, Config, Error, Limits, Message, Payload, ServerBuilder, WebSocketStream};

use super::acks::HandledCountTooHigh;
use super::login::StreamError;
use super::managed::ManagedSession;
use super::negotiation::{Negotiation, NegotiationStep};
use super::{ClientFront, LOGIN_BYTES_MAX, LOGIN_TIMEOUT};
use crate::auth::RightsEnd;
use crate::stream::Principal;
use crate::xmpp::drain_begins;
use crate::xmpp::xml::{WithAttribute, element, parse_document, to_bytes};

const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";

/// The close code for a frame above the limit (RFC 6455, section 7.4.1).
const FRAME_TOO_LARGE: CloseCode = CloseCode::MESSAGE_TOO_BIG;

/// How long the last frames may take, and the client to close its side.
const LAST_FRAMES_TIME: Duration = Duration::from_secs(1);

/// Why a stream ends.
#[derive(PartialEq)]
enum End {
    /// The connection is lost.
    Lost,
    /// The client has closed the stream.
    Closed,
    /// The client has sent a frame above the limit. Nothing but a close frame can be sent after it.
    FrameTooLarge,
    /// The gateway ends it.
    Error(StreamError),
    /// The client acknowledges what it was not sent.
    Unsent(HandledCountTooHigh),
}

/// The token has expired.
const EXPIRED: End = End::Error(StreamError("reset"));

/// The gateway drains.
const DRAINED: End = End::Error(StreamError("system-shutdown"));

/// The client does not answer.
const SILENT: End = End::Error(StreamError("connection-timeout"));

/// The client has resumed the stream over another connection (XEP-0198, section 5).
const TAKEN_OVER: End = End::Error(StreamError("conflict"));

impl End {
    /// Whether the client may resume the stream: neither side has closed it, and the client has kept the rules and its rights.
    fn may_be_resumed(&self) -> bool {
        matches!(self, Self::Lost) || [EXPIRED, DRAINED, SILENT, TAKEN_OVER].contains(self)
    }
}

/// What the client has sent.
enum ClientFrame {
    Element(Element),
    /// A ping or a pong.
    Control,
}

/// The socket of a client, and the stream in it.
struct XmppSocket<S> {
    socket: WebSocketStream<S>,
    front: Arc<ClientFront>,
    frame_bytes_max: usize,
    /// The stream is open, and so has to be closed.
    is_open: bool,
    next_ping: Instant,
    /// When something of the client is due; `None`: no ping is under way.
    pong_until: Option<Instant>,
}

impl ClientFront {
    /// Serves a WebSocket after its handshake to its end. `address` is the principal of the client's network address.
    pub async fn serve_websocket<S: AsyncRead + AsyncWrite + Unpin>(
        self: Arc<Self>,
        io: S,
        address: Principal,
    ) {
        let mut socket = XmppSocket::new(self.clone(), io);
        let login = Box::pin(socket.log_in(address));
        let login = timeout(LOGIN_TIMEOUT, login).await;
        let end = match login.unwrap_or(Err(End::Error(StreamError("connection-timeout")))) {
            Ok((session, answer)) => socket.serve(session, answer).await,
            Err(end) => {
                self.metrics.logins_failed.inc();
                end
            }
        };
        let _best_effort = timeout(LAST_FRAMES_TIME, Box::pin(socket.close(end))).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> XmppSocket<S> {
    fn new(front: Arc<ClientFront>, io: S) -> Self {
        let limits = Limits::default().max_payload_len(Some(LOGIN_BYTES_MAX));
        let config = Config::default().frame_size(usize::MAX);
        let socket = ServerBuilder::new().config(config).limits(limits).serve(io);
        let next_ping = Instant::now() + front.limits.websocket_ping.get();
        let frame_bytes_max = LOGIN_BYTES_MAX;
        Self { socket, front, frame_bytes_max, is_open: false, next_ping, pong_until: None }
    }

    /// Negotiates the stream until the client has an address. Returns the session, and an answer that is still to be sent.
    async fn log_in(&mut self, address: Principal) -> Result<(Box<ManagedSession>, Vec<u8>), End> {
        let mut negotiation = Negotiation::new(self.front.clone(), address, true);
        loop {
            let ClientFrame::Element(received) = self.receive().await? else { continue };
            if received.is("open", FRAMING) {
                self.open(&received).await?;
                self.send([to_bytes(&negotiation.features())]).await?;
                continue;
            }
            if !self.is_open || received.ns() == FRAMING {
                return Err(end_of(&received));
            }
            let (session, answer) = match negotiation.handle(received) {
                NegotiationStep::Bound(answer, session) => (Box::new(ManagedSession::new(*session)), answer),
                NegotiationStep::Resume(request) => match negotiation.resume(&request).await {
                    Ok(resumed) => resumed,
                    Err(refusal) => {
                        self.send([to_bytes(&refusal)]).await?;
                        continue;
                    }
                },
                NegotiationStep::Answer(answer) => {
                    self.send([to_bytes(&answer)]).await?;
                    continue;
                }
                NegotiationStep::End(answer, error) => {
                    self.send(answer.as_ref().map(to_bytes)).await?;
                    return Err(End::Error(error));
                }
            };
            self.frame_bytes_max = self.front.limits.xmpp_stanza_bytes_max;
            *self.socket.limits_mut() = Limits::default().max_payload_len(Some(self.frame_bytes_max));
            return Ok((session, to_bytes(&answer)));
        }
    }

    /// Answers the `<open/>` of the client (RFC 7395, section 3.4).
    async fn open(&mut self, received: &Element) -> Result<(), End> {
        self.is_open = true;
        let opened = element("open", FRAMING)
            .with("from", self.front.domain.as_str())
            .with("id", format!("{:016x}", fastrand::u64(..)))
            .with("version", "1.0");
        self.send([to_bytes(&opened.build())]).await?;
        match received.attr("to") {
            Some(to) if to != self.front.domain.as_str() => Err(End::Error(StreamError("host-unknown"))),
            _ => Ok(()),
        }
    }

    /// Serves a client that has logged in until its rights end, or something else does.
    /// `answer` is sent first; if it cannot be, a stream that was just resumed is not lost.
    async fn serve(&mut self, mut session: Box<ManagedSession>, answer: Vec<u8>) -> End {
        let (auth, clock) = (self.front.auth.clone(), self.front.clock);
        let rights_end = auth.rights_end(session.session.grants().clone(), clock);
        let mut draining = self.front.hub.draining();
        let end = tokio::select! {
            end = self.exchange(&mut session, answer, &mut draining) => end.err().unwrap_or(End::Closed),
            why = rights_end => match why {
                RightsEnd::Expired => EXPIRED,
                RightsEnd::Revoked => End::Error(StreamError("not-authorized")),
            },
        };
        // What was sent over a lost connection may not have arrived, unless it was acknowledged.
        if end == End::Closed || session.resumable.is_some() {
            session.session.leave_device();
        }
        // Before the client is told, so that it can resume the stream at once.
        if end.may_be_resumed() {
            Box::pin(session.suspend()).await;
        } else {
            Box::pin(session.end()).await;
        }
        end
    }

    /// Handles stanzas and sends messages. Returns the end as an error.
    async fn exchange(
        &mut self,
        session: &mut ManagedSession,
        answer: Vec<u8>,
        draining: &mut watch::Receiver<bool>,
    ) -> Result<(), End> {
        self.send_unless_taken_over(vec![answer], session).await?;
        let mut leave_at: Option<Instant> = None;
        loop {
            let timer = self.pong_until.unwrap_or(self.next_ping);
            tokio::select! {
                received = self.receive(), if !session.is_flushing() => match received? {
                    ClientFrame::Control => {}
                    ClientFrame::Element(received) if received.is("close", FRAMING) => return Ok(()),
                    ClientFrame::Element(received) if received.ns() == FRAMING => return Err(end_of(&received)),
                    ClientFrame::Element(element) => {
                        // Boxed, as are further futures: an idle client has no memory for them.
                        let answers = Box::pin(session.handle(element)).await.map_err(End::Unsent)?;
                        self.send_unless_taken_over(answers, session).await?;
                    }
                },
                () = session.changed() => {
                    let messages = Box::pin(session.next_messages()).await;
                    self.send_unless_taken_over(messages, session).await?;
                }
                () = sleep_until(leave_at.map_or(timer, |leave_at| leave_at.min(timer))) => {
                    if leave_at.is_some_and(|leave_at| leave_at <= Instant::now()) {
                        return Err(DRAINED);
                    }
                    if self.pong_until.is_some() {
                        return Err(SILENT);
                    }
                    self.socket.send(Message::ping(Bytes::new())).await.map_err(lost)?;
                    self.pong_until = Some(Instant::now() + self.front.limits.websocket_pong_timeout.get());
                }
                () = session.taken_over() => return Err(TAKEN_OVER),
                () = drain_begins(draining), if leave_at.is_none() => {
                    leave_at = Some(Instant::now() + self.front.hub.drain_moment());
                }
            }
        }
    }

    /// Sends stanzas. A client that does not take them may have resumed its stream over another connection.
    async fn send_unless_taken_over(
        &mut self,
        stanzas: Vec<Vec<u8>>,
        session: &ManagedSession,
    ) -> Result<(), End> {
        tokio::select! {
            sent = self.send(stanzas) => sent,
            () = session.taken_over() => Err(TAKEN_OVER),
        }
    }

    /// Receives the next frame. Cancel safe.
    async fn receive(&mut self) -> Result<ClientFrame, End> {
        let message = match self.socket.next().await {
            Some(Ok(message)) => message,
            Some(Err(Error::PayloadTooLong { .. })) => return Err(End::FrameTooLarge),
            Some(Err(error)) => return Err(lost(error)),
            None => return Err(End::Lost),
        };
        self.pong_until = None;
        self.next_ping = Instant::now() + self.front.limits.websocket_ping.get();
        if message.is_text() {
            let parsed = parse_document(message.as_payload(), self.frame_bytes_max);
            return parsed.map(ClientFrame::Element).map_err(|error| {
                tracing::debug!(%error, "an XMPP client sent a frame that is no element");
                End::Error(StreamError("not-well-formed"))
            });
        }
        match message.is_binary() {
            true => Err(End::Error(StreamError("not-well-formed"))),
            false => Ok(ClientFrame::Control),
        }
    }

    async fn send(&mut self, stanzas: impl IntoIterator<Item = Vec<u8>>) -> Result<(), End> {
        for bytes in stanzas {
            self.socket.feed(text(bytes)).await.map_err(lost)?;
        }
        self.socket.flush().await.map_err(lost)
    }

    /// Ends the stream and the socket (RFC 7395, sections 3.5 and 3.6), as far as the client still takes it.
    async fn close(&mut self, end: End) {
        let error = match end {
            End::Lost => return,
            End::Closed | End::FrameTooLarge => None,
            End::Error(error) => Some(to_bytes(&error.to_element())),
            End::Unsent(error) => {
                let mut said = StreamError("undefined-condition").to_element();
                said.append_child(error.to_element());
                Some(to_bytes(&said))
            }
        };
        let close = self.is_open.then(|| to_bytes(&element("close", FRAMING).build()));
        let _best_effort = match end {
            End::FrameTooLarge => {
                let too_large = Message::close(Some(FRAME_TOO_LARGE), "frame too large");
                // The library has sent one if the size was in the head of the frame.
                let _already_closed = self.socket.feed(too_large).await;
                self.socket.flush().await.map_err(lost)
            }
            _ => match self.send(error.into_iter().chain(close)).await {
                Ok(()) => self.socket.close().await.map_err(lost),
                Err(end) => Err(end),
            },
        };
        let io = self.socket.get_mut();
        let _closed = io.shutdown().await;
        // A client that has sent more than was read would otherwise be told of a broken connection, and not of the end.
        let _rest = copy(io, &mut sink()).await;
    }
}

/// The end of a stream because of an element of the framing, or before it was opened.
fn end_of(received: &Element) -> End {
    match received.is("close", FRAMING) {
        true => End::Closed,
        false => End::Error(StreamError("policy-violation")),
    }
}

fn lost(error: Error) -> End {
    tracing::debug!(%error, "the WebSocket of an XMPP client is lost");
    End::Lost
}

/// A text frame. XML is always UTF-8.
fn text(bytes: Vec<u8>) -> Message {
    match String::from_utf8(bytes) {
        Ok(text) => Message::text(Payload::from(text)),
        Err(_) => Message::text(Payload::from(String::new())),
    }
}
