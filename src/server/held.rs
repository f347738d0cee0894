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

/// Writes an answer. Most are written at once.
pub(super) async fn write(io: &mut Guarded, outgoing: &mut Outgoing) -> io::Result<Next> {
    match outgoing.rest.take() {
        None => {
            io.write_all_buf(&mut outgoing.first).await?;
            Ok(Next::Request)
        }
        Some(rest) => write_rest(io, std::mem::take(&mut outgoing.first), rest, outgoing.chunked).await,
    }
}

/// Writes an answer with a body that has to be waited for, or that is large. What goes first goes with its beginning.
fn write_rest(io: &mut Guarded, mut first: Bytes, mut body: Body, chunked: bool) -> Turn<'_, Next> {
    Box::pin(async move {
        loop {
            let Some(frame) = next_frame(io, &mut body).await? else { return Ok(Next::Gone) };
            let Frame::Data(data) = frame else { break };
            let before = std::mem::take(&mut first);
            if chunked {
                let length = format!("{:x}\r\n", data.len());
                io.write_all_buf(&mut before.chain(length.as_bytes()).chain(data).chain(&b"\r\n"[..]))
                    .await?;
            } else {
                io.write_all_buf(&mut before.chain(data)).await?;
            }
        }
        let end: &[u8] = if chunked { b"0\r\n\r\n" } else { b"" };
        io.write_all_buf(&mut first.chain(end)).await?;
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

/// Waits for what `poll` comes to; `None` once the client has left. A client that sends its next request early is still
/// there.
pub(super) fn wait<T>(
    io: &mut Guarded,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> impl Future<Output = io::Result<Option<T>>> {
    let mut sent_early = false;
    poll_fn(move |context: &mut Context<'_>| {
        if let Poll::Ready(next) = poll(context) {
            return Poll::Ready(Ok(Some(next)));
        }
        if !sent_early {
            match ready!(io.poll_client(context))? {
                true => sent_early = true,
                false => return Poll::Ready(Ok(None)),
            }
        }
        Poll::Pending
    })
}
