//! An answer that has to wait, and the connection that it is owed on: a socket and a waiter.
//!
//! hyper keeps its buffers for as long as it has a connection, about 10 KB. So a poll that waits, or a stream of events,
//! takes the connection from it: the answer is made by the same code as any other and written here (RFC 9112).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::Body as _;
use tokio::io::AsyncWriteExt;

use super::connection::Turn;
use super::guard::Guarded;
use crate::http::{Body, Outgoing};

/// What comes behind an answer.
pub(super) enum Next {
    /// Another request may, unless the answer said that the connection ends.
    Request,
    /// The client has left.
    Gone,
}

/// Writes an answer with a body that has to be waited for, or that is large. What goes first goes with its beginning.
pub(super) fn write(io: &mut Guarded, mut outgoing: Box<Outgoing>) -> Turn<'_, Next> {
    Box::pin(async move {
        while let Some(body) = &mut outgoing.rest {
            let Some(frame) = next_frame(io, body).await? else { return Ok(Next::Gone) };
            let Frame::Data(data) = frame else { break };
            let before = std::mem::take(&mut outgoing.first);
            if outgoing.chunked {
                let length = format!("{:x}\r\n", data.len());
                io.write_all_buf(&mut before.chain(length.as_bytes()).chain(data).chain(&b"\r\n"[..]))
                    .await?;
            } else {
                io.write_all_buf(&mut before.chain(data)).await?;
            }
        }
        let end: &[u8] = if outgoing.chunked { b"0\r\n\r\n" } else { b"" };
        io.write_all_buf(&mut outgoing.first.chain(end)).await?;
        Ok(Next::Request)
    })
}

/// A piece of a body, or its end.
enum Frame {
    Data(Bytes),
    End,
}

/// The next piece; `None` once the client has left.
async fn next_frame(io: &mut Guarded, body: &mut Body) -> io::Result<Option<Frame>> {
    wait(io, |context| {
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(context)) {
                None => return Poll::Ready(Frame::End),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Frame::Data(data)),
                    _ => {}
                },
                Some(Err(never)) => match never {},
            }
        }
    })
    .await
}

/// Waits for what `poll` comes to; `None` once the client has left.
pub(super) async fn wait<T>(
    io: &mut Guarded,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> io::Result<Option<T>> {
    poll_fn(move |context| poll_wait(io, context, &mut poll)).await
}

/// The same for a state machine that is no future. A client that sends its next request early is still there.
pub(super) fn poll_wait<T>(
    io: &mut Guarded,
    context: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<io::Result<Option<T>>> {
    if let Poll::Ready(next) = poll(context) {
        return Poll::Ready(Ok(Some(next)));
    }
    match ready!(io.poll_client(context))? {
        true => Poll::Pending,
        false => Poll::Ready(Ok(None)),
    }
}
