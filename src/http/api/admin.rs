//! The admin front: metrics, liveness, readiness, the dashboard and what it shows (wait queues, streams and messages as JSON), an export
//! of all streams, revocations, and the drain.

mod messages;
mod overview;
mod parameters;
mod view;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;

use super::access::AccessPolicy;
use super::error::Error;
use super::fields::{X_ACCEL_BUFFERING, retry_after};
use super::files::{File, GetFile};
use super::revocations::RevocationLog;
use super::routes::is_known;
use crate::access_log::LoggedAddress;
use crate::access_log::audit::{AuditEntry, AuditEvent, AuditLog};
use crate::auth::AdminToken;
use crate::clock::{Clock, rfc3339};
use crate::export::Exporter;
use crate::http::conn::{Answer, Body, ConnectionState, Framing, bare};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::stream::Store;
use overview::{Overview, Readiness};
use parameters::ViewError;
use view::{AdminView, CLIENTS, MESSAGES, OVERVIEW, STREAMS};

/// Views that may be sent as events at the same time, of all viewers. A dashboard takes three.
const LIVE_VIEWS_MAX: usize = 48;

/// The resource that drains the gateway with POST.
const DRAIN: &str = "/drain";

/// The resource that lists revocations, and revokes with POST.
const REVOCATIONS: &str = "/revocations";

/// The OpenAPI description of the resources.
const DESCRIPTION: &str = include_str!("../../web/openapi-admin.json");

/// The front for operators.
pub struct Admin {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    clock: Clock,
    access: AccessPolicy,
    store: Arc<dyn Store>,
    /// Exports that may run, one at a time: each takes up to a message of memory, and reads the whole store.
    exports: Arc<Semaphore>,
    overview: Arc<Overview>,
    /// Places of the views that are sent as events.
    live_views: Arc<Semaphore>,
    /// Asks the process to drain and to end.
    drain: Arc<Notify>,
    /// `None`: the gateway checks no tokens.
    revocations: Option<Box<RevocationLog>>,
    /// The token that requests must send. `None`: they need none.
    token: Option<AdminToken>,
    /// Where calls are logged, if they are.
    audit_log: Option<AuditLog>,
}

impl Admin {
    /// Creates an admin front of `hub`, which is over `store`.
    pub fn new(
        hub: Arc<Hub>,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        clock: Clock,
        access: AccessPolicy,
    ) -> Self {
        let overview = Arc::new(Overview::new(metrics.clone(), clock));
        Self {
            hub,
            metrics,
            clock,
            access,
            store,
            exports: Arc::new(Semaphore::new(1)),
            overview,
            live_views: Arc::new(Semaphore::new(LIVE_VIEWS_MAX)),
            drain: Arc::default(),
            revocations: None,
            token: None,
            audit_log: None,
        }
    }

    /// Notifies `drain` when an operator asks for a drain.
    pub fn draining_by(self, drain: Arc<Notify>) -> Self {
        Self { drain, ..self }
    }

    /// Lets operators revoke tokens.
    pub fn revoking(self, revocations: Option<RevocationLog>) -> Self {
        Self { revocations: revocations.map(Box::new), ..self }
    }

    /// Requires the token in each request, except for those that ask whether the gateway is alive and ready.
    pub fn requiring(self, token: Option<AdminToken>) -> Self {
        Self { token, ..self }
    }

    /// Logs calls.
    pub fn auditing(self, audit_log: Option<AuditLog>) -> Self {
        Self { audit_log, ..self }
    }

    pub(in crate::http) fn is_audited(&self) -> bool {
        self.audit_log.is_some()
    }

    /// Answers one request.
    pub(in crate::http) async fn answer<A: Answer>(
        &self,
        request: Request<Incoming>,
        framing: Framing,
        state: &ConnectionState,
    ) -> A {
        let (head, body) = request.into_parts();
        let address = state.peer().map(LoggedAddress::Peer);
        let mut answer = A::from(match self.refusal(&head, address) {
            Some(refusal) => refusal,
            None if head.method == Method::POST => match head.uri.path() {
                REVOCATIONS => self.revoke(body, address).await,
                MESSAGES => {
                    let (status, why) = messages::publish(&self.hub, &head, body).await;
                    text(status, "text/plain", why)
                }
                DRAIN => self.start_drain(),
                _ => self.respond(&head),
            },
            None if head.method == Method::GET => match AdminView::parse(&head, &self.overview) {
                Some(parsed) => self.show(parsed).await,
                None => self.respond(&head),
            },
            None => self.respond(&head),
        });
        answer.frame(framing, self.clock.wall());
        answer
    }

