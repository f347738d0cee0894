//! Routes: from a request's method and target to the operation that it asks for, with its fields as values.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::header::TRANSFER_ENCODING;
use hyper::{Method, Request, Version};

use super::error::Error;
use super::form::Form;
use super::request::{self, Handshake, PostRead, Put, Read, post};
use super::upload::Upload;
use super::web::GetFile;
use super::{Gateway, Link, mqtt, preflight, upload};
use crate::hub::ClientId;
use crate::stream::{Append, StreamName};
use crate::web::File;

/// Where streams live.
pub(super) const STREAMS: &str = "/v1/stream/";

/// Where many streams are read.
const MANY: &str = "/v1/streams";

/// The methods of [`MANY`].
pub(super) const METHODS_MANY: &str = "GET, POST, OPTIONS";

/// What the server knows of the connection that a request came on.
pub struct Conditions {
    /// The connection is one too many: answer 503 and close it.
    pub refuse: bool,
    /// The request has both `Content-Length` and `Transfer-Encoding`, or hides whether it has.
    pub ambiguous_length: bool,
    /// The connection itself.
    pub link: Arc<Link>,
}

/// A request whose target and fields have become values.
pub struct Parsed {
    pub(super) form: Form,
    pub(super) http1: bool,
    pub(super) refused: bool,
    pub(super) link: Arc<Link>,
    pub(super) asked: Result<Asked, Error>,
}

/// What a request is, as far as its head tells.
pub(super) enum Asked {
    Whole(Operation),
    /// A request for many streams, whose body says which and how.
    Post(Box<PostRead>, Incoming),
}

impl Parsed {
    /// Whether its body has yet to be read to know what is asked for; then it is read to its end.
    pub fn has_body_to_read(&self) -> bool {
        matches!(self.asked, Ok(Asked::Post(..)))
    }
}

/// What is asked for.
pub(super) enum Operation {
    OnStream(StreamName, OnStream),
    Read(Read),
    PreflightMany,
    GetFile(GetFile),
    /// A WebSocket for MQTT.
    Mqtt(Box<Handshake>),
}

/// What a stream is asked for.
pub(super) enum OnStream {
    Create(Box<Put>, Incoming),
    Append(Box<Append>, Upload),
    Head,
    Delete,
    Preflight,
}

impl Operation {
    /// The stream's name; empty if it concerns none.
    pub(super) fn stream(&self) -> &str {
        match self {
            Self::OnStream(name, _) => name.as_str(),
            Self::Read(read) => read.stream(),
            Self::PreflightMany | Self::GetFile(_) | Self::Mqtt(_) => "",
        }
    }

    /// Who asks, if it said so.
    pub(super) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Read(read) => read.client(),
            Self::OnStream(..) | Self::PreflightMany | Self::GetFile(_) | Self::Mqtt(_) => None,
        }
    }

    /// The form that is asked for, if it is one that the method does not tell.
    pub(super) fn form(&self) -> Option<Form> {
        match self {
            Self::Read(read) => Some(read.form()),
            Self::GetFile(_) => Some(Form::File),
            Self::Mqtt(_) => Some(Form::Mqtt),
            Self::OnStream(..) | Self::PreflightMany => None,
        }
    }
}

impl Gateway {
    /// What a request asks for. Nothing is kept of the request itself, so a poll that waits does not carry it.
    pub fn parse(&self, request: Request<Incoming>, conditions: Conditions) -> Parsed {
        let form = match *request.method() {
            Method::PUT => Form::Create,
            Method::POST => Form::Append,
            Method::GET => Form::ShortPoll,
            // How HTTP/2 opens a WebSocket (RFC 8441, section 4).
            Method::CONNECT if request.extensions().get::<Protocol>().is_some() => Form::WebSocket,
            Method::HEAD => Form::Head,
            Method::DELETE => Form::Delete,
            Method::OPTIONS => Form::Preflight,
            _ => Form::Other,
        };
        let http1 = request.version() < Version::HTTP_2;
        let refused = conditions.refuse || conditions.ambiguous_length;
        let asked = self.admit(&request, &conditions).and_then(|()| self.asked(form, request));
        // What the body will say is not known before it is there.
        let form = if matches!(asked, Ok(Asked::Post(..))) { Form::Other } else { form };
        Parsed { form, http1, refused, link: conditions.link, asked }
    }

    /// A read of many streams, once its body is there.
    pub(super) async fn posted(&self, post: Box<PostRead>, body: Incoming) -> Result<Operation, Error> {
        let body = upload::collect(body, &self.limits).await?;
        post.read(&body, &self.limits, self.holds).map(Operation::Read)
    }

    fn asked(&self, form: Form, request: Request<Incoming>) -> Result<Asked, Error> {
        if request.uri().path() != MANY {
            return self.operation(form, request).map(Asked::Whole);
        }
        let (mut head, body) = request.into_parts();
        match form {
            Form::ShortPoll | Form::WebSocket => {
                Read::parse(None, &mut head, &self.limits, self.holds).map(Operation::Read).map(Asked::Whole)
            }
            Form::Append => Ok(Asked::Post(Box::new(PostRead::parse(head)?), body)),
            Form::Preflight => Ok(Asked::Whole(Operation::PreflightMany)),
            _ => Err(Error::MethodNotAllowed { allowed: METHODS_MANY }),
        }
    }

    fn operation(&self, form: Form, request: Request<Incoming>) -> Result<Operation, Error> {
        if request.uri().path() == mqtt::PATH {
            let (mut head, _) = request.into_parts();
            return Handshake::parse(&mut head).map(Box::new).map(Operation::Mqtt);
        }
        if let Some(file) = File::at(request.uri().path()) {
            let (head, _) = request.into_parts();
            return GetFile::parse(file, &head).map(Operation::GetFile);
        }
        let name = stream_name(request.uri().path())?;
        let (mut head, body) = request.into_parts();
        let operation = match form {
            Form::Create => OnStream::Create(Box::new(Put::parse(&head)?), body),
            Form::Append => {
                OnStream::Append(Box::new(post(head.uri.query(), &head.headers)?), Upload::Coming(body))
            }
            Form::Head => OnStream::Head,
            Form::Delete => OnStream::Delete,
            Form::Preflight => OnStream::Preflight,
            Form::ShortPoll | Form::LongPoll | Form::Sse | Form::Ndjson | Form::WebSocket => {
                return Read::parse(Some(name), &mut head, &self.limits, self.holds).map(Operation::Read);
            }
            Form::Mqtt | Form::File | Form::Other => {
                return Err(Error::MethodNotAllowed { allowed: preflight::METHODS });
            }
        };
        Ok(Operation::OnStream(name, operation))
    }

    fn admit(&self, request: &Request<Incoming>, conditions: &Conditions) -> Result<(), Error> {
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
pub(super) fn stream_name(path: &str) -> Result<StreamName, Error> {
    let encoded = path.strip_prefix(STREAMS).ok_or(Error::NoSuchPath)?;
    let decoded =
        percent_encoding::percent_decode_str(encoded).decode_utf8().map_err(|_| Error::NameNotUtf8)?;
    request::stream_name(&decoded)
}
