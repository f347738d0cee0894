//! Dispatches a typed request to the handler of its operation, and finishes the response.

use std::sync::Arc;

use tracing::Instrument;

use super::error::Error;
use super::gateway::Gateway;
use super::operation::{GatewayRequest, OnStream, Operation};
use super::origins::AllowedOrigin;
use super::upgrade::Reply;
use crate::http::conn::{Answer, ConnectionState};

impl Gateway {
    /// Answers one request. An error becomes a response too.
    ///
    /// Cancel safe: dropping the future removes a held poll from its wait queue.
    pub(in crate::http) async fn respond<A: Answer>(
        &self,
        request: GatewayRequest,
        state: &Arc<ConnectionState>,
    ) -> Reply<A> {
        let GatewayRequest { operation, mut log } = request;
        log.came_from(state);
        let mut has_created = false;
        let outcome = match (operation, log.span()) {
            (Ok(operation), Some(span)) => {
                let performed = self.perform(operation, state, log.origin, &mut has_created);
                performed.instrument(span.clone()).await
            }
            (Ok(operation), None) => self.perform(operation, state, log.origin, &mut has_created).await,
            (Err(error), _) => Err(error),
        };
        if has_created {
            log.has_created();
        }
        let (outcome, mut upgrade) = match outcome {
            Ok(Reply { answer, upgrade }) => (Ok(answer), upgrade),
            Err(error) => (Err(error), None),
        };
        if let Some(upgrade) = &mut upgrade {
            upgrade.log(log.take_access());
        }
        Reply { answer: self.finish(&mut log, outcome), upgrade }
    }

    async fn perform<A: Answer>(
        &self,
        operation: Operation,
        state: &Arc<ConnectionState>,
        origin: Option<AllowedOrigin>,
        has_created: &mut bool,
    ) -> Result<Reply<A>, Error> {
        let (name, operation) = match operation {
            Operation::OnStream(name, operation) => (name, operation),
            Operation::WebSocket(socket) => {
                return Box::pin(self.upgrade_to_websocket(*socket, state)).await;
            }
            Operation::Read(read) => return self.read(read, state, origin).await.map(Reply::http),
            Operation::GetFile(get) => return Ok(Reply::http(get.answer().into())),
            Operation::Options(options) => return Ok(Reply::http(options.answer().into())),
            Operation::Subprotocol(subprotocol, handshake) => {
                return self.upgrade_to_subprotocol(subprotocol, &handshake);
            }
            Operation::Bosh(request) => return Ok(Reply::http(request.answer(state).await)),
            Operation::Device(request) => {
                let answered = Box::pin(self.devices(request, state.principal())).await;
                return answered.map(|answer| Reply::http(answer.into()));
            }
            Operation::Cookie(request) => return Ok(Reply::http(request.answer().into())),
            Operation::Subscription(mut request) => {
                request.principal = request.principal.or(state.principal());
                let answered = Box::pin(self.manage_subscription(*request)).await;
                return answered.map(|answer| Reply::http(answer.into()));
            }
            Operation::Names(request) => {
                let answered = Box::pin(self.names(&request)).await;
                return answered.map(|answer| Reply::http(answer.into()));
            }
            Operation::Ticket(request) => {
                return self.issue_ticket(&request).map(|answer| Reply::http(answer.into()));
            }
        };
        let answer = match operation {
            OnStream::Append(mut append) => {
                append.principal = append.principal.or(state.principal());
                return Box::pin(self.append(name, append, has_created)).await.map(Reply::http);
            }
            OnStream::Create(put, body) => Box::pin(self.create(name, *put, body, state.principal())).await,
            OnStream::Head { may_manage } => self.head(name, may_manage).await,
            OnStream::Delete => self.delete(name).await,
        };
        answer.map(|answer| Reply::http(A::from(answer)))
    }
}
