//! Routes: parses method, target and header fields of a request into a typed operation.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::ext::Protocol;
use hyper::header::{EXPECT, TRANSFER_ENCODING, UPGRADE};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Version};

use super::bosh::{BOSH_METHODS, BOSH_PATH, BoshRequest, BoshService};
use super::cookies::{COOKIE_METHODS, COOKIE_PATH, CookieRequest};
use super::credentials::Rights;
use super::devices::{DevicePath, DeviceRequest};
use super::error::Error;
use super::files::{FILE_METHODS, File, GetFile};
use super::form::Form;
use super::gateway::{Gateway, HoldPolicy};
use super::handlers::{Put, STREAM_METHODS, post, refuse_content_encoding};
use super::handshake::{Handshake, Subprotocol};
use super::names::{NAMES_METHODS, NAMES_PATH, NamesRequest};
use super::operation::{GatewayRequest, OnStream, Operation};
use super::options::Options;
use super::resources;
use super::subscriptions::{SubscriptionHead, SubscriptionRequest, is_reserved, is_without_credentials};
use super::target::{STREAMS_PATH, stream_of_path};
use super::tickets::{TICKET_METHODS, TICKET_PATH, TicketRequest};
use super::upload::{can_skip, collect};
use crate::auth::Action;
use crate::budget::Owner;
use crate::http::conn::{ConnectionState, Framing};
use crate::http::read::request::{PostRead, Read, ReadOrSocket};
use crate::hub::ClientId;
use crate::limits::Limits;
use crate::stream::{Append, Shortage, StreamName};

/// The beginning of the paths of streams, and of [`STREAMS_PATH`].
const STREAM_PATHS: &str = "/v1/";

/// The methods of [`STREAMS_PATH`].
const STREAMS_METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// The methods of the paths of MQTT and XMPP over WebSocket.
const SUBPROTOCOL_METHODS: &str = "GET, OPTIONS";

/// The safe method with a body, which has no constant yet.
const QUERY: &str = "QUERY";

/// A body below this size is received without asking the memory budget first.
const SMALL_BODY_BYTES: u64 = 16 * 1024;

/// Why a request is refused before it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Refusal {
    /// The connection is above the limit.
    TooManyConnections,
    /// The request has both `Content-Length` and `Transfer-Encoding`.
    AmbiguousLength,
}

/// A parsed request head: the operation, or an operation that needs the body.
enum ParsedHead {
    Complete(Operation),
    NeedsBody(BodyOperation),
}

/// An operation whose body has not been read yet.
enum BodyOperation {
    Create(StreamName, Box<Put>),
    Append(StreamName, Box<Append>),
    /// A read of many streams; the body names the streams and the delivery form.
    Read(Box<PostRead>),
    /// The exchange of a token for a ticket; the body names what the ticket is for.
    Ticket,
    /// The registration of a device.
    Device(ClientId),
    Subscription(Box<SubscriptionRequest>),
    /// A BOSH request.
    Bosh(Arc<dyn BoshService>),
}

impl ParsedHead {
    /// Checks the rights to the operation, before its body is read. A read of many streams names them in its body, and is checked
    /// after it; so are the other operations, once more.
    fn admitted(self, rights: Option<&Rights>) -> Result<Self, Error> {
        let Some(rights) = rights else { return Ok(self) };
        match &self {
            Self::Complete(_) => {}
            Self::NeedsBody(BodyOperation::Create(name, _)) => rights.check_named(Action::Create, name)?,
            Self::NeedsBody(BodyOperation::Append(name, _)) => rights.check_named(Action::Append, name)?,
            Self::NeedsBody(BodyOperation::Read(_)) => {}
            Self::NeedsBody(BodyOperation::Ticket | BodyOperation::Device(_)) => rights.check_subject()?,
            Self::NeedsBody(BodyOperation::Subscription(_) | BodyOperation::Bosh(_)) => {}
        }
        match self {
            Self::Complete(operation) => rights.admit(operation).map(Self::Complete),
            needs_body @ Self::NeedsBody(_) => Ok(needs_body),
        }
    }
}

impl BodyOperation {
    /// Refuses an announced body before it is read if the memory budget has no room for it. A small body passes: the store
    /// decides on it, because it knows whether the append is new or a retry.
    fn admit(&self, body: &Incoming, limits: &Limits, owner: &Owner) -> Result<(), Shortage> {
        let announced = body.size_hint().exact().unwrap_or(0);
        match self {
            // A body above the limit gets the error for that instead.
            Self::Create(..) | Self::Append(..)
                if (SMALL_BODY_BYTES..=limits.body_bytes_max as u64).contains(&announced) =>
            {
                owner.admit(announced)
            }
            Self::Create(..)
            | Self::Append(..)
            | Self::Read(_)
            | Self::Ticket
            | Self::Device(_)
            | Self::Subscription(_)
            | Self::Bosh(_) => Ok(()),
        }
    }

