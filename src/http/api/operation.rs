//! Typed requests: the operation with its body, and the data that metrics and the log need when the request is answered.

use bytes::Bytes;
use tokio::time::Instant;
use tracing::Span;

use super::error::Error;
use super::files::GetFile;
use super::form::Form;
use super::gateway::Gateway;
use super::handlers::Put;
use super::handshake::Handshake;
use super::options::Options;
use super::origins::AllowedOrigin;
use crate::http::conn::{Answer, Framing};
use crate::http::read::request::{Read, ReadOrSocket, WebSocket};
use crate::hub::ClientId;
use crate::stream::{Append, StreamName};

/// A typed request: complete, with its body.
pub(in crate::http) struct GatewayRequest {
    pub(in crate::http) operation: Result<Operation, Error>,
    pub(in crate::http) log: RequestLog,
}

impl GatewayRequest {
    /// A request with its operation, or with the error of parsing it. `form` applies unless the operation determines it.
    /// `origin` is the origin of the page that sent the request, unless it is the gateway's own.
    pub(in crate::http) fn new(
        form: Form,
        framing: Framing,
        origin: Option<AllowedOrigin>,
        operation: Result<Operation, Error>,
    ) -> Self {
        let known = operation.as_ref().ok();
        let form = known.and_then(Operation::form).unwrap_or(form);
        let client = known.and_then(Operation::client).map(ClientId::as_str);
        let log = RequestLog::new(form, framing, origin, known.map_or("", Operation::stream), client);
        Self { operation, log }
    }
}

/// The operation that a request names.
pub(in crate::http) enum Operation {
    OnStream(StreamName, OnStream),
    Read(Read),
    WebSocket(Box<WebSocket>),
    Options(Box<Options>),
    GetFile(GetFile),
    /// A WebSocket for MQTT.
    Mqtt(Box<Handshake>),
}

/// An operation on one stream that delivers no messages.
pub(in crate::http) enum OnStream {
    Create(Box<Put>, Bytes),
    Append(Box<Append>),
    Head,
    Delete,
}

impl From<ReadOrSocket> for Operation {
    fn from(request: ReadOrSocket) -> Self {
        match request {
            ReadOrSocket::Read(read) => Self::Read(read),
            ReadOrSocket::WebSocket(socket) => Self::WebSocket(socket),
        }
    }
}

impl Operation {
    /// The name of the stream; empty for an operation on many streams or on none.
    pub(in crate::http) fn stream(&self) -> &str {
        match self {
            Self::OnStream(name, _) => name.as_str(),
            Self::Read(read) => read.stream(),
            Self::WebSocket(socket) => socket.stream(),
            Self::Options(_) | Self::GetFile(_) | Self::Mqtt(_) => "",
        }
    }

    /// The client id, if the client sent one.
    pub(in crate::http) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Read(read) => read.client(),
            Self::OnStream(..) | Self::WebSocket(_) | Self::Options(_) | Self::GetFile(_) | Self::Mqtt(_) => {
                None
            }
        }
    }

    /// The form of the request, if its method does not determine it.
    pub(in crate::http) fn form(&self) -> Option<Form> {
        match self {
            Self::Read(read) => Some(read.form()),
            Self::WebSocket(_) => Some(Form::WebSocket),
            Self::GetFile(_) => Some(Form::File),
            Self::Mqtt(_) => Some(Form::Mqtt),
            Self::OnStream(..) | Self::Options(_) => None,
        }
    }
}

impl Gateway {
    /// Finishes the response to an outcome, counts it and logs it.
    pub(in crate::http) fn finish<A: Answer>(&self, log: &RequestLog, outcome: Result<A, Error>) -> A {
        let mut answer = outcome.unwrap_or_else(|error| A::from(error.into_answer()));
        self.access.origins.fields(log.origin).put(&mut answer);
        let keep_alive = log.framing.keep_alive && !self.hub.is_shedding();
        answer.frame(Framing { keep_alive, ..log.framing }, self.clock.wall());
        let status = answer.status().as_u16();
        self.forms.answered(log.form, status);
        if let Some(trace) = &log.trace {
            let held_ms = trace.since.elapsed().as_millis() as u64;
            trace.span.in_scope(|| tracing::debug!(status, held_ms, "answered"));
        }
        answer
    }
}

/// The parts of a request that are needed when it is answered: for metrics, the log, and the framing of the response.
pub(in crate::http) struct RequestLog {
    pub(in crate::http) form: Form,
    pub(in crate::http) framing: Framing,
    /// The origin of the page that sent the request, unless it is the gateway's own.
    pub(in crate::http) origin: Option<AllowedOrigin>,
    /// `None`: spans of this level are not recorded, so creating one would waste time and memory.
    pub(in crate::http) trace: Option<Box<Trace>>,
}

/// The span of a request, and when the request was complete.
pub(in crate::http) struct Trace {
    pub(in crate::http) span: Span,
    pub(in crate::http) since: Instant,
}

impl RequestLog {
    /// Begins the log of a request. `stream` is empty unless the request is for one stream; `client` is the client id.
    fn new(
        form: Form,
        framing: Framing,
        origin: Option<AllowedOrigin>,
        stream: &str,
        client: Option<&str>,
    ) -> Self {
        let span = tracing::debug_span!("request", form = form.as_str(), stream, client);
        let trace = (!span.is_disabled()).then(|| Box::new(Trace { span, since: Instant::now() }));
        Self { form, framing, origin, trace }
    }

    /// Whether a span records the request.
    pub(in crate::http) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }
}
