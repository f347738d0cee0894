//! Writes HTTP/1 responses whose body is large or not complete yet, and watches for clients that leave meanwhile.

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
use super::response::Outgoing;

/// How the writing of a response ended.
pub(super) enum Written {
    /// All of the response is written.
    Whole,
    /// The client closed the connection before the end.
    ClientGone,
}

/// Writes a response frame by frame. The head is written together with the first frame.
pub(super) fn write_body(io: &mut GuardedStream, mut response: Box<Outgoing>) -> BoxedStep<'_, Written> {
    Box::pin(async move {
        while let Some(body) = &mut response.rest {
            let Some(frame) = next_frame(io, body).await? else { return Ok(Written::ClientGone) };
            let BodyPart::Data(data) = frame else { break };
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
        io.write_all_buf(&mut response.first.chain(end)).await?;
        Ok(Written::Whole)
    })
}

/// A piece of a body, or its end.
enum BodyPart {
    Data(Bytes),
    End,
}

/// The next frame of a body; `None` once the client has closed the connection.
async fn next_frame(io: &mut GuardedStream, body: &mut Body) -> io::Result<Option<BodyPart>> {
    poll_fn(|cx| match poll_frame(body, cx) {
        Poll::Ready(frame) => Poll::Ready(Ok(Some(frame))),
        Poll::Pending => io.poll_left(cx, LeavesBy::Fin).map_ok(|()| None),
    })
    .await
}

fn poll_frame(body: &mut Body, cx: &mut Context<'_>) -> Poll<BodyPart> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(BodyPart::End),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Poll::Ready(BodyPart::Data(data)),
                _ => {}
            },
            Some(Err(never)) => match never {},
        }
    }
}
