//! Typed requests: the operation with its body, and the data that metrics and the log need when the request is answered.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::REFERRER_POLICY;
use tokio::time::Instant;
use tracing::Span;

use super::audit::AuditNote;
use super::bosh::BoshRequest;
use super::cookies::CookieRequest;
use super::credentials::ticket_of;
use super::devices::DeviceRequest;
use super::error::Error;
use super::fields::STREAM_WARNING;
use super::files::GetFile;
use super::form::Form;
use super::forwarded::ClientSource;
use super::gateway::Gateway;
use super::handlers::Put;
use super::handshake::{Handshake, Subprotocol};
use super::names::NamesRequest;
use super::options::Options;
use super::origins::AllowedOrigin;
use super::subscriptions::SubscriptionRequest;
use super::target::unknown_parameters;
use super::tickets::{TicketRequest, without_secrets};
use crate::access_log::{AccessEntry, LoggedAddress, LoggedRequest};
use crate::auth::Grants;
use crate::budget::principal_of;
use crate::clock::rfc3339;
use crate::http::conn::{Answer, ConnectionState, Framing};
use crate::http::read::request::{Read, ReadOrSocket, Taker, WebSocket};
use crate::hub::ClientId;
use crate::metrics::TenantPlace;
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
        let client = known.and_then(Operation::client).map(ClientId::chosen);
        let log = RequestLog::new(form, framing, origin, known.map_or("", Operation::stream), client);
        Self { operation, log }
    }

    /// Charges what a request that a proxy has sent stores to the address of its client. The memory that it takes while it is
    /// under way belongs to the connection, which is that of the proxy.
    pub(in crate::http) fn came_from(&mut self, source: ClientSource<'_>) {
        let (Some(address), Ok(operation)) = (source.forwarded, &mut self.operation) else { return };
        let principal = principal_of(address);
        match operation {
            Operation::OnStream(_, OnStream::Append(append)) => {
                append.principal = append.principal.or(principal);
            }
            Operation::OnStream(_, OnStream::Create(put, _)) => put.principal = put.principal.or(principal),
            Operation::WebSocket(socket) => socket.handshake.forwarded = Some(address),
            Operation::Subprotocol(_, handshake) => handshake.forwarded = Some(address),
            Operation::Bosh(request) => request.forwarded = Some(address),
            Operation::OnStream(_, OnStream::Head { .. } | OnStream::Delete) => {}
            Operation::Device(DeviceRequest::Put(spec)) => spec.principal = spec.principal.or(principal),
            Operation::Read(_) | Operation::Options(_) | Operation::GetFile(_) => {}
            Operation::Subscription(request) => request.principal = request.principal.or(principal),
            Operation::Ticket(_) | Operation::Cookie(_) | Operation::Device(_) | Operation::Names(_) => {}
        }
    }
}

/// The operation that a request names.
pub(in crate::http) enum Operation {
    OnStream(StreamName, OnStream),
    Read(Read),
    WebSocket(Box<WebSocket>),
    Options(Box<Options>),
    GetFile(GetFile),
    /// A WebSocket for another front.
    Subprotocol(Subprotocol, Box<Handshake>),
    /// A BOSH request.
    Bosh(Box<BoshRequest>),
    /// The exchange of a token for a ticket.
    Ticket(Box<TicketRequest>),
    Device(DeviceRequest),
    /// The exchange of a token for a cookie.
    Cookie(CookieRequest),
    /// A request about subscriptions.
    Subscription(Box<SubscriptionRequest>),
    /// A list of names.
    Names(Box<NamesRequest>),
}

