//! The HTTP front: bytes to typed requests, one handler per operation and delivery form, one error mapping.
//!
//! Handlers never read header fields: `request` has turned them into values before.

pub mod admin;
mod answer;
mod append;
mod body;
mod create;
mod delete;
mod error;
mod fields;
mod head;
mod long_poll;
mod preflight;
mod query;
mod request;
mod short_poll;
mod sse;
mod upload;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

pub use body::{Body, sse_event};
pub use error::Problem;

use crate::clock::Clock;
use crate::hub::{ClientId, Hub};
use crate::limits::Limits;
use crate::metrics::{Form, Metrics};
use crate::stream::StreamName;
use error::Error;
use request::Read;

/// Where streams live.
const STREAMS: &str = "/v1/stream/";

/// What the server knows of the connection that a request came on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions {
    /// The connection is one too many: answer 503 and close it.
    pub refuse: bool,
    /// The request has both `Content-Length` and `Transfer-Encoding`, or hides whether it has.
    pub ambiguous_length: bool,
}

/// The front: answers requests from the hub.
pub struct Gateway {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Gateway {
    /// A front of `hub`.
    pub fn new(hub: Arc<Hub>, limits: Arc<Limits>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { hub, limits, metrics, clock }
    }

    /// Answers one request. Every failure is an answer too.
    ///
    /// Cancel safe: a client that leaves while its poll is held takes the waiter with it.
    pub async fn answer(&self, request: Request<Incoming>, conditions: Conditions) -> Response<Body> {
        let since = Instant::now();
        let version = request.version();
        let span = tracing::debug_span!("request", form = Empty, stream = Empty, client = Empty);
        let (form, outcome) = self.route(request, conditions).instrument(span.clone()).await;
        let mut answer = outcome.unwrap_or_else(Error::into_answer);
        let refused = conditions.refuse || conditions.ambiguous_length;
        if version < Version::HTTP_2 && (refused || self.hub.is_draining()) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let status = answer.status().as_u16();
        self.metrics.request(form, status);
        span.in_scope(|| tracing::debug!(status, held_ms = since.elapsed().as_millis() as u64, "answered"));
        answer
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        conditions: Conditions,
    ) -> (Form, Result<Response<Body>, Error>) {
        let form = match *request.method() {
            Method::PUT => Form::Create,
            Method::POST => Form::Append,
            Method::GET => Form::ShortPoll,
            Method::HEAD => Form::Head,
            Method::DELETE => Form::Delete,
            Method::OPTIONS => Form::Preflight,
            _ => Form::Other,
        };
        let name = match self.admit(&request, conditions).and_then(|()| stream_name(request.uri().path())) {
            Ok(name) => name,
            Err(error) => return (form, Err(error)),
        };
        let span = tracing::Span::current();
        span.record("stream", name.as_str());
        let (head, body) = request.into_parts();
        let outcome = match form {
            Form::Create => self.create(name, &head, body).await,
            Form::Append => self.append(name, &head, body).await,
            Form::Head => self.head(name).await,
            Form::Delete => self.delete(name).await,
            Form::Preflight => Ok(preflight::allow()),
            Form::ShortPoll | Form::LongPoll | Form::Sse => match Read::parse(&head, &self.limits) {
                Ok(read) => {
                    span.record("form", read.form().as_str());
                    span.record("client", read.client().map(ClientId::as_str));
                    return (read.form(), self.read(name, read).await);
                }
                Err(error) => Err(error),
            },
            Form::Other => Err(Error::MethodNotAllowed),
        };
        span.record("form", form.as_str());
        (form, outcome)
    }

    fn admit(&self, request: &Request<Incoming>, conditions: Conditions) -> Result<(), Error> {
        if conditions.refuse {
            return Err(Error::TooManyConnections);
        }
        if conditions.ambiguous_length {
            return Err(Error::AmbiguousLength);
        }
        let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next()
            && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        {
            return Err(Error::TransferEncoding);
        }
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target > self.limits.target_bytes_max {
            return Err(Error::TargetTooLong { max: self.limits.target_bytes_max });
        }
        Ok(())
    }

    async fn read(&self, name: StreamName, read: Read) -> Result<Response<Body>, Error> {
        match read {
            Read::ShortPoll(poll) => self.short_poll(name, poll).await,
            Read::LongPoll(poll) => self.long_poll(name, poll).await,
            Read::Sse(tail) => self.sse(name, tail).await,
        }
    }
}

/// The stream that a path names. Percent-encoded octets are decoded once; dot segments are never resolved.
fn stream_name(path: &str) -> Result<StreamName, Error> {
    let encoded = path.strip_prefix(STREAMS).ok_or(Error::NoSuchPath)?;
    let decoded =
        percent_encoding::percent_decode_str(encoded).decode_utf8().map_err(|_| Error::NameNotUtf8)?;
    if decoded.split('/').next() == Some("__ds") {
        return Err(Error::Reserved);
    }
    Ok(StreamName::parse(&decoded)?)
}

/// An answer with a status and nothing else yet.
fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}