    /// Decides whether a request is refused. Every request passes here.
    fn refusal(&self, head: &Parts, address: Option<LoggedAddress>) -> Option<Response<Body>> {
        if let Err(error) = self.access.admit(head) {
            return Some(error.into_answer());
        }
        let path = head.uri.path();
        // The page itself holds nothing; it asks for the token.
        if matches!(path, "/live" | "/ready") || File::of_dashboard(path).is_some() {
            return None;
        }
        let mut values = head.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let (value, second) = (values.next(), values.next());
        let is_allowed = self.token.as_ref().is_none_or(|token| second.is_none() && token.is_in(value));
        let call = || format!("{} {path}", head.method);
        if !is_allowed {
            self.audit(AuditEvent::Refused, address, &call());
            let why = "this needs the token of --admin-token-file: `Authorization: Bearer TOKEN`\n";
            let mut answer = text(StatusCode::UNAUTHORIZED, "text/plain", why.into());
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Some(answer);
        }
        // Metrics, health and the overview are read every few seconds, so these calls are not logged.
        if !matches!(path, "/metrics" | OVERVIEW) {
            self.audit(AuditEvent::Admin, address, &call());
        }
        None
    }

    fn audit(&self, event: AuditEvent, address: Option<LoggedAddress>, reason: &str) {
        if let Some(log) = &self.audit_log {
            let entry = AuditEntry {
                who: self.token.as_ref().filter(|_| event != AuditEvent::Refused).map(|_| "admin"),
                address,
                reason: Some(reason),
                ..AuditEntry::new(event)
            };
            log.write(entry, || rfc3339(self.clock.wall()));
        }
    }

