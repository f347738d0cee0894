//! Routes: from a request's method and target to the operation that it asks for, with its fields as values.

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::ext::Protocol;
use hyper::header::{EXPECT, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Request};

use super::conn::Framing;
use super::error::Error;
use super::gateway::Gateway;
use super::request::{self, Handshake, HoldPolicy, PostRead, Put, Read, ReadOrSocket, WebSocket, post};
use super::request_log::RequestLog;
use super::upload::{can_skip, collect};
use super::web::GetFile;
use super::{preflight, upgrade};
use crate::http::form::Form;
use crate::hub::ClientId;
use crate::limits::Limits;
use crate::stream::{Append, StreamName};
use crate::web::File;

/// Where streams live.
pub(super) const STREAMS: &str = "/v1/stream/";

/// Where many streams are read with one request.
const STREAMS_PATH: &str = "/v1/streams";

/// The methods of [`STREAMS_PATH`].
pub(super) const STREAMS_METHODS: &str = "GET, POST, OPTIONS";

/// Why a request is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The connection is above the limit.
    TooManyConnections,
    /// It has both `Content-Length` and `Transfer-Encoding`.
    AmbiguousLength,
}

/// A request as values: complete, with its body.
pub(super) struct GatewayRequest {
    pub(super) operation: Result<Operation, Error>,
    pub(super) log: RequestLog,
}

/// A request as far as its head tells.
enum Parsed {
    Complete(Operation),
    NeedsBody(BodyOperation),
}

/// An operation whose body has yet to be read.
enum BodyOperation {
    Create(StreamName, Box<Put>),
    Append(StreamName, Box<Append>),
    /// The body says which streams are read, and how.
    Read(Box<PostRead>),
}

impl GatewayRequest {
    /// A request whose operation is known, or is known to be wrong.
    pub(super) fn new(form: Form, framing: Framing, operation: Result<Operation, Error>) -> Self {
        let known = operation.as_ref().ok();
        let form = known.and_then(Operation::form).unwrap_or(form);
        let client = known.and_then(Operation::client).map(ClientId::as_str);
        let log = RequestLog::new(form, framing, known.map_or("", Operation::stream), client);
        Self { operation, log }
    }
}

impl BodyOperation {
    fn with_body(self, body: Bytes, limits: &Limits, holds: HoldPolicy) -> Result<Operation, Error> {
        Ok(match self {
            Self::Create(name, put) => Operation::OnStream(name, OnStream::Create(put, body)),
            Self::Append(name, append) => {
                let append = append.with_body(body, limits.json_depth_max)?;
                Operation::OnStream(name, OnStream::Append(Box::new(append)))
            }
            Self::Read(post) => Operation::Read(post.read(&body, limits, holds)?),
        })
    }
}

/// What is asked for.
pub(super) enum Operation {
    OnStream(StreamName, OnStream),
    Read(Read),
    WebSocket(Box<WebSocket>),
    PreflightMany,
    GetFile(GetFile),
    /// A WebSocket for MQTT.
    Mqtt(Box<Handshake>),
}

/// What a stream is asked for.
pub(super) enum OnStream {
    Create(Box<Put>, Bytes),
    Append(Box<Append>),
    Head,
    Delete,
    Preflight,
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
    pub(super) fn stream(&self) -> &str {
        match self {
            Self::OnStream(name, _) => name.as_str(),
            Self::Read(read) => read.stream(),
            Self::WebSocket(socket) => socket.stream(),
            Self::PreflightMany | Self::GetFile(_) | Self::Mqtt(_) => "",
        }
    }

    /// Who asks, if it said so.
    pub(super) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Read(read) => read.client(),
            Self::OnStream(..)
            | Self::WebSocket(_)
            | Self::PreflightMany
            | Self::GetFile(_)
            | Self::Mqtt(_) => None,
        }
    }

    /// The form that is asked for, if it is one that the method does not tell.
    pub(super) fn form(&self) -> Option<Form> {
        match self {
            Self::Read(read) => Some(read.form()),
            Self::WebSocket(_) => Some(Form::WebSocket),
            Self::GetFile(_) => Some(Form::File),
            Self::Mqtt(_) => Some(Form::Mqtt),
            Self::OnStream(..) | Self::PreflightMany => None,
        }
    }
}

