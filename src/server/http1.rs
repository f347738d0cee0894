//! Connections that speak HTTP/1. What is asked most is read and answered here, at the price of the bytes; for everything
//! else hyper gets the connection. While an answer has to wait, the connection is a socket and a waiter, without buffers.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Phase;
use super::connection::{Terms, Turn};
use super::conversation::converse;
use super::guard::Guarded;
use super::held::{self, Next};
use crate::clock::Alarm;
use crate::http::{Gateway, Heard, Waiting, Written};

/// What a connection that rests comes to.
enum Roused<'a> {
    /// A request that is answered here, at once.
    Answer(Written),
    /// The same, and its answer is yet to come.
    Waiting(Waiting<'a>),
    /// Bytes that are for hyper.
    Bytes,
    /// Nothing, for too long or because the server closes.
    Nothing,
    /// The client has left.
    Gone,
}

/// Serves a connection to its end: its own, or when the server closes.
///
/// Each turn that is rare is in a box of its own, so that a connection which waits has no room for it.
pub(super) fn serve(stream: TcpStream, read_ahead: Bytes, terms: Terms) -> Turn<'static, ()> {
    let mut io = Box::new(terms.guard(stream, read_ahead));
    Box::pin(async move {
        let mut rest = Rest::default();
        loop {
            let mut outgoing = match poll_fn(|context| rouse(&mut io, &terms, &mut rest, context)).await? {
                Roused::Gone => return Ok(()),
                Roused::Nothing => return close(io).await,
                Roused::Answer(answer) => terms.outgoing(answer),
                Roused::Waiting(mut answer) => {
                    let alarm = &mut rest.alarm;
                    let answer = held::wait(&mut io, |context| answer.poll(alarm, context)).await?;
                    let Some(answer) = answer else { return Ok(()) };
                    terms.outgoing(answer)
                }
                Roused::Bytes => {
                    let Some((returned, mut answer)) = converse(io, &terms).await? else { return Ok(()) };
                    io = returned;
                    let answer = held::wait(&mut io, |context| answer.as_mut().poll(context)).await?;
                    let Some(answer) = answer else { return Ok(()) };
                    terms.outgoing(Written::from(answer))
                }
            };
            if let Next::Gone = held::write(&mut io, &mut outgoing).await? {
                return Ok(());
            }
            if outgoing.closes {
                return close(io).await;
            }
        }
    })
}

/// Waits for the next request.
fn rouse<'a>(
    io: &mut Guarded,
    terms: &'a Terms,
    rest: &mut Rest,
    context: &mut Context<'_>,
) -> Poll<io::Result<Roused<'a>>> {
    let Some(gateway) = terms.direct() else { return Poll::Ready(Ok(Roused::Bytes)) };
    if let Poll::Ready(roused) = hear(io, gateway, terms, &mut rest.alarm, context) {
        rest.until = None;
        return Poll::Ready(roused);
    }
    rest.poll(context, terms).map(|()| Ok(Roused::Nothing))
}

/// Reads what the client sends.
fn hear<'a>(
    io: &mut Guarded,
    gateway: &'a Gateway,
    terms: &Terms,
    alarm: &mut Alarm,
    context: &mut Context<'_>,
) -> Poll<io::Result<Roused<'a>>> {
    let heard = io.poll_heard(context, |bytes| match gateway.hear(bytes, &terms.link) {
        Heard::Request(request, taken) => (Some(request), taken),
        Heard::Other => (None, 0),
    });
    let request = match ready!(heard)? {
        None => return Poll::Ready(Ok(Roused::Gone)),
        Some(None) => return Poll::Ready(Ok(Roused::Bytes)),
        Some(Some(request)) => request,
    };
    let mut answer = gateway.write_answer(request);
    Poll::Ready(Ok(match answer.poll(alarm, context) {
        Poll::Ready(answer) => Roused::Answer(answer),
        Poll::Pending => Roused::Waiting(answer),
    }))
}

/// The time between two requests: it ends when it was too long, or when the server closes.
#[derive(Default)]
struct Rest {
    alarm: Alarm,
    until: Option<Instant>,
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Rest {
    fn poll(&mut self, context: &mut Context<'_>, terms: &Terms) -> Poll<()> {
        // Registered once and then left: one more connection that rests takes no lock that they all share.
        let is_new = self.closing.is_none();
        let closing = self.closing.get_or_insert_with(|| Box::pin(terms.reached(Phase::Closing)));
        if (is_new || terms.may_close()) && closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + terms.limits.idle_timeout.get());
        self.alarm.poll(context, until)
    }
}

/// Ends the connection behind what was written.
pub(super) fn close(mut io: Box<Guarded>) -> Turn<'static, ()> {
    Box::pin(async move { io.shutdown().await })
}
