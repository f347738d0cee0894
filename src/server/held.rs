//! An answer that has to wait, and the connection that it is owed on: a socket and a waiter.
//!
//! hyper keeps its buffers for as long as it has a connection, about 10 KB. So a poll that waits, or a stream of events,
//! takes the connection from it: the answer is made by the same code as any other and written here (RFC 9112).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::body::Body as _;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};
use tokio::io::AsyncWriteExt;

use super::Phase;
use super::connection::{Terms, Turn};
use super::guard::Guarded;
use crate::http::Body;

/// What comes behind an answer.
pub(super) enum Next {
    /// Another request may.
    Request,
    /// The connection ends.
    Close,
    /// The client has left.
    Gone,
}

/// Writes the answer.
pub(super) fn write<'a>(io: &'a mut Guarded, mut answer: Response<Body>, terms: &'a Terms) -> Turn<'a, Next> {
    Box::pin(async move {
        if *terms.phase.borrow() >= Phase::Closing {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let closes = answer.headers().get(CONNECTION).is_some_and(|value| value == "close");
        let length = answer.body().size_hint().exact();
        let has_body =
            answer.status() != StatusCode::NO_CONTENT && answer.status() != StatusCode::NOT_MODIFIED;
        if has_body {
            match length {
                Some(length) => answer.headers_mut().insert(CONTENT_LENGTH, length.into()),
                None => answer.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
            };
        }
        let mut before = head(&answer);
        let mut body = answer.into_body();
        loop {
            let Some(frame) = next_frame(io, &mut body).await? else { return Ok(Next::Gone) };
            let Frame::Data(data) = frame else { break };
            if length.is_some() {
                io.write_all_buf(&mut before.chain(data)).await?;
            } else {
                before.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
                io.write_all_buf(&mut before.chain(data).chain(&b"\r\n"[..])).await?;
            }
            before = BytesMut::new();
        }
        if has_body && length.is_none() {
            before.put_slice(b"0\r\n\r\n");
        }
        io.write_all_buf(&mut before).await?;
        Ok(if closes { Next::Close } else { Next::Request })
    })
}

/// A piece of a body, or its end.
enum Frame {
    Data(Bytes),
    End,
}

/// The next piece; `None` once the client has left.
async fn next_frame(io: &mut Guarded, body: &mut Body) -> io::Result<Option<Frame>> {
    let next = poll_fn(|context| {
        loop {
            match std::task::ready!(Pin::new(&mut *body).poll_frame(context)) {
                None => return Poll::Ready(Frame::End),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Frame::Data(data)),
                    _ => {}
                },
                Some(Err(never)) => match never {},
            }
        }
    });
    wait(io, next).await
}

/// Waits for `next`; `None` once the client has left. A client that sends its next request early is still there.
pub(super) fn wait<T, N: Future<Output = T> + Unpin>(
    io: &mut Guarded,
    mut next: N,
) -> impl Future<Output = io::Result<Option<T>>> {
    let mut sent_early = false;
    poll_fn(move |context: &mut Context<'_>| {
        if let Poll::Ready(next) = Pin::new(&mut next).poll(context) {
            return Poll::Ready(Ok(Some(next)));
        }
        if !sent_early {
            match io.poll_client(context) {
                Poll::Ready(Ok(true)) => sent_early = true,
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    })
}

/// Status line and fields (RFC 9112, sections 4 and 5).
fn head(answer: &Response<Body>) -> BytesMut {
    let fields: usize =
        answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut head = BytesMut::with_capacity(fields + 64);
    head.put_slice(b"HTTP/1.1 ");
    head.put_slice(answer.status().as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(answer.status().canonical_reason().unwrap_or_default().as_bytes());
    head.put_slice(b"\r\n");
    for (name, value) in answer.headers() {
        head.put_slice(name.as_str().as_bytes());
        head.put_slice(b": ");
        head.put_slice(value.as_bytes());
        head.put_slice(b"\r\n");
    }
    head.put_slice(b"\r\n");
    head
}
