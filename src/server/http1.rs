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
use crate::http::{Gateway, Heard, Outgoing, Waiting, Written};

/// What a connection is at.
enum Doing<'a> {
    /// It waits for a request.
    Rest,
    /// It owes an answer that is yet to come.
    Wait(Waiting<'a>),
    /// It writes this; then it may end.
    Write(Bytes, bool),
}

/// What a connection comes to that is not for here.
enum Exit {
    /// Bytes that are for hyper.
    Bytes,
    /// An answer with more than goes out at once.
    Large(Box<Outgoing>),
    /// An end that the client is told of: behind the last answer, after too long a rest, or because the server closes.
    Close,
    /// The client has left.
    Gone,
}

/// Serves a connection to its end: its own, or when the server closes.
///
/// Each turn that is rare is in a box of its own, so that a connection which waits has no room for it.
pub(super) fn serve(stream: TcpStream, read_ahead: Bytes, terms: Terms) -> Turn<'static, ()> {
    let mut io = Box::new(terms.guard(stream, read_ahead));
    Box::pin(async move {
        let (mut rest, mut doing) = (Rest::default(), Doing::Rest);
        loop {
            let exit = poll_fn(|context| go_on(&mut io, &terms, &mut rest, &mut doing, context)).await?;
            let outgoing = match exit {
                Exit::Gone => return Ok(()),
                Exit::Close => return close(io).await,
                Exit::Large(outgoing) => outgoing,
                Exit::Bytes => {
                    let Some((returned, mut answer)) = converse(io, &terms).await? else { return Ok(()) };
                    io = returned;
                    let answer = held::wait(&mut io, |context| answer.as_mut().poll(context)).await?;
                    let Some(answer) = answer else { return Ok(()) };
                    Box::new(terms.outgoing(Written::from(answer)))
                }
            };
            let closes = outgoing.closes;
            if let Next::Gone = held::write(&mut io, outgoing).await? {
                return Ok(());
            }
            if closes {
                return close(io).await;
            }
        }
    })
}

/// Answers requests for as long as nothing else is to be done.
fn go_on<'a>(
    io: &mut Guarded,
    terms: &'a Terms,
    rest: &mut Rest,
    doing: &mut Doing<'a>,
    context: &mut Context<'_>,
) -> Poll<io::Result<Exit>> {
    loop {
        *doing = match doing {
            Doing::Rest => match ready!(rouse(io, terms, rest, context))? {
                Ok(answer) => Doing::Wait(answer),
                Err(exit) => return Poll::Ready(Ok(exit)),
            },
            Doing::Wait(answer) => {
                let alarm = &mut rest.alarm;
                let answer = ready!(held::poll_wait(io, context, |context| answer.poll(alarm, context)))?;
                let Some(answer) = answer else { return Poll::Ready(Ok(Exit::Gone)) };
                let outgoing = terms.outgoing(answer);
                if outgoing.rest.is_some() {
                    *doing = Doing::Rest;
                    return Poll::Ready(Ok(Exit::Large(Box::new(outgoing))));
                }
                Doing::Write(outgoing.first, outgoing.closes)
            }
            Doing::Write(bytes, closes) => {
                ready!(io.poll_write_all(context, bytes))?;
                if *closes {
                    return Poll::Ready(Ok(Exit::Close));
                }
                Doing::Rest
            }
        };
    }
}

/// Waits for the next request.
fn rouse<'a>(
    io: &mut Guarded,
    terms: &'a Terms,
    rest: &mut Rest,
    context: &mut Context<'_>,
) -> Poll<io::Result<Result<Waiting<'a>, Exit>>> {
    let Some(gateway) = terms.direct() else { return Poll::Ready(Ok(Err(Exit::Bytes))) };
    if let Poll::Ready(heard) = hear(io, gateway, terms, context) {
        rest.until = None;
        return Poll::Ready(heard);
    }
    rest.poll(context, terms).map(|()| Ok(Err(Exit::Close)))
}

/// Reads what the client sends.
fn hear<'a>(
    io: &mut Guarded,
    gateway: &'a Gateway,
    terms: &Terms,
    context: &mut Context<'_>,
) -> Poll<io::Result<Result<Waiting<'a>, Exit>>> {
    let heard = io.poll_heard(context, |bytes| match gateway.hear(bytes, &terms.link) {
        Heard::Request(request, taken) => (Ok(gateway.write_answer(request)), taken),
        Heard::Other => (Err(Exit::Bytes), 0),
    });
    heard.map_ok(|heard| heard.unwrap_or(Err(Exit::Gone)))
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