    fn with_body(self, body: Bytes, limits: &Limits, holds: HoldPolicy) -> Result<Operation, Error> {
        Ok(match self {
            Self::Create(name, put) => Operation::OnStream(name, OnStream::Create(put, body)),
            Self::Append(name, append) => {
                let append = append.with_body(body, limits.json_depth_max)?;
                Operation::OnStream(name, OnStream::Append(Box::new(append)))
            }
            Self::Read(post) => Operation::Read(post.read(&body, limits, holds)?),
            Self::Device(id) => Operation::Device(DeviceRequest::put(id, &body)?),
            Self::Subscription(request) => Operation::Subscription(Box::new(request.with_body(body))),
            Self::Ticket => Operation::Ticket(Box::new(TicketRequest::parse(&body, limits)?)),
            Self::Bosh(service) => Operation::Bosh(Box::new(BoshRequest { service, body, forwarded: None })),
        })
    }
}

impl Gateway {
    /// Parses a request, and reads its body if the operation needs it. Also returns a body that is left unread, unless the
    /// connection closes after the response.
    pub(in crate::http) async fn receive(
        &self,
        request: Request<Incoming>,
        mut framing: Framing,
        refusal: Option<Refusal>,
        state: &ConnectionState,
    ) -> (GatewayRequest, Option<Incoming>) {
        let (form, owner) = (form(&request), state.owner());
        // A client that waits for `100 Continue` has not sent its body, and might never send it.
        let expects = request.headers().contains_key(EXPECT);
        let may_skip = !expects && can_skip(request.body());
        let is_http2 = request.version() == Version::HTTP_2;
        let (head, mut body) = request.into_parts();
        let source = state.source(&head.headers);
        let (method, target) = (head.method.clone(), head.uri.path_and_query().cloned());
        let admitted = self.admit(&head, refusal).and_then(|()| self.access.admit(&head));
        let origin = admitted.as_ref().ok().copied().flatten();
        let query = target.as_ref().and_then(PathAndQuery::query);
        let opens_socket = method == Method::CONNECT || head.headers.contains_key(UPGRADE);
        let clears_cookie = self.sets_cookies() && CookieRequest::is_clear(&head);
        let rights = admitted.and_then(|_| {
            if clears_cookie {
                return Ok(None);
            }
            let is_safe = !opens_socket && matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
            if is_without_credentials(head.uri.path()) {
                return Ok(None);
            }
            self.authenticate(query, &head.headers, is_safe, source)
        });
        let known = rights.as_ref().ok().and_then(Option::as_ref);
        let (who, tenant) = (self.audited(known), self.tenant_of(known));
        let parsed = rights.and_then(|rights| {
            let parsed = self.parse(form, head, state.is_of_proxy())?;
            let rights = match (rights, &parsed) {
                (Some(rights), ParsedHead::Complete(operation)) => {
                    Some(self.with_ticket(rights, query, operation)?)
                }
                (rights, _) => rights,
            };
            Ok((parsed.admitted(rights.as_ref())?, rights))
        });
        let (parsed, rights) = match parsed {
            Ok((parsed, rights)) => (Ok(parsed), rights),
            Err(error) => (Err(error), None),
        };
        // The form of a POST to many streams is known only from its body.
        let is_other = matches!(
            parsed,
            Ok(ParsedHead::NeedsBody(
                BodyOperation::Read(_)
                    | BodyOperation::Ticket
                    | BodyOperation::Device(_)
                    | BodyOperation::Subscription(_)
                    | BodyOperation::Bosh(_)
            ))
        );
        let form = if is_other { Form::Other } else { form };
        framing.keep_alive &= refusal.is_none();
        let (operation, may_go_on, unread) = match parsed {
            // hyper cannot send 100 Continue over HTTP/2, and a client may wait for it without end.
            Ok(ParsedHead::NeedsBody(_)) if is_http2 && expects && !body.is_end_stream() => {
                (Err(Error::Expectation), false, Some(body))
            }
            Ok(ParsedHead::NeedsBody(operation)) => match operation.admit(&body, &self.limits, owner) {
                Ok(()) => match collect(&mut body, &self.limits, owner).await {
                    Ok(bytes) => {
                        let operation = operation.with_body(bytes, &self.limits, self.holds);
                        let operation = match rights {
                            Some(rights) => operation.and_then(|operation| rights.admit(operation)),
                            None => operation,
                        };
                        (operation, true, None)
                    }
                    Err(error) => (Err(error), body.is_end_stream(), None),
                },
                Err(shortage) => (Err(Error::Short(shortage)), may_skip, Some(body)),
            },
            Ok(ParsedHead::Complete(operation)) => (Ok(operation), may_skip, Some(body)),
            Err(error) => (Err(error), may_skip, Some(body)),
        };
        framing.keep_alive &= may_go_on;
        let unread = unread.filter(|_| framing.keep_alive);
        let mut request = GatewayRequest::new(form, framing, origin, operation);
        let target = target.as_ref().map_or("", PathAndQuery::as_str);
        // Other resources have no parameters; a file may have some that are meant for caches.
        let query =
            target.split_once('?').filter(|(path, _)| path.starts_with(STREAM_PATHS)).map(|(_, query)| query);
        request.log.of_tenant(tenant);
        request.came_from(source);
        self.note(&mut request, source, who, method.as_str(), target, query);
        (request, unread)
    }

