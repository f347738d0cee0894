//! A WebSocket after its handshake (RFC 6455): receives messages of the client, and sends frames to it.
//!
//! An idle socket owns no buffer: bytes are read into a buffer on the stack and decoded from there. There may be very many sockets.

mod decoder;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use self::decoder::{Decoded, Decoder, Violation};
use super::upgraded::UpgradedIo;

/// Size of the read buffer on the stack.
const READ_BYTES: usize = 4 * 1024;

/// The most bytes of a close frame's reason: a control frame has at most 125, and two are the code.
const REASON_BYTES_MAX: usize = 123;

/// The codes with which the gateway closes a socket whose client violates the protocol (RFC 6455, section 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
const INVALID_TEXT: u16 = 1007;

/// The first byte of a frame that is a whole message or a control frame.
#[derive(Debug, Clone, Copy)]
enum FrameKind {
    Text = 0x81,
    Close = 0x88,
    Ping = 0x89,
    Pong = 0x8a,
}

/// The next thing that a client has sent.
#[derive(Debug)]
pub(in crate::http) enum ClientMessage {
    /// A text message, which is UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping, whose pong is sent before the next message is received, or a pong.
    Control {
        /// It is a pong.
        is_pong: bool,
    },
    /// A message above the size limit. Nothing more can be received.
    TooLarge,
    /// A violation of the protocol, of which a close frame will tell the client. Nothing more can be received.
    Violation,
    /// The client has closed the socket or the connection.
    End,
}

/// An open WebSocket.
pub(in crate::http) struct FrameSocket {
    io: UpgradedIo,
    message_bytes_max: usize,
    decoder: Decoder,
    /// Bytes that were read behind the last message.
    read_ahead: Bytes,
    /// A control frame that is being sent: the last pong, or a close frame.
    outgoing: Bytes,
    /// A close frame was sent, after which nothing may be.
    has_closed: bool,
    /// Nothing more can be received.
    has_ended: bool,
}

impl FrameSocket {
    /// Wraps a connection after its handshake.
    pub(in crate::http) fn new(io: UpgradedIo, message_bytes_max: usize) -> Self {
        let [has_closed, has_ended] = [false; 2];
        let (read_ahead, outgoing) = Default::default();
        Self {
            io,
            message_bytes_max,
            decoder: Decoder::default(),
            read_ahead,
            outgoing,
            has_closed,
            has_ended,
        }
    }

    /// Sets the largest message of the client, in bytes.
    pub(in crate::http) fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Receives the next message.
    ///
    /// Cancel safe.
    pub(in crate::http) async fn receive(&mut self) -> io::Result<ClientMessage> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    /// Sends a text message. Not cancel safe.
    pub(in crate::http) async fn send_text(&mut self, text: Bytes) -> io::Result<()> {
        self.send(FrameKind::Text, text).await
    }

    /// Sends a ping. Not cancel safe.
    pub(in crate::http) async fn send_ping(&mut self) -> io::Result<()> {
        self.send(FrameKind::Ping, Bytes::new()).await
    }

    /// Sends a close frame, unless one was sent. The reason is ASCII, and cut if it is too long. Not cancel safe.
    pub(in crate::http) async fn send_close(&mut self, code: u16, reason: &'static str) -> io::Result<()> {
        self.close_with(Some(code), reason);
        self.flush().await
    }

    /// Sends what was queued in answer to the client. Cancel safe.
    pub(in crate::http) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Shuts the connection down after the last frame, so that the client can still read it.
    pub(in crate::http) async fn shut_down(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.io.shutdown().await
    }

    /// Nothing may be sent after a close frame, so this does nothing then.
    async fn send(&mut self, kind: FrameKind, payload: Bytes) -> io::Result<()> {
        self.flush().await?;
        if self.has_closed {
            return Ok(());
        }
        let (header, header_bytes) = header(kind, payload.len());
        let header = header.get(..header_bytes).unwrap_or_default();
        self.io.write_all_buf(&mut header.chain(payload)).await?;
        self.io.flush().await
    }

