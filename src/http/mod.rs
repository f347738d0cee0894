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

pub use body::{Body, sse_event};
pub use error::Problem;

use crate::clock::Clock;
use crate::hub::{ClientId, Hub};
use crate::limits::Limits;
use crate::metrics::{Form, Metrics};
use crate::stream::StreamName;
use error::Error;
use request::{Post, Put, Read};

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

/// A request whose target and fields have become values.
pub struct Parsed {
    form: Form,
    since: Instant,
    http1: bool,
    refused: bool,
    operation: Result<(StreamName, Operation), Error>,
}

/// What a stream is asked for.
enum Operation {
    Create(Box<Put>, Incoming),
    Append(Box<Post>, Incoming),
    Read(Read),
    Head,
    Delete,
    Preflight,
}

impl Operation {
    /// Who asks, if it said so.
    fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Read(read) => read.client(),
            _ => None,
        }
    }
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

    /// What a request asks for. Nothing is kept of the request itself, so a poll that waits does not carry it.
    pub fn parse(&self, request: Request<Incoming>, conditions: Conditions) -> Parsed {
        let form = match *request.method() {
            Method::PUT => Form::Create,
            Method::POST => Form::Append,
            Method::GET => Form::ShortPoll,
            Method::HEAD => Form::Head,
            Method::DELETE => Form::Delete,
            Method::OPTIONS => Form::Preflight,
            _ => Form::Other,
        };
        let since = Instant::now();
        let http1 = request.version() < Version::HTTP_2;
        let refused = conditions.refuse || conditions.ambiguous_length;
        let operation = self.operation(form, request, conditions);
        let form = match &operation {
            Ok((_, Operation::Read(read))) => read.form(),
            _ => form,
        };
        Parsed { form, since, http1, refused, operation }
    }

    fn operation(
        &self,
        form: Form,
        request: Request<Incoming>,
        conditions: Conditions,
    ) -> Result<(StreamName, Operation), Error> {
        self.admit(&request, conditions)?;
        let name = stream_name(request.uri().path())?;
        let (head, body) = request.into_parts();
        let operation = match form {
            Form::Create => Operation::Create(Box::new(Put::parse(&head)?), body),
            Form::Append => Operation::Append(Box::new(Post::parse(&head)?), body),
            Form::Head => Operation::Head,
            Form::Delete => Operation::Delete,
            Form::Preflight => Operation::Preflight,
            Form::ShortPoll | Form::LongPoll | Form::Sse => {
                Operation::Read(Read::parse(&head, &self.limits)?)
            }
            Form::Other => return Err(Error::MethodNotAllowed),
        };
        Ok((name, operation))
    }

    /// Answers one request. Every failure is an answer too.
    ///
    /// Cancel safe: a client that leaves while its poll is held takes the waiter with it.
    pub async fn answer(&self, request: Parsed) -> Response<Body> {
        let Parsed { form, since, http1, refused, operation } = request;
        let stream = operation.as_ref().map_or("", |(name, _)| name.as_str());
        let client = operation.as_ref().ok().and_then(|(_, operation)| operation.client());
        let client = client.map(ClientId::as_str);
        let span = tracing::debug_span!("request", form = form.as_str(), stream, client);
        let outcome = match operation {
            Ok((name, operation)) => self.perform(name, operation).instrument(span.clone()).await,
            Err(error) => Err(error),
        };
        let mut answer = outcome.unwrap_or_else(Error::into_answer);
        if http1 && (refused || self.hub.is_draining()) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let status = answer.status().as_u16();
        self.metrics.request(form, status);
        span.in_scope(|| tracing::debug!(status, held_ms = since.elapsed().as_millis() as u64, "answered"));
        answer
    }

    /// Every connection has room for this future, so all but the short poll, which is asked most often, are boxed.
    async fn perform(&self, name: StreamName, operation: Operation) -> Result<Response<Body>, Error> {
        match operation {
            Operation::Read(Read::ShortPoll(poll)) => self.short_poll(name, poll).await,
            Operation::Read(Read::LongPoll(poll)) => Box::pin(self.long_poll(name, poll)).await,
            Operation::Read(Read::Sse(tail)) => Box::pin(self.sse(name, tail)).await,
            Operation::Create(put, body) => Box::pin(self.create(name, *put, body)).await,
            Operation::Append(post, body) => Box::pin(self.append(name, *post, body)).await,
            Operation::Head => self.head(name).await,
            Operation::Delete => self.delete(name).await,
            Operation::Preflight => Ok(preflight::allow()),
        }
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