/// An operation on one stream that delivers no messages.
pub(in crate::http) enum OnStream {
    Create(Box<Put>, Bytes),
    Append(Box<Append>),
    Head {
        /// The client may manage the stream.
        may_manage: bool,
    },
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
            Self::Options(_)
            | Self::GetFile(_)
            | Self::Subprotocol(..)
            | Self::Bosh(_)
            | Self::Ticket(_)
            | Self::Cookie(_)
            | Self::Device(_)
            | Self::Names(_)
            | Self::Subscription(_) => "",
        }
    }

    /// The client id, if the client sent one.
    pub(in crate::http) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Read(read) => read.client(),
            Self::OnStream(..) | Self::WebSocket(_) | Self::Options(_) => None,
            Self::GetFile(_)
            | Self::Subprotocol(..)
            | Self::Bosh(_)
            | Self::Ticket(_)
            | Self::Cookie(_)
            | Self::Device(_)
            | Self::Names(_)
            | Self::Subscription(_) => None,
        }
    }

    /// The form of the request, if its method does not determine it.
    pub(in crate::http) fn form(&self) -> Option<Form> {
        match self {
            Self::Read(read) => Some(read.form()),
            Self::WebSocket(_) => Some(Form::WebSocket),
            Self::GetFile(_) => Some(Form::File),
            Self::Subprotocol(Subprotocol::Mqtt, _) => Some(Form::Mqtt),
            Self::Subprotocol(Subprotocol::Xmpp, _) => Some(Form::Xmpp),
            Self::Bosh(_) => Some(Form::Bosh),
            Self::Ticket(_) | Self::Cookie(_) | Self::Device(_) | Self::Names(_) | Self::Subscription(_) => {
                Some(Form::Other)
            }
            Self::OnStream(..) | Self::Options(_) => None,
        }
    }
}

impl Gateway {
    /// Finishes the response to an outcome, counts it and logs it.
    pub(in crate::http) fn finish<A: Answer>(&self, log: &mut RequestLog, outcome: Result<A, Error>) -> A {
        let mut answer = outcome.unwrap_or_else(|error| {
            if let Some(note) = log.notes.as_ref().and_then(|notes| notes.audit.as_ref()) {
                self.audit_refusal(note, &error);
            }
            A::from(error.into_answer())
        });
        self.access.origins.fields(log.origin).put(&mut answer);
        let keep_alive = log.framing.keep_alive && !self.hub.is_shedding();
        answer.frame(Framing { keep_alive, ..log.framing }, self.clock.wall());
        let status = answer.status().as_u16();
        self.forms.answered(log.form, status);
        if let (Some(tenant), 403 | 429 | 507) = (log.tenant, status) {
            self.metrics.tenant_refused(tenant);
        }
        if let Some(notes) = &mut log.notes {
            if let Some(note) = &notes.audit {
                self.audit_change(note, answer.status());
            }
            notes.finish(&mut answer);
        }
        answer
    }

    /// Notes a request for the access log and the audit log, if there are, and for the warning about unknown parameters of its query.
    /// `who` is for the audit log.
    pub(in crate::http) fn note(
        &self,
        request: &mut GatewayRequest,
        source: ClientSource<'_>,
        who: Option<Arc<Grants>>,
        method: &str,
        target: &str,
        query: Option<&str>,
    ) {
        if let Some(access_log) = &self.access_log {
            let client = request.operation.as_ref().ok().and_then(Operation::client).map(ClientId::chosen);
            let target = &without_secrets(target);
            let logged = LoggedRequest { method, target, form: request.log.form.as_str(), client };
            let time = rfc3339(self.clock.wall());
            let mut access = access_log.begin(logged, time);
            access.set_address(source.forwarded.map(LoggedAddress::Told));
            request.log.notes().access = Some(access);
        }
        if let Ok(Operation::Read(Read::LongPoll(poll))) = &mut request.operation
            && let (Some(client), Some(_)) = (&poll.client, &self.audit_log)
        {
            let (who, address) = (who.clone(), source.forwarded.map(LoggedAddress::Told));
            poll.taker = Some(Box::new(Taker { who, client: client.clone(), address }));
        }
        if self.audit_log.is_some() && (request.operation.is_err() || AuditNote::is_change(method, query)) {
            let address = source.forwarded.map(LoggedAddress::Told);
            request.log.notes().audit = Some(AuditNote::new(who, address, method, target));
        }
        if self.auth.is_enabled() && query.and_then(ticket_of).is_some() {
            request.log.notes().has_ticket = true;
        }
        if let Some(warning) = query.and_then(unknown_parameters) {
            request.log.notes().warning = Some(warning);
        }
    }
}

