//! `/v1/stream/__ds/…`: subscriptions, the calls of their workers, and the keys of webhooks (protocol, section 6).
//!
//! Clients create and change subscriptions with their credentials; they may manage all streams that a subscription links or matches.
//! Workers call back with the token of their wake instead.

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::answer;
use super::credentials::Rights;
use super::error::Error;
use super::fields;
use super::gateway::{Gateway, SubscriptionFront};
use super::subscription_bodies::{ClaimBody, LinkBody, NewSubscription, SettlementBody, parse};
use super::target::{STREAMS, decoded, stream_name};
use crate::auth::{Action, Unauthorized, is_own};
use crate::http::conn::Body;
use crate::http_client::check_client_url;
use crate::hub::subscriptions::{
    SubscriptionConfig, SubscriptionError, SubscriptionTable, SubscriptionView, WakeBy,
};
use crate::stream::{ChangeError, Principal, StreamName, Tenant};

/// The paths of subscriptions, behind [`STREAMS`].
const RESERVED: &str = "__ds/";

/// The longest name of a subscription and of a worker, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// What a path of subscriptions is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resource {
    Keys,
    Subscription(String),
    Links(String),
    Link(String, String),
    Call(String, Call),
}

/// What a worker calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Claim,
    Callback,
    Ack,
    Release,
}

/// A request about subscriptions.
pub(in crate::http) struct SubscriptionRequest {
    resource: Resource,
    method: Method,
    /// The token that a worker sends.
    token: Option<String>,
    body: Bytes,
    /// Who is charged for a subscription that is created; the gateway, if the address of the connection is its principal.
    pub(super) principal: Principal,
    /// What the client may do. `None`: the gateway checks no credentials, or the request needs none.
    pub(super) rights: Option<Rights>,
}

/// Whether a path may be one of subscriptions.
pub(in crate::http) fn is_reserved(path: &str) -> bool {
    path.strip_prefix(STREAMS).is_some_and(|rest| rest.starts_with(RESERVED))
}

impl Resource {
    fn at(path: &str) -> Result<Self, Error> {
        let rest = path.strip_prefix(STREAMS).and_then(|rest| rest.strip_prefix(RESERVED));
        let mut parts = rest.ok_or(Error::Reserved)?.splitn(4, '/');
        let id = match (parts.next(), parts.next()) {
            (Some("jwks.json"), None) => return Ok(Self::Keys),
            (Some("subscriptions"), Some(id)) => id,
            _ => return Err(Error::Reserved),
        };
        let is_name =
            |id: &String| (1..=NAME_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control);
        let id = || decoded(id).filter(is_name).ok_or(Error::SubscriptionName);
        Ok(match (parts.next(), parts.next()) {
            (None, None) => Self::Subscription(id()?),
            (Some("streams"), None) => Self::Links(id()?),
            (Some("streams"), Some(path)) => {
                let stream = decoded(path).ok_or(Error::PercentEscape)?;
                stream_name(stream.trim_matches('/'))?;
                Self::Link(id()?, stream)
            }
            (Some("claim"), None) => Self::Call(id()?, Call::Claim),
            (Some("callback"), None) => Self::Call(id()?, Call::Callback),
            (Some("ack"), None) => Self::Call(id()?, Call::Ack),
            (Some("release"), None) => Self::Call(id()?, Call::Release),
            _ => return Err(Error::Reserved),
        })
    }

    /// The methods of the resource, as `Allow` has them.
    fn methods(&self) -> &'static str {
        match self {
            Self::Keys => "GET, OPTIONS",
            Self::Subscription(_) => "PUT, GET, DELETE, OPTIONS",
            Self::Links(_) | Self::Call(..) => "POST, OPTIONS",
            Self::Link(..) => "DELETE, OPTIONS",
        }
    }

    /// Whether the request needs no credentials of a client: it is public, or the token of a wake is checked instead.
    fn is_without_credentials(&self) -> bool {
        match self {
            Self::Keys => true,
            Self::Call(_, call) => *call != Call::Claim,
            Self::Subscription(_) | Self::Links(_) | Self::Link(..) => false,
        }
    }
}

/// Whether a request to this path is checked by the token of a wake, or by nothing, instead of the credentials of a client.
pub(super) fn is_without_credentials(path: &str) -> bool {
    is_reserved(path) && Resource::at(path).is_ok_and(|resource| resource.is_without_credentials())
}