    /// Queues a close frame as the last one.
    fn close_with(&mut self, code: Option<u16>, reason: &'static str) {
        if std::mem::replace(&mut self.has_closed, true) {
            return;
        }
        let mut payload = code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec());
        payload.extend(reason.bytes().take(REASON_BYTES_MAX));
        self.queue(FrameKind::Close, &payload);
    }

    /// Appends a control frame to those that are being sent: at most one for each frame of the client, which are received only after
    /// they are sent, and a close frame.
    fn queue(&mut self, kind: FrameKind, payload: &[u8]) {
        let (header, header_bytes) = header(kind, payload.len());
        let header = header.get(..header_bytes).unwrap_or_default();
        self.outgoing = Bytes::from([&*self.outgoing, header, payload].concat());
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
            if self.outgoing.is_empty() {
                self.outgoing = Bytes::new();
                return Pin::new(&mut self.io).poll_flush(context);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Poll form of [`receive`](Self::receive). Answers of the socket itself are sent before the next frame is read, so that they do not
    /// accumulate for a client that does not read.
    pub(in crate::http) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<ClientMessage>> {
        loop {
            ready!(self.poll_flush(context))?;
            if self.has_ended {
                return Poll::Ready(Ok(ClientMessage::End));
            }
            let decoded = if self.read_ahead.is_empty() {
                ready!(self.poll_decode(context))?
            } else {
                let mut bytes = &*self.read_ahead;
                let decoded = self.decoder.decode(&mut bytes, self.message_bytes_max);
                let rest = bytes.len();
                self.read_ahead.advance(self.read_ahead.len() - rest);
                if rest == 0 {
                    self.read_ahead = Bytes::new();
                }
                decoded
            };
            match decoded {
                Ok(None) => {}
                Ok(Some(decoded)) => {
                    if let Some(received) = self.answer(decoded) {
                        return Poll::Ready(Ok(received));
                    }
                }
                Err(violation) => return Poll::Ready(Ok(self.end_at(violation))),
            }
        }
    }

    /// Reads from the connection and decodes what has arrived; keeps the bytes behind the first message.
    // Never inlined, as its buffer would enlarge the stack frame of each caller.
    #[inline(never)]
    fn poll_decode(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Result<Option<Decoded>, Violation>>> {
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
        let mut bytes = buffer.filled();
        if bytes.is_empty() {
            self.has_ended = true;
            return Poll::Ready(Ok(Ok(None)));
        }
        let decoded = self.decoder.decode(&mut bytes, self.message_bytes_max);
        if !bytes.is_empty() {
            self.read_ahead = Bytes::copy_from_slice(bytes);
        }
        Poll::Ready(Ok(decoded))
    }

    /// Queues the answer to a control frame. Returns what the caller has to handle.
    fn answer(&mut self, decoded: Decoded) -> Option<ClientMessage> {
        Some(match decoded {
            Decoded::Text(text) => ClientMessage::Text(text.into()),
            Decoded::Binary(bytes) => ClientMessage::Binary(bytes.into()),
            Decoded::Ping(payload) => {
                if !self.has_closed {
                    self.queue(FrameKind::Pong, &payload);
                }
                ClientMessage::Control { is_pong: false }
            }
            Decoded::Pong => ClientMessage::Control { is_pong: true },
            Decoded::Close(code) => {
                self.close_with(code, "");
                self.has_ended = true;
                return None;
            }
        })
    }

    fn end_at(&mut self, violation: Violation) -> ClientMessage {
        self.has_ended = true;
        tracing::debug!(%violation, "websocket");
        match violation {
            Violation::TooLarge => return ClientMessage::TooLarge,
            Violation::Protocol => self.close_with(Some(PROTOCOL_ERROR), ""),
            Violation::Text => self.close_with(Some(INVALID_TEXT), ""),
        }
        ClientMessage::Violation
    }
}

/// The header of an unmasked frame, and its length.
fn header(kind: FrameKind, payload_bytes: usize) -> ([u8; 10], usize) {
    let first = kind as u8;
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(length @ ..=125), _) => ([first, length, 0, 0, 0, 0, 0, 0, 0, 0], 2),
        (_, Ok(length)) => {
            let [high, low] = length.to_be_bytes();
            ([first, 126, high, low, 0, 0, 0, 0, 0, 0], 4)
        }
        _ => {
            let [l0, l1, l2, l3, l4, l5, l6, l7] = (payload_bytes as u64).to_be_bytes();
            ([first, 127, l0, l1, l2, l3, l4, l5, l6, l7], 10)
        }
    }
}
