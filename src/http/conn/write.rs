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

/// Writes a response frame by frame. The head is written together with the first frame. Fails if the client is gone.
pub(super) fn write_body(io: &mut GuardedStream, mut response: Box<Outgoing>) -> BoxedStep<'_, ()> {
    Box::pin(async move {
        while let Some(body) = &mut response.rest {
            let Some(data) = next_frame(io, body).await? else { break };
            let before = std::mem::take(&mut response.first);
            if response.chunked {
                let length = format!("{:x}\r\n", data.len());
                io.write_all_buf(&mut before.chain(length.as_bytes()).chain(data).chain(&b"\r\n"[..]))
                    .await?;
            } else {
                io.write_all_buf(&mut before.chain(data)).await?;
            }
        }
        let end: &[u8] = if response.chunked { b"0\r\n\r\n" } else { b"" };
        io.write_all_buf(&mut response.first.chain(end)).await
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