/// A request about subscriptions, as far as its head tells.
pub(super) enum SubscriptionHead {
    /// OPTIONS of a resource with these methods.
    Options(&'static str),
    Complete(Box<SubscriptionRequest>),
    NeedsBody(Box<SubscriptionRequest>),
}

impl SubscriptionRequest {
    /// Parses the head of a request to a reserved path.
    pub(super) fn parse(head: &Parts) -> Result<SubscriptionHead, Error> {
        let resource = Resource::at(head.uri.path())?;
        let methods = resource.methods();
        let method = head.method.clone();
        if method == Method::OPTIONS {
            return Ok(SubscriptionHead::Options(methods));
        }
        if !methods.split(", ").any(|allowed| allowed == method.as_str()) {
            return Err(Error::MethodNotAllowed { allowed: methods });
        }
        let bearer = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        let needs_body = matches!(method, Method::PUT | Method::POST);
        let principal = Principal::GATEWAY;
        let request = Box::new(Self { resource, method, token, body: Bytes::new(), principal, rights: None });
        Ok(if needs_body {
            SubscriptionHead::NeedsBody(request)
        } else {
            SubscriptionHead::Complete(request)
        })
    }

    pub(super) fn with_body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    fn tenant(&self) -> Tenant {
        self.rights.as_ref().map(|rights| rights.grants().tenant().clone()).unwrap_or_default()
    }

    /// Checks that the client may do `action` to all streams that a configuration names or matches, and append to its stream of wakes.
    fn check(&self, action: Action, config: &SubscriptionConfig) -> Result<(), Error> {
        let Some(rights) = &self.rights else { return Ok(()) };
        if let Some(pattern) = &config.pattern {
            rights.check_filter(action, &rights.enter_filter(&pattern.filter()))?;
        }
        if let (WakeBy::PullWake(stream), Action::Manage) = (&config.wake_by, action) {
            rights.check_named(Action::Append, &stream_name(stream)?)?;
        }
        self.check_streams(action, config.streams.iter().map(String::as_str))
    }

    fn check_streams<'a>(
        &self,
        action: Action,
        streams: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Error> {
        let Some(rights) = &self.rights else { return Ok(()) };
        streams.into_iter().try_for_each(|stream| rights.check_named(action, &stream_name(stream)?))
    }

