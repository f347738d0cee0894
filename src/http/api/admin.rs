//! The admin front: metrics, liveness, readiness, and the wait queues as JSON.

use std::sync::Arc;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::access::AccessPolicy;
use crate::clock::Clock;
use crate::http::conn::bare;
use crate::http::conn::{Answer, Body, Framing};
use crate::hub::Hub;
use crate::metrics::Metrics;

/// The most clients that one response lists; `/metrics` counts all.
const CLIENTS_MAX: usize = 10_000;

/// The methods of each resource.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// The front for operators.
pub struct Admin {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    clock: Clock,
    access: AccessPolicy,
}

impl Admin {
    /// Creates an admin front of `hub`.
    pub fn new(hub: Arc<Hub>, metrics: Arc<Metrics>, clock: Clock, access: AccessPolicy) -> Self {
        Self { hub, metrics, clock, access }
    }

    /// Answers one request.
    pub(in crate::http) fn answer<A: Answer>(&self, head: &Parts, framing: Framing) -> A {
        let mut answer = A::from(match self.access.admit(head) {
            Ok(_) => self.respond(head),
            Err(error) => error.into_answer(),
        });
        answer.frame(framing, self.clock.wall());
        answer
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
            "/ready" => text(StatusCode::OK, "text/plain", "ready\n".into()),
            "/metrics" => {
                let metrics = self.metrics.text(self.hub.counts(), &self.hub.memory());
                text(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics)
            }
            "/clients" => json(&self.hub.clients(CLIENTS_MAX)),
            path => match path.strip_prefix("/clients/").and_then(|id| self.client(id)) {
                Some(answer) => answer,
                None => text(
                    StatusCode::NOT_FOUND,
                    "text/plain",
                    "no resource at this path; there are /metrics, /live, /ready, /clients and /clients/{id}\n".into(),
                ),
            },
        }
    }

    fn client(&self, id: &str) -> Option<Response<Body>> {
        let id = percent_encoding::percent_decode_str(id).decode_utf8().ok()?;
        self.hub.client(&id).as_ref().map(json)
    }
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
