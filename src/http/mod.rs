//! The HTTP front: bytes to typed requests, one handler per operation and delivery form, one error mapping.
//!
//! Handlers never read header fields: `request` has turned them into values before.

pub mod admin;
mod answer;
mod append;
mod body;
mod control;
mod create;
mod delete;
mod envelope;
mod error;
mod fields;
mod head;
mod link;
mod live;
mod long_poll;
mod mqtt;
mod ndjson;
mod origin;
mod preflight;
mod query;
mod request;
mod routes;
mod short_poll;
mod sse;
mod streams;
mod switch;
mod upload;
mod websocket;

use std::sync::Arc;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::Instant;
use tracing::Instrument;

pub use body::Body;
pub use envelope::envelope;
pub use error::Problem;
pub use link::Link;
pub use mqtt::Tunnel;
pub use origin::Origins;
pub use routes::{Conditions, Parsed};
pub use sse::event as sse_event;

use crate::clock::Clock;
use crate::hub::{ClientId, Hub};
use crate::limits::Limits;
use crate::metrics::Metrics;
use error::Error;
use request::Read;
use routes::{Asked, OnStream, Operation};

/// The front: answers requests from the hub.
pub struct Gateway {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    clock: Clock,
    origins: Origins,
    tunnel: Tunnel,
}

impl Gateway {
    /// A front of `hub`; `tunnel` serves WebSockets that speak MQTT.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        clock: Clock,
        origins: Origins,
        tunnel: Tunnel,
    ) -> Self {
        Self { hub, limits, metrics, clock, origins, tunnel }
    }

    /// Answers one request. Every failure is an answer too.
    ///
    /// Cancel safe: a client that leaves while its poll is held takes the waiter with it.
    pub async fn answer(&self, request: Parsed) -> Response<Body> {
        let Parsed { form, http1, refused, link, asked } = request;
        let operation = match asked {
            Ok(Asked::Whole(operation)) => Ok(operation),
            Ok(Asked::Post(post, body)) => Box::pin(self.posted(post, body)).await,
            Err(error) => Err(error),
        };
        let form = operation.as_ref().ok().and_then(Operation::form).unwrap_or(form);
        let stream = operation.as_ref().map_or("", |operation| operation.stream());
        let client = operation.as_ref().ok().and_then(Operation::client);
        let client = client.map(ClientId::as_str);
        let span = tracing::debug_span!("request", form = form.as_str(), stream, client);
        // A span that nobody records is not worth the time that it takes.
        let recorded = (!span.is_disabled()).then(Instant::now);
        let outcome = match operation {
            Ok(operation) if recorded.is_some() => {
                self.perform(operation, link).instrument(span.clone()).await
            }
            Ok(operation) => self.perform(operation, link).await,
            Err(error) => Err(error),
        };
        let mut answer = outcome.unwrap_or_else(Error::into_answer);
        let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if http1 && !switches && (refused || self.hub.is_draining()) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let status = answer.status().as_u16();
        self.metrics.request(form, status);
        if let Some(since) = recorded {
            let held_ms = since.elapsed().as_millis() as u64;
            span.in_scope(|| tracing::debug!(status, held_ms, "answered"));
        }
        answer
    }

    /// Every connection has room for this future, so all but the short poll, which is asked most often, are boxed.
    async fn perform(&self, operation: Operation, link: Arc<Link>) -> Result<Response<Body>, Error> {
        let (name, operation) = match operation {
            Operation::OnStream(name, operation) => (name, operation),
            Operation::ReadMany(read) => return Box::pin(self.read_many(*read, link)).await,
            Operation::PreflightMany => return Ok(preflight::allow(streams::METHODS)),
            Operation::Mqtt(handshake) => return self.mqtt(*handshake, link),
        };
        match operation {
            OnStream::Read(Read::ShortPoll(poll)) => self.short_poll(name, poll).await,
            OnStream::Read(Read::LongPoll(poll)) => Box::pin(self.long_poll(name, poll)).await,
            OnStream::Read(Read::Sse(live)) => Box::pin(self.sse(name, live, link)).await,
            OnStream::Read(Read::Ndjson(live)) => Box::pin(self.ndjson(name, live, link)).await,
            OnStream::Read(Read::WebSocket(socket)) => Box::pin(self.websocket(name, *socket, link)).await,
            OnStream::Create(put, body) => Box::pin(self.create(name, *put, body)).await,
            OnStream::Append(post, body) => Box::pin(self.append(name, *post, body)).await,
            OnStream::Head => self.head(name).await,
            OnStream::Delete => self.delete(name).await,
            OnStream::Preflight => Ok(preflight::allow(preflight::METHODS)),
        }
    }
}

/// An answer with a status and nothing else yet.
fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}
