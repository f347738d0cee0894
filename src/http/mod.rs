//! The HTTP front: bytes to typed requests, one handler per operation and delivery form, one error mapping.
//!
//! Handlers never read header fields: `request` has turned them into values before.

pub mod admin;
mod answer;
mod append;
mod body;
mod create;
mod date;
mod delete;
mod direct;
mod envelope;
mod error;
mod fields;
mod form;
mod head;
mod link;
mod live;
mod long_poll;
mod mqtt;
mod open_socket;
mod origin;
mod preflight;
mod query;
mod read;
mod request;
mod resume_token;
mod routes;
mod short_poll;
mod sse;
mod switch;
mod upload;
mod waiting;
mod web;
mod websocket;
mod written;

use std::sync::Arc;

use hyper::header::CONNECTION;
use hyper::{Response, StatusCode};
use tokio::time::Instant;
use tracing::{Instrument, Span};

pub use body::Body;
pub use direct::{DIRECT_BYTES_MAX, Heard};
pub use error::Problem;
pub use link::Link;
pub use mqtt::Tunnel;
pub use origin::Origins;
pub use request::HoldPolicy;
pub use routes::{Conditions, Parsed};
pub use sse::event as sse_event;
pub use waiting::Waiting;
pub use written::{Outgoing, Written};

use crate::clock::Clock;
use crate::hub::{ClientId, Hub};
use crate::limits::Limits;
use crate::metrics::Metrics;
use error::Error;
use form::{Form, FormMetrics};
use request::Read;
use routes::{Asked, OnStream, Operation};
use written::Answer;

/// The front: answers requests from the hub.
pub struct Gateway {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    holds: HoldPolicy,
    metrics: Arc<Metrics>,
    forms: FormMetrics,
    clock: Clock,
    origins: Origins,
    tunnel: Tunnel,
}

impl Gateway {
    /// A front of `hub`; `tunnel` serves WebSockets that speak MQTT.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        holds: HoldPolicy,
        metrics: Arc<Metrics>,
        clock: Clock,
        origins: Origins,
        tunnel: Tunnel,
    ) -> Self {
        let forms = FormMetrics::new(metrics.clone());
        Self { hub, limits, holds, metrics, forms, clock, origins, tunnel }
    }

    /// Takes in what has to be there before it is clear what is asked for: the body of a request for many streams.
    pub async fn prepare(&self, request: Parsed) -> Prepared {
        let Parsed { form, http1, refused, link, asked } = request;
        let operation = match asked {
            Ok(Asked::Whole(operation)) => Ok(operation),
            Ok(Asked::Post(post, body)) => Box::pin(self.posted(post, body)).await,
            Err(error) => Err(error),
        };
        Prepared { noted: Noted { http1, refused, ..self.note(form, &operation) }, operation, link }
    }

    /// The same for a request of which all is there.
    fn prepared(&self, form: Form, operation: Result<Operation, Error>, link: Arc<Link>) -> Prepared {
        Prepared { noted: self.note(form, &operation), operation, link }
    }

    fn note(&self, form: Form, operation: &Result<Operation, Error>) -> Noted {
        let form = operation.as_ref().ok().and_then(Operation::form).unwrap_or(form);
        let stream = operation.as_ref().map_or("", |operation| operation.stream());
        let client = operation.as_ref().ok().and_then(Operation::client).map(ClientId::as_str);
        let span = tracing::debug_span!("request", form = form.as_str(), stream, client);
        let recorded = (!span.is_disabled()).then(|| Box::new(Recorded { span, since: Instant::now() }));
        Noted { form, http1: true, refused: false, recorded }
    }

    /// Answers one request. Every failure is an answer too.
    ///
    /// Cancel safe: a client that leaves while its poll is held takes the waiter with it.
    pub async fn answer(&self, request: Prepared) -> Response<Body> {
        self.answer_as(request).await
    }

    async fn answer_as<A: Answer>(&self, request: Prepared) -> A {
        let Prepared { operation, link, noted } = request;
        let outcome = match (operation, &noted.recorded) {
            (Ok(operation), Some(recorded)) => {
                self.perform(operation, link).instrument(recorded.span.clone()).await
            }
            (Ok(operation), None) => self.perform(operation, link).await,
            (Err(error), _) => Err(error),
        };
        self.finish(&noted, outcome)
    }

    /// The answer of an outcome, counted and logged.
    fn finish<A: Answer>(&self, noted: &Noted, outcome: Result<A, Error>) -> A {
        let mut answer = outcome.unwrap_or_else(|error| A::from(error.into_answer()));
        let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if noted.http1 && !switches && (noted.refused || self.hub.is_draining()) {
            answer.put_static(CONNECTION, "close");
        }
        // What waits may be taken from hyper, which dates only what it writes (RFC 9110, section 6.6.1).
        if A::NEEDS_DATE || noted.waits() {
            written::date(&mut answer, self.clock.now());
        }
        let status = answer.status().as_u16();
        self.forms.answered(noted.form, status);
        if let Some(recorded) = &noted.recorded {
            let held_ms = recorded.since.elapsed().as_millis() as u64;
            recorded.span.in_scope(|| tracing::debug!(status, held_ms, "answered"));
        }
        answer
    }

    /// Every connection has room for this future, so all but the short poll, which is asked most often, are boxed.
    async fn perform<A: Answer>(&self, operation: Operation, link: Arc<Link>) -> Result<A, Error> {
        let (name, operation) = match operation {
            Operation::OnStream(name, operation) => (name, operation),
            Operation::Read(Read::ShortPoll(poll)) => return self.short_poll(poll).await,
            Operation::Read(read) => return Box::pin(self.read(read, link)).await,
            Operation::GetFile(get) => return Ok(A::from(get.answer())),
            Operation::PreflightMany => return Ok(A::from(preflight::allow(routes::METHODS_MANY))),
            Operation::Mqtt(handshake) => return self.mqtt(*handshake, link).map(A::from),
        };
        let answer = match operation {
            OnStream::Append(append, body) => return Box::pin(self.append(name, *append, body)).await,
            OnStream::Create(put, body) => Box::pin(self.create(name, *put, body)).await,
            OnStream::Head => self.head(name).await,
            OnStream::Delete => self.delete(name).await,
            OnStream::Preflight => Ok(preflight::allow(preflight::METHODS)),
        };
        answer.map(A::from)
    }
}

/// A request of which it is clear what is asked for.
pub struct Prepared {
    operation: Result<Operation, Error>,
    link: Arc<Link>,
    noted: Noted,
}

/// What is kept of a request until it is answered.
struct Noted {
    form: Form,
    http1: bool,
    refused: bool,
    /// `None`: nobody records the request's span, so it is not worth the time and the room.
    recorded: Option<Box<Recorded>>,
}

/// The span of a request that is logged.
struct Recorded {
    span: Span,
    since: Instant,
}

impl Prepared {
    /// Whether the answer may take long to come, as that to a long poll, or to end, as a stream of events.
    pub fn waits(&self) -> bool {
        self.operation.is_ok() && self.noted.waits()
    }
}

impl Noted {
    fn waits(&self) -> bool {
        matches!(self.form, Form::LongPoll | Form::Sse | Form::Ndjson)
    }
}

/// An answer with a status and nothing else yet.
fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}
