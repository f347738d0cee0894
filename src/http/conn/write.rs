//! Writes HTTP/1 responses whose body is large or not complete yet. A body that waits ends when its client sends no more.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::Body as _;
use tokio::io::AsyncWriteExt;

use super::body::Body;
use super::context::BoxedStep;
use super::io::{GuardedStream, LeavesBy};
use super::response_bytes::Outgoing;

/// Writes a response frame by frame, and returns the connection. The head is written together with the first frame. Fails if the client is gone.
pub(super) fn write_body(
    mut io: Box<GuardedStream>,
    Outgoing { first, rest, chunked, closes: _ }: Outgoing,
) -> impl Future<Output = io::Result<Box<GuardedStream>>> + Send {
    let mut before = Bytes::from(first);
    let mut body = rest.unwrap_or_else(Body::empty);
    async move {
        loop {
            let frame = next_frame(&mut io, &mut body).await?;
            let is_last = frame.is_none();
            write_frame(&mut io, std::mem::take(&mut before), frame, chunked).await?;
            if is_last {
                return Ok(io);
            }
        }
    }
}

/// Writes one frame of a body with what comes before it, or the end of the body. Boxed, as it is short beside waiting for a frame, and a reader
/// that waits would have the memory for it.
fn write_frame(
    io: &mut GuardedStream,
    before: Bytes,
    frame: Option<Bytes>,
    chunked: bool,
) -> BoxedStep<'_, ()> {
    Box::pin(async move {
        match frame {
            Some(data) if chunked => {
                let length = format!("{:x}\r\n", data.len());
                let data = before.chain(length.as_bytes()).chain(data);
                io.write_all_buf(&mut data.chain(&b"\r\n"[..])).await
            }
            Some(data) => io.write_all_buf(&mut before.chain(data)).await,
            None if chunked => io.write_all_buf(&mut before.chain(&b"0\r\n\r\n"[..])).await,
            None => io.write_all(&before).await,
        }
    })
}

/// Returns the next frame of a body; `None` at its end, or once the client has ended its side of the connection.
async fn next_frame(io: &mut GuardedStream, body: &mut Body) -> io::Result<Option<Bytes>> {
    poll_fn(|cx| match poll_frame(body, cx) {
        Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        Poll::Pending => io.poll_left(cx, LeavesBy::Fin).map_ok(|_| None),
    })
    .await
}

fn poll_frame(body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Poll::Ready(Some(data)),
                _ => {}
            },
            Some(Err(never)) => match never {},
        }
    }
}