    /// Answers with a view, once or as events.
    async fn show(&self, parsed: Result<(AdminView, bool), ViewError>) -> Response<Body> {
        let shown = match parsed {
            Ok((view, true)) => return self.show_live(view),
            Ok((view, false)) => view.json(&self.hub).await,
            Err(error) => Err(error),
        };
        let json = match shown {
            Ok(json) => json,
            Err(error) => {
                let status = match &error {
                    ViewError::Parameters(_) => StatusCode::BAD_REQUEST,
                    ViewError::Missing => StatusCode::NOT_FOUND,
                    ViewError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                return text(status, "text/plain", format!("{error}\n"));
            }
        };
        let mut answer = text(StatusCode::OK, "application/json", String::new());
        *answer.body_mut() = Body::full(json);
        answer
    }

    fn show_live(&self, view: AdminView) -> Response<Body> {
        let Ok(place) = self.live_views.clone().try_acquire_owned() else {
            let why = "too many dashboards are open; try again when one of them is closed\n";
            return retry_later(why);
        };
        let mut answer = text(StatusCode::OK, "text/event-stream", String::new());
        answer.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        *answer.body_mut() = Body::live(Box::pin(view.events(self.hub.clone(), place)));
        answer
    }

    /// Asks the process to drain, as SIGTERM does.
    fn start_drain(&self) -> Response<Body> {
        tracing::info!("an operator asks for a drain");
        self.drain.notify_one();
        text(StatusCode::ACCEPTED, "text/plain", "the gateway drains and ends\n".into())
    }

    async fn revoke(&self, body: Incoming, address: Option<LoggedAddress>) -> Response<Body> {
        match &self.revocations {
            Some(revocations) => {
                let (status, text_or_json) = revocations.answer(body).await;
                if status == StatusCode::OK {
                    self.audit(AuditEvent::Revoked, address, text_or_json.trim_end());
                }
                let content_type = if status == StatusCode::OK { "application/json" } else { "text/plain" };
                text(status, content_type, text_or_json)
            }
            None => {
                text(StatusCode::NOT_FOUND, "text/plain", "this gateway checks no tokens (--auth)\n".into())
            }
        }
    }

    fn respond(&self, head: &Parts) -> Response<Body> {
        let path = head.uri.path();
        if let Some(file) = File::of_dashboard(path).filter(|_| head.method != Method::OPTIONS) {
            return GetFile::parse(file, head).map_or_else(Error::into_answer, GetFile::answer);
        }
        let methods = match path {
            DRAIN => "POST, OPTIONS",
            MESSAGES | REVOCATIONS => "GET, HEAD, POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        };
        if !matches!(head.method, Method::GET | Method::HEAD) || path == DRAIN {
            let mut answer = match head.method {
                // Load balancers check health with it.
                Method::OPTIONS => text(StatusCode::NO_CONTENT, "text/plain", String::new()),
                ref known if is_known(known) => text(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "text/plain",
                    format!("method not allowed; this resource supports {methods}\n"),
                ),
                _ => text(StatusCode::NOT_IMPLEMENTED, "text/plain", "unknown method\n".into()),
            };
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            return answer;
        }
        match path {
            "/live" => text(StatusCode::OK, "text/plain", "live\n".into()),
            "/ready" => {
                let state = Readiness::of(&self.hub);
                let status = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, "text/plain", state.text().into())
            }
            "/metrics" => {
                let metrics = self.metrics.text(self.hub.counts(), &self.hub.memory());
                text(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics)
            }
            "/export" => self.export(&head.method),
            "/openapi.json" => text(StatusCode::OK, "application/json", DESCRIPTION.to_owned()),
            REVOCATIONS => json(&self.revocations.as_deref().map(RevocationLog::list).unwrap_or_default()),
            // HEAD.
            OVERVIEW | STREAMS | CLIENTS | MESSAGES => text(StatusCode::OK, "application/json", String::new()),
            path => match path.strip_prefix("/clients/").and_then(|id| self.client(id)) {
                Some(answer) => answer,
                None => text(
                    StatusCode::NOT_FOUND,
                    "text/plain",
                    "no resource at this path; there are /, /metrics, /live, /ready, /overview, /streams, /clients, \
                     /clients/{client}, /messages, /export, /revocations, /drain and /openapi.json\n"
                        .into(),
                ),
            },
        }
    }

    /// Exports all streams as lines of JSON, which `pollgate store import` reads. The last line tells whether it is complete.
    fn export(&self, method: &Method) -> Response<Body> {
        let Ok(turn) = self.exports.clone().try_acquire_owned() else {
            return retry_later("another export is under way; try again when it has ended\n");
        };
        let mut answer = text(StatusCode::OK, "application/x-ndjson", String::new());
        if method == Method::GET {
            let exporter = Exporter::new(self.store.clone(), self.clock);
            *answer.body_mut() = Body::live(Box::pin(pieces(exporter, turn, self.hub.clone())));
        }
        answer
    }

    fn client(&self, id: &str) -> Option<Response<Body>> {
        let id = percent_encoding::percent_decode_str(id).decode_utf8().ok()?;
        self.hub.client(&id).as_ref().map(json)
    }
}

/// The pieces of an export, which ends early with a line that says so if a stream cannot be read or the gateway drains.
fn pieces(exporter: Exporter, turn: OwnedSemaphorePermit, hub: Arc<Hub>) -> impl Stream<Item = Bytes> + Send {
    unfold(Some((exporter, turn, hub)), async |running| {
        let (mut exporter, turn, hub) = running?;
        let piece = if hub.is_draining() {
            Err("the gateway is draining".to_owned())
        } else {
            exporter.next().await?.map_err(|error| error.to_string())
        };
        Some(match piece {
            Ok(piece) => (piece, Some((exporter, turn, hub))),
            Err(why) => {
                tracing::warn!(why, "an export was broken off");
                (exporter.broken_off(why), None)
            }
        })
    })
}

fn json(value: &impl Serialize) -> Response<Body> {
    let mut answer = text(StatusCode::OK, "application/json", String::new());
    *answer.body_mut() = Body::full(parameters::json(value));
    answer
}

fn retry_later(why: &str) -> Response<Body> {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why.into());
    answer.headers_mut().insert(RETRY_AFTER, retry_after());
    answer
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut answer = bare(status, Body::full(body.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