    fn parse(&self, form: Form, head: Parts, is_of_proxy: bool) -> Result<ParsedHead, Error> {
        refuse_unknown_method(&head)?;
        if !resources::has(head.uri.path()) {
            return Err(stream_of_path(head.uri.path()).err().unwrap_or(Error::NoSuchPath));
        }
        if let Some(path) = DevicePath::parse(head.uri.path()) {
            return parse_device(path?, form, &head);
        }
        if let Some(subprotocol) = self.subprotocol_at(head.uri.path()) {
            return parse_subprotocol(subprotocol, form, &head).map(ParsedHead::Complete);
        }
        if let Some(service) = self.bosh.as_ref().filter(|_| head.uri.path() == BOSH_PATH) {
            return parse_bosh(service, form, &head);
        }
        let options = |methods| Operation::Options(Box::new(Options::parse(methods, &head)));
        let operation = match head.uri.path() {
            STREAMS_PATH => match form {
                Form::ShortPoll | Form::WebSocket => {
                    ReadOrSocket::parse(None, &head, &self.limits, self.holds)?.into()
                }
                Form::Head => Operation::Read(Read::head_of_many(&head, &self.limits)?),
                Form::Append => {
                    return Ok(ParsedHead::NeedsBody(BodyOperation::Read(Box::new(PostRead::parse(head)?))));
                }
                Form::Preflight => options(STREAMS_METHODS),
                _ => return Err(Error::MethodNotAllowed { allowed: STREAMS_METHODS }),
            },
            NAMES_PATH => match form {
                Form::ShortPoll => Operation::Names(Box::new(NamesRequest::parse(&head)?)),
                Form::Preflight => options(NAMES_METHODS),
                _ => return Err(Error::MethodNotAllowed { allowed: NAMES_METHODS }),
            },
            TICKET_PATH if self.auth.is_enabled() => match form {
                Form::Append => {
                    TicketRequest::check_head(&head)?;
                    return Ok(ParsedHead::NeedsBody(BodyOperation::Ticket));
                }
                Form::Preflight => options(TICKET_METHODS),
                _ => return Err(Error::MethodNotAllowed { allowed: TICKET_METHODS }),
            },
            COOKIE_PATH if self.sets_cookies() => match form {
                Form::Append | Form::Delete => Operation::Cookie(CookieRequest::parse(&head)?),
                Form::Preflight => options(COOKIE_METHODS),
                _ => return Err(Error::MethodNotAllowed { allowed: COOKIE_METHODS }),
            },
            path if self.subscriptions.is_some() && is_reserved(path) => {
                match SubscriptionRequest::parse(&head)? {
                    SubscriptionHead::Options(methods) => options(methods),
                    SubscriptionHead::Complete(request) => Operation::Subscription(request),
                    SubscriptionHead::NeedsBody(request) => {
                        return Ok(ParsedHead::NeedsBody(BodyOperation::Subscription(request)));
                    }
                }
            }
            // RFC 9110, section 9.3.7: the methods of the server as a whole.
            "*" if form == Form::Preflight => options(STREAM_METHODS),
            "*" => return Err(Error::Asterisk),
            path => match File::at(path) {
                Some(_) if form == Form::Preflight => options(FILE_METHODS),
                Some(file) => Operation::GetFile(GetFile::parse(file, &head)?),
                None => return self.parse_stream(form, &head, is_of_proxy),
            },
        };
        Ok(ParsedHead::Complete(operation))
    }

    /// Whether the gateway has a cookie: it checks credentials, and does not serve pages of any origin.
    fn sets_cookies(&self) -> bool {
        self.auth.is_enabled() && !self.access.origins.allow_any()
    }

