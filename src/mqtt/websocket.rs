//! MQTT over WebSocket: the binary frames as a byte stream; packets may span frames (MQTT 5, section 6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::{Config, Error, Limits, Message, ServerBuilder, WebSocketStream};

/// The bytes of a WebSocket after its handshake.
pub struct WebSocketBytes<S> {
    socket: WebSocketStream<S>,
    /// Maximum size of a frame once the client is known, in bytes.
    frame_bytes_max: usize,
    /// Unread rest of the last frame.
    rest: Bytes,
}

/// Maximum size of a frame to the client, in bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    /// Wraps `io` after its handshake. Frames of the client may have `first_bytes_max` bytes until the first
    /// write to it, since nothing is known of it before its CONNECT, and then `frame_bytes_max`.
    pub fn new(io: S, first_bytes_max: usize, frame_bytes_max: usize) -> Self {
        let limits = Limits::default().max_payload_len(Some(first_bytes_max));
        let socket = ServerBuilder::new().config(Config::default()).limits(limits).serve(io);
        Self { socket, frame_bytes_max, rest: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(context)) {
                Some(Ok(message)) if message.is_binary() => this.rest = message.into_payload().into(),
                Some(Ok(message)) if message.is_text() => {
                    let text = io::Error::new(
                        io::ErrorKind::InvalidData,
                        "MQTT over WebSocket uses binary frames, not text frames",
                    );
                    return Poll::Ready(Err(text));
                }
                // The library handles pings, pongs and close frames.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = this.rest.len().min(buffer.remaining());
        this.rest.copy_to_slice(buffer.initialize_unfilled_to(taken));
        buffer.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        *this.socket.limits_mut() = Limits::default().max_payload_len(Some(this.frame_bytes_max));
        let mut socket = Pin::new(&mut this.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(into_io)?;
        let taken = bytes.get(..FRAME_BYTES_MAX).unwrap_or(bytes);
        socket.start_send(Message::binary(Bytes::copy_from_slice(taken))).map_err(into_io)?;
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context).map_err(into_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_close(context).map_err(into_io)
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}