    /// The name in the hub of a stream that the client names.
    fn stream_in_hub(&self, name: &str) -> Result<StreamName, Error> {
        Ok(stream_name(name.trim_matches('/'))?.of_tenant(&self.tenant()))
    }
}

/// The outcome of a request that the protocol's own errors can end.
type Outcome = Result<Response<Body>, Refused>;

/// Why a request is refused: by the gateway as any other, or with an error of the protocol.
enum Refused {
    Gateway(Error),
    Protocol(SubscriptionError),
    Url(&'static str),
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Gateway(error.into())
    }
}

impl From<SubscriptionError> for Refused {
    fn from(error: SubscriptionError) -> Self {
        match error {
            SubscriptionError::Store(failure) => Self::Gateway(Error::Change(ChangeError::Failed(failure))),
            other => Self::Protocol(other),
        }
    }
}

impl Gateway {
    /// Answers a request about subscriptions.
    pub(in crate::http) async fn manage_subscription(
        &self,
        request: SubscriptionRequest,
    ) -> Result<Response<Body>, Error> {
        let front = self.subscriptions.as_ref().ok_or(Error::Reserved)?;
        let is_open = !self.auth.is_enabled() || request.resource.is_without_credentials();
        if !is_open && request.rights.is_none() {
            return Err(Error::Unauthorized(Unauthorized::Missing));
        }
        let outcome = match request.resource.clone() {
            Resource::Keys => return Ok(keys(front.subscriptions.keys().jwks())),
            Resource::Subscription(id) => match request.method {
                Method::PUT => create(front, &request, id).await,
                Method::DELETE => delete(front, &request, &id).await,
                _ => described(front, &request, &id).await,
            },
            Resource::Links(id) => relink(front, &request, &id, None).await,
            Resource::Link(id, stream) => relink(front, &request, &id, Some(&stream)).await,
            Resource::Call(id, Call::Claim) => claim(front, &request, &id).await,
            Resource::Call(id, call) => settle(front, &request, &id, call).await,
        };
        match outcome {
            Ok(response) => Ok(response),
            Err(Refused::Gateway(error)) => Err(error),
            Err(Refused::Protocol(error)) => Ok(refusal(&error)),
            Err(Refused::Url(why)) => {
                Ok(error_response(StatusCode::BAD_REQUEST, "WEBHOOK_URL_REJECTED", why))
            }
        }
    }
}

async fn create(front: &SubscriptionFront, request: &SubscriptionRequest, id: String) -> Outcome {
    let config = parse::<NewSubscription>(&request.body)?.into_config()?;
    config.streams.iter().try_for_each(|stream| stream_name(stream).map(drop))?;
    if config.pattern.as_ref().is_some_and(|pattern| is_own(pattern.as_str())) {
        return Err(Error::OwnStream.into());
    }
    if let WakeBy::Webhook(url) = &config.wake_by {
        check_client_url(url, &front.policy).map_err(Refused::Url)?;
    }
    request.check(Action::Manage, &config)?;
    if let WakeBy::PullWake(stream) = &config.wake_by {
        front.subscriptions.check_wake_stream(&request.stream_in_hub(stream)?).await?;
    }
    let (view, is_new) = front.subscriptions.create(request.tenant(), id, config, request.principal).await?;
    Ok(json_response(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &view))
}

/// Returns a subscription, if the client may do `action` to all of its streams.
async fn permitted(
    front: &SubscriptionFront,
    request: &SubscriptionRequest,
    id: &str,
    action: Action,
) -> Result<SubscriptionView, Refused> {
    let (view, config) = front.subscriptions.describe(&request.tenant(), id).await?;
    request.check(action, &config)?;
    request.check_streams(action, view.explicit_streams())?;
    Ok(view)
}

async fn described(front: &SubscriptionFront, request: &SubscriptionRequest, id: &str) -> Outcome {
    Ok(json_response(StatusCode::OK, &permitted(front, request, id, Action::Manage).await?))
}

async fn delete(front: &SubscriptionFront, request: &SubscriptionRequest, id: &str) -> Outcome {
    match permitted(front, request, id, Action::Manage).await {
        Ok(_) => front.subscriptions.delete(&request.tenant(), id).await?,
        Err(Refused::Protocol(SubscriptionError::NotFound)) => {}
        Err(refused) => return Err(refused),
    }
    Ok(answer::uncached(StatusCode::NO_CONTENT))
}

async fn relink(
    front: &SubscriptionFront,
    request: &SubscriptionRequest,
    id: &str,
    removed: Option<&str>,
) -> Outcome {
    permitted(front, request, id, Action::Manage).await?;
    let added = match removed {
        Some(_) => Vec::new(),
        None => parse::<LinkBody>(&request.body)?.streams()?,
    };
    let added: Vec<_> = added.iter().map(|name| request.stream_in_hub(name)).collect::<Result<_, _>>()?;
    request.check_streams(Action::Manage, added.iter().map(StreamName::local))?;
    let removed = removed.map(|name| request.stream_in_hub(name)).transpose()?;
    front.subscriptions.relink(&request.tenant(), id, added, removed).await?;
    Ok(answer::uncached(StatusCode::NO_CONTENT))
}

async fn claim(front: &SubscriptionFront, request: &SubscriptionRequest, id: &str) -> Outcome {
    permitted(front, request, id, Action::Read).await?;
    let worker = parse::<ClaimBody>(&request.body)?.worker(NAME_BYTES_MAX)?;
    let view = front.subscriptions.claim(&request.tenant(), id, worker).await?;
    Ok(json_response(StatusCode::OK, &view))
}

async fn settle(front: &SubscriptionFront, request: &SubscriptionRequest, id: &str, call: Call) -> Outcome {
    let token = request.token.as_deref().ok_or(SubscriptionError::TokenInvalid)?;
    let tenant = SubscriptionTable::tenant_of(token)?;
    let releases = call == Call::Release;
    let settlement = parse::<SettlementBody>(&request.body)?.into_settlement(&tenant, releases)?;
    let is_pull = call != Call::Callback;
    let next_wake = front.subscriptions.settle(id, token, settlement, is_pull).await?;
    if releases {
        return Ok(answer::uncached(StatusCode::NO_CONTENT));
    }
    Ok(json_response(StatusCode::OK, &json!({ "ok": true, "next_wake": next_wake })))
}

fn keys(jwks: &str) -> Response<Body> {
    let mut response: Response<Body> = answer::uncached(StatusCode::OK);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    *response.body_mut() = Body::full(jwks.to_owned().into());
    response
}

fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut response: Response<Body> = answer::uncached(status);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::full(serde_json::to_vec(value).unwrap_or_default().into());
    response
}

fn error_response(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json_response(status, &json!({ "error": { "code": code, "message": message } }))
}

