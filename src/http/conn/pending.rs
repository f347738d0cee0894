//! A response that may still have to be waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::response::ResponseBytes;
use super::state::ConnectionState;
use crate::clock::Alarm;
use crate::http::Gateway;
use crate::http::error::Error;
use crate::http::long_poll::Answering;
use crate::http::request::{LongPoll, Read};
use crate::http::request_log::RequestLog;
use crate::http::routes::{GatewayRequest, OnStream, Operation};
use crate::http::upgrade::Reply;
use crate::hub::{Begun, Held};
use crate::stream::StreamName;

/// A response over HTTP/1 to one request. Dropping it cancels the request: a held poll leaves its wait queue.
pub(super) struct PendingResponse<'a>(State<'a>);

enum State<'a> {
    Ready(Option<ResponseBytes>),
    /// Most requests are answered when this is first polled.
    Begun(Pin<Box<dyn Future<Output = Step<'a>> + Send + 'a>>),
    /// A held poll is no future, so that it has room for nothing but what it waits for.
    Held(Box<HeldPoll<'a>>),
}

enum Step<'a> {
    Answered(Reply<ResponseBytes>),
    Held(Box<HeldPoll<'a>>),
}

impl Step<'_> {
    fn answered(response: ResponseBytes) -> Self {
        Self::Answered(Reply::http(response))
    }
}

/// A long poll that waits for a message.
struct HeldPoll<'a> {
    gateway: &'a Gateway,
    held: Held<'a>,
    answering: Answering,
    log: RequestLog,
}

impl<'a> PendingResponse<'a> {
    /// A response that is complete.
    pub(super) fn ready(response: ResponseBytes) -> Self {
        Self(State::Ready(Some(response)))
    }

    /// Begins to answer a request.
    pub(super) fn of(gateway: &'a Gateway, request: GatewayRequest, state: &'a Arc<ConnectionState>) -> Self {
        if request.log.is_traced() {
            return Self::any(gateway, request, state);
        }
        let GatewayRequest { operation, log } = request;
        // The frequent operations have a small future of their own.
        Self(State::Begun(match operation {
            Ok(Operation::OnStream(name, OnStream::Read(Read::ShortPoll(poll)))) => {
                Box::pin(
                    async move { Step::answered(gateway.finish(&log, gateway.short_poll(name, poll).await)) },
                )
            }
            Ok(Operation::OnStream(name, OnStream::Read(Read::LongPoll(poll)))) => {
                Box::pin(gateway.begin_long_poll(name, poll, log))
            }
            Ok(Operation::OnStream(name, OnStream::Append(append))) => {
                Box::pin(
                    async move { Step::answered(gateway.finish(&log, gateway.append(name, *append).await)) },
                )
            }
            operation => return Self::any(gateway, GatewayRequest { operation, log }, state),
        }))
    }

    fn any(gateway: &'a Gateway, request: GatewayRequest, state: &'a Arc<ConnectionState>) -> Self {
        Self(State::Begun(Box::pin(async move { Step::Answered(gateway.respond(request, state).await) })))
    }

    /// Waits for the response. `timer` is that of the connection.
    pub(super) fn poll(&mut self, timer: &mut Alarm, cx: &mut Context<'_>) -> Poll<Reply<ResponseBytes>> {
        loop {
            match &mut self.0 {
                State::Ready(response) => {
                    return response
                        .take()
                        .map_or(Poll::Pending, |response| Poll::Ready(Reply::http(response)));
                }
                State::Begun(begun) => match ready!(begun.as_mut().poll(cx)) {
                    Step::Answered(reply) => return Poll::Ready(reply),
                    Step::Held(held) => self.0 = State::Held(held),
                },
                State::Held(poll) => {
                    let outcome = ready!(poll.held.poll_answer(timer, cx));
                    let outcome = outcome.map(|polled| poll.gateway.polled(&polled, poll.answering));
                    let response = poll.gateway.finish(&poll.log, outcome.map_err(Error::from));
                    return Poll::Ready(Reply::http(response));
                }
            }
        }
    }
}

impl Gateway {
    async fn begin_long_poll(&self, name: StreamName, request: LongPoll, log: RequestLog) -> Step<'_> {
        let answering = Answering::of(&request);
        let outcome = match self.hub.begin_poll(request.poll(name)).await {
            Ok(Begun::Held(mut held)) => {
                held.be_prompt();
                return Step::Held(Box::new(HeldPoll { gateway: self, held, answering, log }));
            }
            Ok(Begun::Answered(polled)) => Ok(self.polled(&polled, answering)),
            Err(error) => Err(error.into()),
        };
        Step::answered(self.finish(&log, outcome))
    }
}
