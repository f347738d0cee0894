//! From a typed request to its response: one handler per operation, and what all responses have in common.

use std::sync::Arc;

use tracing::Instrument;

use super::error::Error;
use super::gateway::Gateway;
use super::handlers::{STREAM_METHODS, preflight};
use super::operation::RequestLog;
use super::operation::{GatewayRequest, OnStream, Operation};
use super::routes::STREAMS_METHODS;
use super::upgrade::Reply;
use crate::http::conn::{Answer, ConnectionState, Framing};

impl Gateway {
    /// Answers one request. Every failure is a response too.
    ///
    /// Cancel safe: dropping the future takes a held poll from its wait queue.
    pub(in crate::http) async fn respond<A: Answer>(
        &self,
        request: GatewayRequest,
        state: &Arc<ConnectionState>,
    ) -> Reply<A> {
        let GatewayRequest { operation, log } = request;
        let outcome = match (operation, &log.trace) {
            (Ok(operation), Some(trace)) => {
                self.perform(operation, state).instrument(trace.span.clone()).await
            }
            (Ok(operation), None) => self.perform(operation, state).await,
            (Err(error), _) => Err(error),
        };
        let (outcome, upgrade) = match outcome {
            Ok(Reply { answer, upgrade }) => (Ok(answer), upgrade),
            Err(error) => (Err(error), None),
        };
        Reply { answer: self.finish(&log, outcome), upgrade }
    }

    /// The response of an outcome, counted and logged.
    pub(in crate::http) fn finish<A: Answer>(&self, log: &RequestLog, outcome: Result<A, Error>) -> A {
        let mut answer = outcome.unwrap_or_else(|error| A::from(error.into_answer()));
        let keep_alive = log.framing.keep_alive && !self.hub.is_draining();
        answer.frame(Framing { keep_alive, ..log.framing }, self.clock.now());
        let status = answer.status().as_u16();
        self.forms.answered(log.form, status);
        if let Some(trace) = &log.trace {
            let held_ms = trace.since.elapsed().as_millis() as u64;
            trace.span.in_scope(|| tracing::debug!(status, held_ms, "answered"));
        }
        answer
    }

    async fn perform<A: Answer>(
        &self,
        operation: Operation,
        state: &Arc<ConnectionState>,
    ) -> Result<Reply<A>, Error> {
        let (name, operation) = match operation {
            Operation::OnStream(name, operation) => (name, operation),
            Operation::WebSocket(socket) => {
                return Box::pin(self.upgrade_to_websocket(*socket, state)).await;
            }
            Operation::Read(read) => return self.read(read, state).await.map(Reply::http),
            Operation::GetFile(get) => return Ok(Reply::http(get.answer().into())),
            Operation::PreflightMany => return Ok(Reply::http(preflight(STREAMS_METHODS).into())),
            Operation::Mqtt(handshake) => return self.upgrade_to_mqtt(&handshake),
        };
        let answer = match operation {
            OnStream::Append(append) => {
                return Box::pin(self.append(name, *append)).await.map(Reply::http);
            }
            OnStream::Create(put, body) => Box::pin(self.create(name, *put, body)).await,
            OnStream::Head => self.head(name).await,
            OnStream::Delete => self.delete(name).await,
            OnStream::Preflight => Ok(preflight(STREAM_METHODS)),
        };
        answer.map(|answer| Reply::http(A::from(answer)))
    }
}
