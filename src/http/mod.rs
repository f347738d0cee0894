//! The HTTP front: connections, typed requests, one handler per operation and delivery form, one error mapping.
//!
//! Handlers never read header fields: `request` has turned them into values before.

pub mod admin;
mod answer;
mod append;
pub mod conn;
mod control;
mod create;
mod delete;
mod envelope;
mod error;
mod fields;
mod head;
mod live;
mod long_poll;
mod ndjson;
mod origin;
mod preflight;
mod query;
mod request;
mod routes;
mod short_poll;
mod sse;
mod streams;
mod upgrade;
mod upload;
mod web;
mod websocket;

use std::sync::Arc;

use hyper::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{Instrument, Span};

pub use envelope::envelope;
pub use error::Problem;
pub use origin::Origins;
pub use sse::event as sse_event;

use crate::clock::Clock;
use crate::hub::{ClientId, Hub};
use crate::limits::Limits;
use crate::metrics::{Form, Metrics};
use conn::{Answer, Body, ConnectionState, Framing, MqttSocket};
use error::Error;
use request::Read;
use routes::{GatewayRequest, OnStream, Operation};
use upgrade::Upgrade;

/// The front: answers requests from the hub.
pub struct Gateway {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    clock: Clock,
    origins: Origins,
    mqtt_sockets: mpsc::Sender<MqttSocket>,
}

/// A response, and what the connection speaks behind it if that is not HTTP.
struct Reply<A> {
    answer: A,
    upgrade: Option<Upgrade>,
}

impl<A> Reply<A> {
    /// A response behind which the connection goes on speaking HTTP.
    fn http(answer: A) -> Self {
        Self { answer, upgrade: None }
    }
}

impl Gateway {
    /// A front of `hub`. WebSockets that speak MQTT are sent to `mqtt_sockets`.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        clock: Clock,
        origins: Origins,
        mqtt_sockets: mpsc::Sender<MqttSocket>,
    ) -> Self {
        Self { hub, limits, metrics, clock, origins, mqtt_sockets }
    }

    /// What is kept of a request for its log entry and its metrics.
    fn log(&self, form: Form, operation: &Result<Operation, Error>, framing: Framing) -> RequestLog {
        let form = operation.as_ref().ok().and_then(Operation::form).unwrap_or(form);
        let stream = operation.as_ref().map_or("", |operation| operation.stream());
        let client = operation.as_ref().ok().and_then(Operation::client).map(ClientId::as_str);
        let span = tracing::debug_span!("request", form = form.as_str(), stream, client);
        let trace = (!span.is_disabled()).then(|| Box::new(Trace { span, since: Instant::now() }));
        RequestLog { form, framing, trace }
    }

    /// Answers one request. Every failure is a response too.
    ///
    /// Cancel safe: dropping the future takes a held poll from its wait queue.
    async fn respond<A: Answer>(&self, request: GatewayRequest, state: &Arc<ConnectionState>) -> Reply<A> {
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
    fn finish<A: Answer>(&self, log: &RequestLog, outcome: Result<A, Error>) -> A {
        let mut answer = outcome.unwrap_or_else(|error| A::from(error.into_answer()));
        let keep_alive = log.framing.keep_alive && !self.hub.is_draining();
        answer.frame(Framing { keep_alive, ..log.framing }, self.clock.now());
        let status = answer.status().as_u16();
        self.metrics.request(log.form, status);
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
            Operation::ReadMany(read) => return Box::pin(self.read_many(*read, state.clone())).await,
            Operation::GetFile(get) => return Ok(Reply::http(get.answer().into())),
            Operation::PreflightMany => return Ok(Reply::http(preflight::allow(streams::METHODS).into())),
            Operation::Mqtt(handshake) => return self.upgrade_to_mqtt(&handshake),
        };
        let answer = match operation {
            OnStream::Read(Read::WebSocket(socket)) => {
                return Box::pin(self.websocket(name, *socket, state.clone())).await;
            }
            OnStream::Read(Read::ShortPoll(poll)) => {
                return self.short_poll(name, poll).await.map(Reply::http);
            }
            OnStream::Read(Read::LongPoll(poll)) => {
                return Box::pin(self.long_poll(name, poll)).await.map(Reply::http);
            }
            OnStream::Append(post, body) => {
                return Box::pin(self.append(name, *post, body)).await.map(Reply::http);
            }
            OnStream::Read(Read::Sse(live)) => Box::pin(self.sse(name, live, state.clone())).await,
            OnStream::Read(Read::Ndjson(live)) => Box::pin(self.ndjson(name, live, state.clone())).await,
            OnStream::Create(put, body) => Box::pin(self.create(name, *put, body)).await,
            OnStream::Head => self.head(name).await,
            OnStream::Delete => self.delete(name).await,
            OnStream::Preflight => Ok(preflight::allow(preflight::METHODS)),
        };
        answer.map(|answer| Reply::http(A::from(answer)))
    }
}

/// What is kept of a request until it is answered.
struct RequestLog {
    form: Form,
    framing: Framing,
    /// `None`: nobody records spans at this level, so that one is not worth its time and memory.
    trace: Option<Box<Trace>>,
}

/// The span of a request, and when the request was complete.
struct Trace {
    span: Span,
    since: Instant,
}

impl RequestLog {
    fn is_traced(&self) -> bool {
        self.trace.is_some()
    }
}

/// A response with a status and nothing else yet.
fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}