impl Gateway {
    /// Turns a request into values, and reads its body as far as the operation needs it. A body that is left unread is
    /// returned, unless the connection closes behind the response because of it.
    pub(super) async fn receive(
        &self,
        request: Request<Incoming>,
        mut framing: Framing,
        refusal: Option<Refusal>,
    ) -> (GatewayRequest, Option<Incoming>) {
        let form = form(&request);
        // A client that waits for `100 Continue` has not sent its body, and is not asked for it.
        let may_skip = !request.headers().contains_key(EXPECT) && can_skip(request.body());
        let (head, mut body) = request.into_parts();
        let parsed = self.admit(&head, refusal).and_then(|()| self.parse(form, head));
        // What the body of such a request asks for is not known before it is there.
        let is_many = matches!(parsed, Ok(Parsed::NeedsBody(BodyOperation::Read(_))));
        let form = if is_many { Form::Other } else { form };
        framing.keep_alive &= refusal.is_none();
        let (operation, may_go_on, unread) = match parsed {
            Ok(Parsed::NeedsBody(operation)) => match collect(&mut body, &self.limits).await {
                Ok(bytes) => (operation.with_body(bytes, &self.limits, self.holds), true, None),
                Err(error) => (Err(error), body.is_end_stream(), None),
            },
            Ok(Parsed::Complete(operation)) => (Ok(operation), may_skip, Some(body)),
            Err(error) => (Err(error), may_skip, Some(body)),
        };
        framing.keep_alive &= may_go_on;
        let unread = unread.filter(|_| framing.keep_alive);
        (GatewayRequest::new(form, framing, operation), unread)
    }

    fn parse(&self, form: Form, head: Parts) -> Result<Parsed, Error> {
        let operation = match head.uri.path() {
            STREAMS_PATH => match form {
                Form::ShortPoll | Form::WebSocket => {
                    ReadOrSocket::parse(None, &head, &self.limits, self.holds)?.into()
                }
                Form::Append => {
                    return Ok(Parsed::NeedsBody(BodyOperation::Read(Box::new(PostRead::parse(head)?))));
                }
                Form::Preflight => Operation::PreflightMany,
                _ => return Err(Error::MethodNotAllowed { allowed: STREAMS_METHODS }),
            },
            upgrade::MQTT_PATH => Operation::Mqtt(Box::new(Handshake::parse(&head)?)),
            path => match File::at(path) {
                Some(file) => Operation::GetFile(GetFile::parse(file, &head)?),
                None => return self.parse_stream(form, &head),
            },
        };
        Ok(Parsed::Complete(operation))
    }

    fn parse_stream(&self, form: Form, head: &Parts) -> Result<Parsed, Error> {
        let name = stream_name(head.uri.path())?;
        let operation = match form {
            Form::Create => {
                return Ok(Parsed::NeedsBody(BodyOperation::Create(name, Box::new(Put::parse(head)?))));
            }
            Form::Append => {
                let append = post(head.uri.query(), &head.headers)?;
                return Ok(Parsed::NeedsBody(BodyOperation::Append(name, Box::new(append))));
            }
            Form::Head => OnStream::Head,
            Form::Delete => OnStream::Delete,
            Form::Preflight => OnStream::Preflight,
            Form::ShortPoll | Form::LongPoll | Form::Sse | Form::Ndjson | Form::WebSocket => {
                return Ok(Parsed::Complete(
                    ReadOrSocket::parse(Some(name), head, &self.limits, self.holds)?.into(),
                ));
            }
            Form::Mqtt | Form::File | Form::Other => {
                return Err(Error::MethodNotAllowed { allowed: preflight::METHODS });
            }
        };
        Ok(Parsed::Complete(Operation::OnStream(name, operation)))
    }

    fn admit(&self, head: &Parts, refusal: Option<Refusal>) -> Result<(), Error> {
        match refusal {
            Some(Refusal::TooManyConnections) => return Err(Error::TooManyConnections),
            Some(Refusal::AmbiguousLength) => return Err(Error::AmbiguousLength),
            None => {}
        }
        let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next()
            && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        {
            return Err(Error::TransferEncoding);
        }
        let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if target > self.limits.target_bytes_max {
            return Err(Error::TargetTooLong { max: self.limits.target_bytes_max });
        }
        Ok(())
    }
}

/// What the method tells of the form; the query may tell more.
fn form<B>(request: &Request<B>) -> Form {
    match *request.method() {
        Method::PUT => Form::Create,
        Method::POST => Form::Append,
        Method::GET => Form::ShortPoll,
        // How HTTP/2 opens a WebSocket (RFC 8441, section 4).
        Method::CONNECT if request.extensions().get::<Protocol>().is_some() => Form::WebSocket,
        Method::HEAD => Form::Head,
        Method::DELETE => Form::Delete,
        Method::OPTIONS => Form::Preflight,
        _ => Form::Other,
    }
}

/// The stream that a path names. Percent-encoded octets are decoded once; dot segments are never resolved.
pub(super) fn stream_name(path: &str) -> Result<StreamName, Error> {
    let encoded = path.strip_prefix(STREAMS).ok_or(Error::NoSuchPath)?;
    let decoded =
        percent_encoding::percent_decode_str(encoded).decode_utf8().map_err(|_| Error::NameNotUtf8)?;
    request::stream_name(&decoded)
}
