//! The pending response to an HTTP/1 request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::io::{ConnectionState, LeavesBy};
use super::response::ResponseBytes;
use crate::clock::ReusableSleep;
use crate::http::api::error::Error;
use crate::http::api::gateway::Gateway;
use crate::http::api::operation::RequestLog;
use crate::http::api::operation::{GatewayRequest, OnStream, Operation};
use crate::http::api::upgrade::Reply;
use crate::http::read::StartingRead;
use crate::http::read::long_poll::{HeldRead, ReadStart};

/// The pending response to one HTTP/1 request. Dropping it cancels the request: a held poll leaves its wait queue.
pub(super) struct PendingResponse<'a>(PendingState<'a>);

enum PendingState<'a> {
    Ready(Option<ResponseBytes>),
    PendingAnswer(PendingAnswer<'a>, LeavesBy),
    Reading { gateway: &'a Gateway, log: RequestLog, stage: ReadStage<'a> },
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
        Self(PendingState::Ready(Some(response)))
    }

    /// Begins to answer a request.
    pub(super) fn of(gateway: &'a Gateway, request: GatewayRequest, state: &'a Arc<ConnectionState>) -> Self {
        if request.log.span().is_some() {
            return Self::any(gateway, request, state);
        }
        let GatewayRequest { operation, mut log } = request;
        log.came_from(state);
        match operation {
            Ok(Operation::Read(read)) => {
                let stage = ReadStage::Starting(gateway.begin_read(read, state, log.origin));
                Self(PendingState::Reading { gateway, log, stage })
            }
            // A future for appends alone is smaller than one for all operations.
            Ok(Operation::OnStream(name, OnStream::Append(mut append))) => {
                append.principal = state.principal();
                let reply =
                    async move { Reply::http(gateway.finish(&mut log, gateway.append(name, *append).await)) };
                Self(PendingState::PendingAnswer(Box::pin(reply), LeavesBy::Reset))
            }
            operation => Self::any(gateway, GatewayRequest { operation, log }, state),
        }
    }

    /// Begins to answer a request of any kind, in a future that covers all operations.
    fn any(gateway: &'a Gateway, request: GatewayRequest, state: &'a Arc<ConnectionState>) -> Self {
        let may_be_held = matches!(request.operation, Ok(Operation::Read(_)));
        let leaves_by = if may_be_held { LeavesBy::Fin } else { LeavesBy::Reset };
        Self(PendingState::PendingAnswer(Box::pin(gateway.respond(request, state)), leaves_by))
    }

    /// How the client has to end its connection for this response to be dropped.
    pub(super) fn leaves_by(&self) -> LeavesBy {
        match &self.0 {
            PendingState::Reading { stage: ReadStage::Held(_), .. } => LeavesBy::Fin,
            PendingState::Reading { stage: ReadStage::Starting(_), .. } | PendingState::Ready(_) => {
                LeavesBy::Reset
            }
            PendingState::PendingAnswer(_, leaves_by) => *leaves_by,
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
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Reply::http(response)))
            }
            PendingState::PendingAnswer(reply, _) => reply.as_mut().poll(cx),
            PendingState::Reading { gateway, log, stage } => {
                let outcome = ready!(stage.poll(timer, cx));
                Poll::Ready(Reply::http(gateway.finish(log, outcome)))
            }
        }
    }
}

impl ReadStage<'_> {
    fn poll(
        &mut self,
        timer: &mut ReusableSleep,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseBytes, Error>> {
        loop {
            match self {
                Self::Starting(read) => match ready!(read.as_mut().poll(cx))? {
                    ReadStart::Answered(response) => return Poll::Ready(Ok(response)),
                    ReadStart::Held(mut held) => {
                        held.read_before_publisher_returns();
                        *self = Self::Held(Box::new(held));
                    }
                },
                Self::Held(held) => return held.poll(timer, cx),
            }
        }
    }
}
