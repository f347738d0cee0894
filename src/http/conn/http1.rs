//! Drives one HTTP/1 connection: parses, answers and writes one request after the other.
//!
//! The fast path parses short polls, long polls and small appends; hyper parses any other request, one at a time
//! (`hyper_request`). While a response is pending, the connection is a socket and a waiter, without buffers.

use std::future::{poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, TryFutureExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::context::{BoxedStep, ConnectionContext};
use super::fast_path::Parsed;
use super::hyper_request::receive_with_hyper;
use super::io::{GuardedStream, LeavesBy};
use super::keep_alive::KeepAlive;
use super::pending::{Begun, PendingResponse};
use super::response_bytes::{Outgoing, ResponseBytes};
use super::transport::Transport;
use super::upgraded::UpgradedIo;
use super::write::write_body;
use crate::http::api::gateway::Gateway;
use crate::http::api::upgrade::{Reply, Upgrade};
use crate::hub::is_in_place;

/// The stage of a connection between two polls.
enum Stage<'a> {
    /// Waits for the next request.
    Idle,
    /// Waits for the response.
    Respond(PendingResponse<'a>),
    /// Writes the response, after which the connection may close.
    Write { bytes: Bytes, closes: bool },
}

/// Why `drive` returns. Each of these steps is rare and has a future of its own.
enum Exit {
    /// hyper has to parse the next request.
    Hyper,
    /// The response has a body that is written in frames.
    Stream(Box<Outgoing>),
    /// The connection switches protocols after these bytes.
    Upgrade(Bytes, Upgrade),
    /// The connection closes: after a response, after the keep-alive time, or because the server closes.
    Close,
    /// The client has closed the connection.
    Gone,
}

/// What follows a rare step.
enum AfterStep<'a> {
    /// The next request, or the response to one.
    Continue(Box<GuardedStream>, Stage<'a>),
    /// The last step of the connection.
    Last(BoxedStep<'a, ()>),
}

/// Serves a connection until either side closes it.
pub(super) fn serve(
    stream: Transport,
    read_ahead: Bytes,
    context: ConnectionContext,
) -> BoxedStep<'static, ()> {
    let mut io = Box::new(context.guarded_stream(stream, read_ahead));
    Box::pin(async move {
        let (mut keep_alive, mut stage) = (KeepAlive::new(&context), Stage::Idle);
        // Nothing of one step is alive during the next one, so that a connection takes memory only for its present step.
        let last = loop {
            let exit = poll_fn(|cx| drive(&mut io, &context, &mut keep_alive, &mut stage, cx)).await?;
            if let Exit::Stream(_) | Exit::Upgrade(..) = exit {
                keep_alive = KeepAlive::new(&context);
            }
            let step = begin_step(exit, io, &context);
            match step.await? {
                AfterStep::Continue(returned, next) => (io, stage) = (returned, next),
                AfterStep::Last(step) => break step,
            }
        };
        last.await
    })
}

/// Begins the step that is due.
fn begin_step(
    exit: Exit,
    mut io: Box<GuardedStream>,
    context: &ConnectionContext,
) -> BoxedStep<'_, AfterStep<'_>> {
    match exit {
        Exit::Hyper => Box::pin(async move {
            Ok(match receive_with_hyper(io, context).await? {
                Some((io, response)) => AfterStep::Continue(io, Stage::Respond(response)),
                None => AfterStep::Last(Box::pin(ready(Ok(())))),
            })
        }),
        Exit::Stream(response) => {
            let closes = response.closes;
            let written = write_body(io, *response);
            Box::pin(written.map_ok(move |io| match closes {
                true => AfterStep::Last(close(io)),
                false => AfterStep::Continue(io, Stage::Idle),
            }))
        }
        Exit::Upgrade(head, upgrade) => Box::pin(async move {
            io.write_all(&head).await?;
            let serving = upgrade.serve(UpgradedIo::Http1(io), context.state.clone());
            Ok(AfterStep::Last(Box::pin(serving.map(Ok))))
        }),
        Exit::Close => Box::pin(ready(Ok(AfterStep::Last(close(io))))),
        Exit::Gone => {
            io.answer_end();
            Box::pin(ready(Ok(AfterStep::Last(Box::pin(ready(Ok(())))))))
        }
    }
}

/// Answers requests until a step of [`Exit`] is due.
fn drive<'a>(
    io: &mut GuardedStream,
    context: &'a ConnectionContext,
    keep_alive: &mut KeepAlive<'_>,
    stage: &mut Stage<'a>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Exit>> {
    loop {
        *stage = match stage {
            Stage::Idle => match std::task::ready!(poll_next_request(io, context, keep_alive, cx))? {
                Ok(Begun::Pending(response)) => Stage::Respond(response),
                Ok(Begun::Answered(response)) => match begin_write(io, context, Reply::http(response), cx)? {
                    Ok(stage) => stage,
                    Err(exit) => return Poll::Ready(Ok(exit)),
                },
                Err(exit) => return Poll::Ready(Ok(exit)),
            },
            Stage::Respond(response) => {
                let Poll::Ready(reply) = response.poll(&mut keep_alive.timer, cx) else {
                    match std::task::ready!(io.poll_left(cx, response.leaves_by()))? {
                        LeavesBy::Reset => return Poll::Ready(Ok(Exit::Gone)),
                        LeavesBy::Fin => response.end(),
                    }
                    continue;
                };
                match begin_write(io, context, reply, cx)? {
                    Ok(next) => next,
                    Err(exit) => {
                        *stage = Stage::Idle;
                        return Poll::Ready(Ok(exit));
                    }
                }
            }
            Stage::Write { bytes, closes } => {
                std::task::ready!(io.poll_write_all(cx, bytes))?;
                if *closes {
                    return Poll::Ready(Ok(Exit::Close));
                }
                Stage::Idle
            }
        };
    }
}