/// The response to an error of the protocol (section 6.9).
fn refusal(error: &SubscriptionError) -> Response<Body> {
    let (status, code) = match error {
        SubscriptionError::NotFound => (StatusCode::NOT_FOUND, "SUBSCRIPTION_NOT_FOUND"),
        SubscriptionError::Exists => (StatusCode::CONFLICT, "SUBSCRIPTION_ALREADY_EXISTS"),
        SubscriptionError::Invalid(_) => (StatusCode::BAD_REQUEST, "INVALID_REQUEST"),
        SubscriptionError::NoPendingWork => (StatusCode::CONFLICT, "NO_PENDING_WORK"),
        SubscriptionError::Fenced => (StatusCode::CONFLICT, "FENCED"),
        SubscriptionError::InvalidOffset { .. } => (StatusCode::CONFLICT, "INVALID_OFFSET"),
        SubscriptionError::TokenInvalid => (StatusCode::UNAUTHORIZED, "TOKEN_INVALID"),
        SubscriptionError::TokenExpired => (StatusCode::UNAUTHORIZED, "TOKEN_EXPIRED"),
        SubscriptionError::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "LIMIT_EXCEEDED"),
        SubscriptionError::Store(_) => (StatusCode::INSUFFICIENT_STORAGE, "STORE_FULL"),
        SubscriptionError::AlreadyClaimed { holder, generation } => {
            let code = "ALREADY_CLAIMED";
            let body = json!({ "error": {
                "code": code, "message": error.to_string(), "current_holder": holder, "generation": generation
            } });
            return json_response(StatusCode::CONFLICT, &body);
        }
    };
    let mut response = error_response(status, code, &error.to_string());
    match status {
        StatusCode::UNAUTHORIZED => {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        StatusCode::TOO_MANY_REQUESTS => {
            response.headers_mut().insert(RETRY_AFTER, fields::retry_after());
        }
        _ => {}
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Shortage;

    #[test]
    fn paths_name_a_resource_with_decoded_parts() {
        let at = |path: &str| Resource::at(&format!("{STREAMS}{RESERVED}{path}"));
        let id = || "a b".to_owned();
        for (path, resource) in [
            ("jwks.json", Resource::Keys),
            ("subscriptions/a%20b", Resource::Subscription(id())),
            ("subscriptions/a%20b/streams", Resource::Links(id())),
            ("subscriptions/a%20b/streams/x%2Fy", Resource::Link(id(), "x/y".to_owned())),
            ("subscriptions/a%20b/streams/x/y", Resource::Link(id(), "x/y".to_owned())),
            ("subscriptions/a%20b/claim", Resource::Call(id(), Call::Claim)),
            ("subscriptions/a%20b/callback", Resource::Call(id(), Call::Callback)),
            ("subscriptions/a%20b/ack", Resource::Call(id(), Call::Ack)),
            ("subscriptions/a%20b/release", Resource::Call(id(), Call::Release)),
        ] {
            assert_eq!(at(path).ok(), Some(resource), "{path}");
        }
        for path in ["", "jwks.json/", "subscriptions", "subscriptions/a/b", "subscriptions/a/ack/b", "a/b"] {
            assert!(matches!(at(path), Err(Error::Reserved)), "{path}");
        }
        let long = format!("subscriptions/{}", "x".repeat(257));
        for path in ["subscriptions/", "subscriptions/%", "subscriptions/%0a/claim", &long] {
            assert!(matches!(at(path), Err(Error::SubscriptionName)), "{path}");
        }
        assert!(matches!(at("subscriptions/a/streams/b//c"), Err(Error::Name(_))));
        assert!(!is_reserved("/v1/stream/__dsx/a") && !is_reserved("/v1/stream/a/__ds/b"));
    }

    #[test]
    fn a_full_memory_budget_is_answered_like_that_of_an_append() {
        for (shortage, status) in [
            (Shortage::Memory, StatusCode::INSUFFICIENT_STORAGE),
            (Shortage::Share, StatusCode::INSUFFICIENT_STORAGE),
            (Shortage::Passing, StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let refused = Refused::from(SubscriptionError::Store(shortage.into()));
            let Refused::Gateway(error) = refused else { panic!("{shortage:?}") };
            let answer = error.into_answer();
            assert_eq!(answer.status(), status, "{shortage:?}");
            assert!(answer.headers().contains_key(RETRY_AFTER), "{shortage:?}");
        }
    }

    #[test]
    fn only_calls_of_workers_and_keys_need_no_credentials() {
        let is_free = |path: &str| is_without_credentials(&format!("/v1/stream/{path}"));
        for path in ["callback", "ack", "release"] {
            assert!(is_free(&format!("__ds/subscriptions/a/{path}")));
        }
        assert!(is_free("__ds/jwks.json"));
        for path in [
            "__ds/subscriptions/a",
            "__ds/subscriptions/a/claim",
            "__ds/subscriptions/a/streams/ack",
            "a/ack",
        ] {
            assert!(!is_free(path), "{path}");
        }
    }
}
