//! A typed request: the operation that it names, with its body, and what its log entry needs when it is answered.

use bytes::Bytes;
use tokio::time::Instant;
use tracing::Span;

use super::error::Error;
use super::files::GetFile;
use super::form::Form;
use super::gateway::Gateway;
use super::handlers::Put;
use super::handshake::Handshake;
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
    /// A request whose operation is known, or is known to be wrong.
    /// `origin` is that of the page that sent it, if that is another than the gateway's.
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
    /// `OPTIONS` of many streams; whether a page asks.
    OptionsOfMany {
        of_page: bool,
    },
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
    /// `OPTIONS`; whether a page asks.
    Options {
        of_page: bool,
    },
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
    /// The stream's name; empty if it concerns none.
    pub(in crate::http) fn stream(&self) -> &str {
        match self {
            Self::OnStream(name, _) => name.as_str(),
            Self::Read(read) => read.stream(),
            Self::WebSocket(socket) => socket.stream(),
            Self::OptionsOfMany { .. } | Self::GetFile(_) | Self::Mqtt(_) => "",
        }
    }

    /// The client, if it named itself.
    pub(in crate::http) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Read(read) => read.client(),
            Self::OnStream(..)
            | Self::WebSocket(_)
            | Self::OptionsOfMany { .. }
            | Self::GetFile(_)
            | Self::Mqtt(_) => None,
        }
    }

    /// The delivery form, if the operation has one that its method does not tell.
    pub(in crate::http) fn form(&self) -> Option<Form> {
        match self {
            Self::Read(read) => Some(read.form()),
            Self::WebSocket(_) => Some(Form::WebSocket),
            Self::GetFile(_) => Some(Form::File),
            Self::Mqtt(_) => Some(Form::Mqtt),
            Self::OnStream(..) | Self::OptionsOfMany { .. } => None,
        }
    }
}

impl Gateway {
    /// The response of an outcome, counted and logged.
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

/// The parts of a request that outlive its parsing: for its metrics, its log entry, and the framing of its response.
pub(in crate::http) struct RequestLog {
    pub(in crate::http) form: Form,
    pub(in crate::http) framing: Framing,
    /// The origin of the page that sent it, if that is another than the gateway's.
    pub(in crate::http) origin: Option<AllowedOrigin>,
    /// `None`: nobody records spans at this level, so that one is not worth its time and memory.
    pub(in crate::http) trace: Option<Box<Trace>>,
}

/// The span of a request, and when the request was complete.
pub(in crate::http) struct Trace {
    pub(in crate::http) span: Span,
    pub(in crate::http) since: Instant,
}

impl RequestLog {
    /// Begins the log of a request for `stream`, if it is for one, by `client`, if it named itself.
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
