//! The pending response to an HTTP/1 request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tracing::Span;

use super::io::LeavesBy;
use super::response_bytes::ResponseBytes;
use super::state::ConnectionState;
use crate::clock::ReusableSleep;
use crate::http::api::bosh::{BoshExchange, answer_of};
use crate::http::api::error::Error;
use crate::http::api::gateway::Gateway;
use crate::http::api::handlers::AppendAnswer;
use crate::http::api::operation::{GatewayRequest, OnStream, Operation, RequestLog};
use crate::http::api::upgrade::Reply;
use crate::http::read::long_poll::{BegunRead, HeldRead, ReadStart, StartingRead};
use crate::http::read::request::Read;
use crate::stream::{Append, AppendError, Appended, StreamName};

/// The pending response to one HTTP/1 request. Dropping it cancels the request: a held poll leaves its wait queue.
pub(super) struct PendingResponse<'a>(PendingState<'a>);

/// What a request gets at first.
pub(super) enum Begun<'a> {
    /// The response: there was nothing to wait for.
    Answered(ResponseBytes),
    Pending(PendingResponse<'a>),
}

impl<'a> Begun<'a> {
    /// The response as one that is polled, maybe later.
    pub(super) fn into_pending(self) -> PendingResponse<'a> {
        match self {
            Self::Answered(response) => PendingResponse::ready(response),
            Self::Pending(response) => response,
        }
    }
}

enum PendingState<'a> {
    Ready(Option<Box<ResponseBytes>>),
    PendingAnswer(PendingAnswer<'a>),
    Reading {
        gateway: &'a Gateway,
        log: RequestLog,
        stage: ReadStage<'a>,
    },
    /// A BOSH request, which waits like a held poll.
    Bosh {
        gateway: &'a Gateway,
        log: RequestLog,
        exchange: Box<dyn BoshExchange>,
    },
}

type PendingAnswer<'a> = Pin<Box<dyn Future<Output = Reply<ResponseBytes>> + Send + 'a>>;

enum ReadStage<'a> {
    /// The read has begun. Most reads are answered at the first poll.
    Starting(StartingRead<'a, ResponseBytes>),
    /// A held poll. It is not a future, which would take more memory.
    Held(Box<HeldRead<'a>>),
}

impl<'a> PendingResponse<'a> {
    /// A response that is already complete.
    pub(super) fn ready(response: ResponseBytes) -> Self {
        Self(PendingState::Ready(Some(Box::new(response))))
    }

    /// Begins to answer a request.
    pub(super) fn begin(
        gateway: &'a Gateway,
        request: GatewayRequest,
        state: &'a Arc<ConnectionState>,
    ) -> Begun<'a> {
        let GatewayRequest { operation, mut log } = request;
        log.came_from(state);
        let pending = match operation {
            Ok(Operation::Read(read)) => return begin_read(gateway, read, state, log),
            Ok(Operation::Bosh(request)) => {
                PendingState::Bosh { gateway, log, exchange: request.begin(state) }
            }
            // A future for appends alone is smaller than one for all operations.
            Ok(Operation::OnStream(name, OnStream::Append(mut append))) if log.span().is_none() => {
                append.principal = append.principal.or(state.principal());
                return begin_append(gateway, name, append, log);
            }
            // A future that covers all operations.
            operation => {
                let reply = gateway.respond(GatewayRequest { operation, log }, state);
                PendingState::PendingAnswer(Box::pin(reply))
            }
        };
        Begun::Pending(Self(pending))
    }

    /// How the client has to end its connection for this response to be affected.
    pub(super) fn leaves_by(&self) -> LeavesBy {
        match &self.0 {
            PendingState::Reading { stage: ReadStage::Held(held), .. } if !held.has_ended() => LeavesBy::Fin,
            PendingState::Bosh { exchange, .. } if !exchange.has_ended() => LeavesBy::Fin,
            PendingState::Reading { .. }
            | PendingState::Bosh { .. }
            | PendingState::PendingAnswer(_)
            | PendingState::Ready(_) => LeavesBy::Reset,
        }
    }

    /// Ends a held poll early: its client will send no more, and might be gone.
    pub(super) fn end(&mut self) {
        match &mut self.0 {
            PendingState::Reading { stage: ReadStage::Held(held), .. } => held.end(),
            PendingState::Bosh { exchange, .. } => exchange.end(),
            _ => {}
        }
    }

    /// Polls for the response, which is returned once. `timer` is the timer of the connection.
    pub(super) fn poll(
        &mut self,
        timer: &mut ReusableSleep,
        cx: &mut Context<'_>,
    ) -> Poll<Reply<ResponseBytes>> {
        match &mut self.0 {
            PendingState::Ready(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Reply::http(*response)))
            }
            PendingState::PendingAnswer(reply) => reply.as_mut().poll(cx),
            PendingState::Reading { gateway, log, stage } => {
                let entered = log.span().map(Span::enter);
                let outcome = ready!(stage.poll(timer, cx));
                drop(entered);
                Poll::Ready(Reply::http(gateway.finish(log, outcome)))
            }
            PendingState::Bosh { gateway, log, exchange } => {
                let body = ready!(exchange.poll_response(timer, cx));
                Poll::Ready(Reply::http(gateway.finish(log, Ok(answer_of(body)))))
            }
        }
    }
}

fn begin_read<'a>(
    gateway: &'a Gateway,
    read: Read,
    state: &'a Arc<ConnectionState>,
    mut log: RequestLog,
) -> Begun<'a> {
    let entered = log.span().map(Span::enter);
    let begun = gateway.begin_read(read, state, log.origin);
    drop(entered);
    let stage = match begun {
        BegunRead::Starting(read) => ReadStage::Starting(read),
        BegunRead::AtOnce(Ok(ReadStart::Held(held))) => ReadStage::Held(Box::new(held)),
        BegunRead::AtOnce(Ok(ReadStart::Answered(response))) => {
            return Begun::Answered(gateway.finish(&mut log, Ok(response)));
        }
        BegunRead::AtOnce(Err(error)) => return Begun::Answered(gateway.finish(&mut log, Err(error))),
    };
    Begun::Pending(PendingResponse(PendingState::Reading { gateway, log, stage }))
}

fn begin_append<'a>(
    gateway: &'a Gateway,
    name: StreamName,
    append: Box<Append>,
    mut log: RequestLog,
) -> Begun<'a> {
    let answer = AppendAnswer::to(&append);
    let finish = move |log: &mut RequestLog, outcome: Result<Appended, AppendError>| {
        if outcome.as_ref().is_ok_and(|appended| appended.created) {
            log.has_created();
        }
        gateway.finish(log, outcome.map(|appended| answer.write(&appended)).map_err(Error::from))
    };
    match gateway.hub.publish_at_once(&name, append) {
        Ok(outcome) => Begun::Answered(finish(&mut log, outcome)),
        Err(pending) => {
            let reply = async move {
                let outcome = gateway.hub.publish_pending(&name, pending).await;
                Reply::http(finish(&mut log, outcome))
            };
            Begun::Pending(PendingResponse(PendingState::PendingAnswer(Box::pin(reply))))
        }
    }
}

impl<'a> ReadStage<'a> {
    fn poll(
        &mut self,
        timer: &mut ReusableSleep,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseBytes, Error>> {
        loop {
            match self {
                Self::Starting(read) => match ready!(read.as_mut().poll(cx))? {
                    ReadStart::Answered(response) => return Poll::Ready(Ok(response)),
                    ReadStart::Held(held) => *self = Self::Held(Box::new(held)),
                },
                Self::Held(held) => return held.poll(timer, cx),
            }
        }
    }
}