/// The parts of a request that are needed when it is answered: for metrics, the log, and the framing of the response.
pub(in crate::http) struct RequestLog {
    pub(in crate::http) form: Form,
    pub(in crate::http) framing: Framing,
    /// The origin of the page that sent the request, unless it is the gateway's own.
    pub(in crate::http) origin: Option<AllowedOrigin>,
    /// Where a refusal of the client is counted. `None`: it has no credentials.
    tenant: Option<TenantPlace>,
    /// `None` for most requests, so that they take no memory for it.
    notes: Option<Box<RequestNotes>>,
}

/// What few requests need when they are answered.
struct RequestNotes {
    /// The span of the request, if spans of its level are recorded.
    span: Option<Span>,
    /// When the request was complete.
    since: Instant,
    /// The entry in the access log.
    access: Option<AccessEntry>,
    /// For the audit log.
    audit: Option<AuditNote>,
    /// The value of the field that warns of unknown parameters.
    warning: Option<String>,
    /// The URL contains a ticket.
    has_ticket: bool,
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
        let mut log = Self { form, framing, origin, tenant: None, notes: None };
        let span = tracing::debug_span!("request", form = form.as_str(), stream, client);
        if !span.is_disabled() {
            log.notes().span = Some(span);
        }
        log
    }

    fn notes(&mut self) -> &mut RequestNotes {
        self.notes.get_or_insert_with(|| {
            let (span, access, audit, warning) = Default::default();
            Box::new(RequestNotes { span, since: Instant::now(), access, audit, warning, has_ticket: false })
        })
    }

    /// Sets the tenant of a client with credentials, for which a refusal is counted.
    pub(in crate::http) fn of_tenant(&mut self, tenant: Option<TenantPlace>) {
        self.tenant = tenant;
    }

    /// The span that records the request, if any does.
    pub(in crate::http) fn span(&self) -> Option<&Span> {
        self.notes.as_ref()?.span.as_ref()
    }

    /// Notes the connection that the request came from, unless its proxy has told the client.
    pub(in crate::http) fn came_from(&mut self, state: &ConnectionState) {
        let Some(notes) = &mut self.notes else { return };
        let peer = || state.peer().map(LoggedAddress::Peer);
        if let Some(access) = notes.access.as_mut().filter(|access| !access.has_address()) {
            access.set_address(peer());
        }
        if let Some(audit) = &mut notes.audit {
            audit.address = audit.address.or_else(peer);
        }
    }

    /// Notes that an append has created its stream.
    pub(in crate::http) fn has_created(&mut self) {
        if let Some(audit) = self.notes.as_mut().and_then(|notes| notes.audit.as_mut()) {
            audit.has_created = true;
        }
    }

    /// Takes the entry of the access log of a request that switches protocols, to be completed when the new protocol ends.
    pub(in crate::http) fn take_access(&mut self) -> Option<AccessEntry> {
        let mut access = self.notes.as_mut()?.access.take()?;
        access.set_status(StatusCode::SWITCHING_PROTOCOLS.as_u16());
        Some(access)
    }
}

impl RequestNotes {
    #[cold]
    fn finish(&mut self, answer: &mut impl Answer) {
        let status = answer.status().as_u16();
        if self.has_ticket {
            answer.add(REFERRER_POLICY, b"no-referrer");
        }
        if let Some(warning) = self.warning.take() {
            answer.add(STREAM_WARNING, warning.as_bytes());
        }
        if let Some(span) = &self.span {
            let held_ms = self.since.elapsed().as_millis() as u64;
            span.in_scope(|| tracing::debug!(status, held_ms, "answered"));
        }
        if let Some(mut access) = self.access.take() {
            access.set_status(status);
            answer.log(access);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each held poll keeps one.
    #[test]
    fn the_log_of_a_request_without_notes_fits_into_16_bytes() {
        assert!(size_of::<RequestLog>() <= 16, "{}", size_of::<RequestLog>());
    }
}
