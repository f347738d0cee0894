//! MQTT over WebSocket: binary frames as a stream of bytes, however the packets lie in them (MQTT 5, section 6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::{Config, Error, Limits, Message, ServerBuilder, WebSocketStream};

/// The bytes of a WebSocket whose handshake is done.
pub struct WebSocketBytes<S> {
    socket: WebSocketStream<S>,
    /// The largest frame of a client that is known.
    frame_bytes_max: usize,
    /// Of a frame that was not read to its end.
    rest: Bytes,
}

/// The most that goes into one frame.
const FRAME_BYTES_MAX: usize = 16 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    /// The bytes of `io`, which speaks WebSocket by now, in frames of at most `frame_bytes_max`, and of at most
    /// `first_bytes_max` until the client is answered: before its CONNECT nothing is known of it.
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
                    let text = io::Error::new(io::ErrorKind::InvalidData, "a text frame holds no MQTT");
                    return Poll::Ready(Err(text));
                }
                // Pings, pongs and closing are the library's business.
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