/// Writes as much of a response as the kernel accepts, and returns the next stage.
fn begin_write<'a>(
    io: &mut GuardedStream,
    context: &ConnectionContext,
    reply: Reply<ResponseBytes>,
    cx: &mut Context<'_>,
) -> io::Result<Result<Stage<'a>, Exit>> {
    let outgoing = context.outgoing(reply.answer);
    if let Some(upgrade) = reply.upgrade {
        return Ok(Err(Exit::Upgrade(outgoing.first.into(), upgrade)));
    }
    if outgoing.rest.is_some() {
        return Ok(Err(Exit::Stream(Box::new(outgoing))));
    }
    let Outgoing { first, closes, .. } = outgoing;
    let written = match Pin::new(&mut *io).poll_write(cx, &first) {
        Poll::Ready(written) => written?,
        Poll::Pending => 0,
    };
    if written < first.len() {
        let mut bytes = Bytes::from(first);
        bytes.advance(written);
        return Ok(Ok(Stage::Write { bytes, closes }));
    }
    first.recycle();
    Ok(if closes { Err(Exit::Close) } else { Ok(Stage::Idle) })
}

/// Waits for the next request, at most for the keep-alive time.
fn poll_next_request<'a>(
    io: &mut GuardedStream,
    context: &'a ConnectionContext,
    keep_alive: &mut KeepAlive<'_>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Result<Begun<'a>, Exit>>> {
    if is_in_place() {
        // A publisher has delivered a response. It is not to wait for what the client has sent meanwhile.
        if io.poll_readable(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    } else if let Poll::Ready(parsed) = try_parse(io, context, cx) {
        keep_alive.end();
        return Poll::Ready(parsed);
    }
    keep_alive.poll_expired(cx).map(|()| Ok(Err(Exit::Close)))
}

/// Reads the bytes that the client has sent, passes them to the fast path, and begins to answer the request.
fn try_parse<'a>(
    io: &mut GuardedStream,
    context: &'a ConnectionContext,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Result<Begun<'a>, Exit>>> {
    let parse = |gateway: &'a Gateway, bytes: &[u8]| match gateway.try_parse(bytes, &context.state) {
        Parsed::Request(request, consumed) => {
            (Ok(PendingResponse::begin(gateway, request, &context.state)), consumed)
        }
        Parsed::Other => (Err(Exit::Hyper), 0),
    };
    let parsed = io.poll_parse(cx, |bytes| match context.fast_path() {
        Some(gateway) => parse(gateway, bytes),
        None => (Err(Exit::Hyper), 0),
    });
    parsed.map_ok(|parsed| parsed.unwrap_or(Err(Exit::Gone)))
}

/// Closes the connection so that the client can still read the last response.
pub(super) fn close(mut io: Box<GuardedStream>) -> BoxedStep<'static, ()> {
    Box::pin(async move { io.shutdown().await })
}

#[cfg(test)]
mod tests;