    fn parse_stream(&self, form: Form, head: &Parts, is_of_proxy: bool) -> Result<ParsedHead, Error> {
        let name = stream_of_path(head.uri.path())?;
        let operation = match form {
            Form::Create => {
                return Ok(ParsedHead::NeedsBody(BodyOperation::Create(
                    name,
                    Box::new(Put::parse(head, self.access.url_scheme(head, is_of_proxy))?),
                )));
            }
            Form::Append => {
                let mut append = post(head.uri.query(), &head.headers)?;
                append.trace = self.trace_of(&head.headers);
                return Ok(ParsedHead::NeedsBody(BodyOperation::Append(name, Box::new(append))));
            }
            // Without authorization, every client may manage the stream.
            Form::Head => OnStream::Head { may_manage: true },
            Form::Delete => OnStream::Delete,
            Form::Preflight => {
                let options = Box::new(Options::parse(STREAM_METHODS, head));
                return Ok(ParsedHead::Complete(Operation::Options(options)));
            }
            Form::ShortPoll | Form::LongPoll | Form::Sse | Form::Ndjson | Form::WebSocket => {
                return Ok(ParsedHead::Complete(
                    ReadOrSocket::parse(Some(name), head, &self.limits, self.holds)?.into(),
                ));
            }
            Form::Mqtt | Form::Xmpp | Form::Bosh | Form::File | Form::Other => {
                return Err(Error::MethodNotAllowed { allowed: STREAM_METHODS });
            }
        };
        Ok(ParsedHead::Complete(Operation::OnStream(name, operation)))
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

fn parse_device(path: DevicePath, form: Form, head: &Parts) -> Result<ParsedHead, Error> {
    if form == Form::Preflight {
        return Ok(ParsedHead::Complete(Operation::Options(Box::new(Options::parse(path.methods(), head)))));
    }
    match (path.clone().request(&head.method)?, path) {
        (Some(request), _) => Ok(ParsedHead::Complete(Operation::Device(request))),
        (None, DevicePath::Device(id)) => {
            DeviceRequest::check_head(head)?;
            Ok(ParsedHead::NeedsBody(BodyOperation::Device(id)))
        }
        (None, path) => Err(Error::MethodNotAllowed { allowed: path.methods() }),
    }
}

fn parse_bosh(service: &Arc<dyn BoshService>, form: Form, head: &Parts) -> Result<ParsedHead, Error> {
    match form {
        Form::Append => {
            refuse_content_encoding(&head.headers)?;
            Ok(ParsedHead::NeedsBody(BodyOperation::Bosh(service.clone())))
        }
        Form::Preflight => {
            Ok(ParsedHead::Complete(Operation::Options(Box::new(Options::parse(BOSH_METHODS, head)))))
        }
        _ => Err(Error::MethodNotAllowed { allowed: BOSH_METHODS }),
    }
}

fn parse_subprotocol(subprotocol: Subprotocol, form: Form, head: &Parts) -> Result<Operation, Error> {
    match form {
        Form::ShortPoll | Form::WebSocket => {
            let handshake = Handshake::parse_for(subprotocol, head)?;
            Ok(Operation::Subprotocol(subprotocol, Box::new(handshake)))
        }
        Form::Preflight => Ok(Operation::Options(Box::new(Options::parse(SUBPROTOCOL_METHODS, head)))),
        _ => Err(Error::MethodNotAllowed { allowed: SUBPROTOCOL_METHODS }),
    }
}

/// Refuses a method that no resource supports.
fn refuse_unknown_method(head: &Parts) -> Result<(), Error> {
    let opens_socket = || {
        let protocol = head.extensions.get::<Protocol>();
        protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
    };
    let is_known = if head.method == Method::CONNECT { opens_socket() } else { is_known(&head.method) };
    if is_known { Ok(()) } else { Err(Error::UnknownMethod) }
}

/// Whether a method is one that resources refuse with 405 if they do not support it: those of RFC 9110, PATCH and QUERY.
pub(super) fn is_known(method: &Method) -> bool {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE | Method::OPTIONS => true,
        Method::PATCH | Method::TRACE => true,
        ref other => other.as_str() == QUERY,
    }
}

/// Returns the form that the method determines; the query may refine it.
fn form<B>(request: &Request<B>) -> Form {
    match *request.method() {
        Method::PUT => Form::Create,
        Method::POST => Form::Append,
        Method::GET => Form::ShortPoll,
        // An extended CONNECT opens a WebSocket over HTTP/2 (RFC 8441, section 4).
        Method::CONNECT if request.extensions().get::<Protocol>().is_some() => Form::WebSocket,
        Method::HEAD => Form::Head,
        Method::DELETE => Form::Delete,
        Method::OPTIONS => Form::Preflight,
        _ => Form::Other,
    }
}
