//! The admin front: metrics, liveness, readiness, the wait queues and the streams as JSON, an export of all streams, and revocations.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;

use super::access::AccessPolicy;
use super::fields::retry_after;
use super::revocations::RevocationLog;
use crate::access_log::LoggedAddress;
use crate::access_log::audit::{AuditEntry, AuditEvent, AuditLog};
use crate::auth::AdminToken;
use crate::clock::{Clock, rfc3339};
use crate::export::Exporter;
use crate::http::conn::{Answer, Body, ConnectionState, Framing, bare};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::stream::{Store, StreamName};

/// The most clients that one response lists; `/metrics` counts all.
const CLIENTS_MAX: usize = 10_000;

/// The resource that lists streams, how many of them by default, and at most.
const STREAMS: &str = "/streams";
const STREAMS_DEFAULT: usize = 100;
const STREAMS_MAX: usize = 1000;

/// The resource that lists revocations, and revokes with POST.
const REVOCATIONS: &str = "/revocations";

/// The methods of each other resource.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// The front for operators.
pub struct Admin {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    clock: Clock,
    access: AccessPolicy,
    store: Arc<dyn Store>,
    /// Exports that may run, one at a time: each takes up to a message of memory, and reads the whole store.
    exports: Arc<Semaphore>,
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
        let exports = Arc::new(Semaphore::new(1));
        let (revocations, token, audit_log) = (None, None, None);
        Self { hub, metrics, clock, access, store, exports, revocations, token, audit_log }
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
            None if head.method == Method::POST && head.uri.path() == REVOCATIONS => {
                self.revoke(body, address).await
            }
            None if head.method == Method::GET && head.uri.path() == STREAMS => self.list(&head).await,
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
        if matches!(path, "/live" | "/ready") {
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
        // Metrics and health are read every few seconds, so these calls are not logged.
        if path != "/metrics" {
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

    /// Lists streams: the parameters are `prefix`, `after` and `limit`.
    async fn list(&self, head: &Parts) -> Response<Body> {
        let pairs = head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let (mut prefix, mut after, mut max) = (String::new(), None, STREAMS_DEFAULT);
        for (key, value) in pairs {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            let is_valid = match key {
                "prefix" => {
                    prefix = value.into_owned();
                    true
                }
                "after" => StreamName::stored(&value).is_ok_and(|name| after.replace(name).is_none()),
                "limit" => value.parse().is_ok_and(|limit| {
                    max = limit;
                    (1..=STREAMS_MAX).contains(&limit)
                }),
                _ => false,
            };
            if !is_valid {
                let why =
                    format!("the parameters are prefix, after (a name) and limit (1 to {STREAMS_MAX})\n");
                return text(StatusCode::BAD_REQUEST, "text/plain", why);
            }
        }
        match self.hub.list_streams(&prefix, after, max).await {
            Ok(listing) => json(&listing),
            Err(failure) => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{failure}\n")),
        }
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
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let mut answer = match head.method {
                // Load balancers check health with it.
                Method::OPTIONS => text(StatusCode::NO_CONTENT, "text/plain", String::new()),
                Method::POST | Method::PUT | Method::DELETE | Method::PATCH | Method::TRACE => text(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "text/plain",
                    format!("method not allowed; this resource supports {METHODS}\n"),
                ),
                _ => text(StatusCode::NOT_IMPLEMENTED, "text/plain", "unknown method\n".into()),
            };
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
            return answer;
        }
        match head.uri.path() {
            "/live" => text(StatusCode::OK, "text/plain", "live\n".into()),
            "/ready" if self.hub.is_draining() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n".into())
            }
            "/ready" if self.hub.store_has_failed() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the store has failed\n".into())
            }
            "/ready" if self.hub.store_is_damaged() => {
                text(StatusCode::OK, "text/plain", "ready, but the store is damaged\n".into())
            }
            // Ready all the same: the edge still answers reads from the messages in its memory, and keeps polls held.
            "/ready" if !self.hub.store_is_reachable() => text(
                StatusCode::OK,
                "text/plain",
                "ready, but the upstream gateway cannot be reached\n".into(),
            ),
            "/ready" => text(StatusCode::OK, "text/plain", "ready\n".into()),
            "/metrics" => {
                let metrics = self.metrics.text(self.hub.counts(), &self.hub.memory());
                text(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics)
            }
            "/export" => self.export(&head.method),
            REVOCATIONS => json(&self.revocations.as_deref().map(RevocationLog::list).unwrap_or_default()),
            // HEAD; the list itself takes several steps.
            STREAMS => text(StatusCode::OK, "application/json", String::new()),
            "/clients" => json(&self.hub.clients(CLIENTS_MAX)),
            path => match path.strip_prefix("/clients/").and_then(|id| self.client(id)) {
                Some(answer) => answer,
                None => text(
                    StatusCode::NOT_FOUND,
                    "text/plain",
                    "no resource at this path; there are /metrics, /live, /ready, /export, /streams, /clients, /clients/{id} and /revocations\n".into(),
                ),
            },
        }
    }

    /// Exports all streams as lines of JSON, which `pollgate store import` reads. The last line tells whether it is complete.
    fn export(&self, method: &Method) -> Response<Body> {
        let Ok(turn) = self.exports.clone().try_acquire_owned() else {
            let why = "another export is under way; try again when it has ended\n";
            let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why.into());
            answer.headers_mut().insert(RETRY_AFTER, retry_after());
            return answer;
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
    let mut body = serde_json::to_string(value).unwrap_or_default();
    body.push('\n');
    text(StatusCode::OK, "application/json", body)
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut answer = bare(status, Body::full(body.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
