//! `POST /v1/ticket`: exchanges a token for a ticket, which an `EventSource` or a browser's WebSocket sends in its URL. And the
//! use of a ticket by such a request.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, REFERRER_POLICY};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::answer;
use super::credentials::Rights;
use super::error::Error;
use super::form::Form;
use super::gateway::Gateway;
use super::handlers::{content_type, refuse_content_encoding};
use super::target::{Parameter, Parameters};
use crate::auth::{Grants, TICKET_LIFE, TicketRefused, TicketScope, Unauthorized};
use crate::http::conn::Body;
use crate::http::read::request::ReadFrom;
use crate::http::read::requested_streams::JsonRead;
use crate::limits::Limits;

/// The path at which tickets are issued, on a gateway that checks credentials.
pub(super) const TICKET_PATH: &str = "/v1/ticket";

pub(super) const TICKET_METHODS: &str = "POST, OPTIONS";

/// A request for a ticket. Its body has the parameters `stream` and `live` of the read that the ticket is for.
#[derive(Debug)]
pub(in crate::http) struct TicketRequest {
    scope: TicketScope,
    /// What the client may do, once its credentials are verified.
    pub(super) grants: Option<Arc<Grants>>,
}

/// The response to a request for a ticket.
#[derive(Serialize)]
struct Issued<'a> {
    ticket: &'a str,
    /// Seconds.
    expires_in: u64,
}

impl TicketRequest {
    pub(super) fn check_head(head: &Parts) -> Result<(), Error> {
        refuse_content_encoding(&head.headers)?;
        let is_json = content_type(&head.headers)?.is_some_and(|content_type| content_type.is_json());
        if is_json { Ok(()) } else { Err(Error::NotJson) }
    }

    pub(super) fn parse(body: &Bytes, limits: &Limits) -> Result<Self, Error> {
        let json = JsonRead::parse(body, limits)?;
        let form = match json.get(Parameter::Live) {
            Some("sse") => Form::Sse,
            Some("websocket") => Form::WebSocket,
            _ => return Err(Error::parameter("live", "must be sse or websocket for a ticket")),
        };
        let streams = json.streams(None, limits)?;
        let scope = TicketScope::new(form.as_str(), streams.iter().map(|requested| &requested.stream));
        Ok(Self { scope, grants: None })
    }
}

impl Gateway {
    /// Issues a ticket. It can be used until [`TICKET_LIFE`] has passed, or for a while after its first use.
    pub(in crate::http) fn issue_ticket(&self, request: &TicketRequest) -> Result<Response<Body>, Error> {
        let TicketRequest { scope, grants } = request;
        let grants = grants.as_ref().ok_or(Error::Unauthorized(Unauthorized::Missing))?;
        let issued = self.tickets.issue(grants, *scope, Instant::now());
        let ticket = issued.map_err(|refused| match refused {
            TicketRefused::Anonymous => Error::Unauthorized(Unauthorized::Missing),
            TicketRefused::TooMany => Error::Ticket(refused),
        })?;
        let issued = Issued { ticket: &ticket, expires_in: TICKET_LIFE.as_secs() };
        let mut answer: Response<Body> = answer::uncached(StatusCode::OK);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        *answer.body_mut() = Body::full(serde_json::to_vec(&issued).unwrap_or_default().into());
        Ok(answer)
    }

    /// Returns the rights that a ticket stands for, if it was issued for a read of `from` in the delivery form `form`.
    pub(super) fn redeem(
        &self,
        rights: Rights,
        ticket: &str,
        form: Form,
        from: &ReadFrom,
    ) -> Result<Rights, Error> {
        let scope = TicketScope::new(form.as_str(), from.streams());
        let grants = self.tickets.redeem(ticket, scope, Instant::now());
        let grants = grants.ok_or(Error::Unauthorized(Unauthorized::Ticket))?;
        // The token may have expired or been revoked meanwhile, and its key may be gone.
        self.auth.check(&grants, self.clock.wall()).map_err(Error::Unauthorized)?;
        Ok(rights.of_ticket(grants))
    }
}

/// Returns a target without the values of its parameters that may be tokens or tickets, for logs.
pub(super) fn without_secrets(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    let is_secret = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        // An escape may hide any letter.
        name.contains("token") || name.contains("ticket") || name.contains('%')
    };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(target);
    }
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(pair) => Cow::Owned(format!("{name}=hidden")),
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(format!("{path}?{}", shown.collect::<Vec<_>>().join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_tickets_are_hidden_in_a_logged_target() {
        for (target, expected) in [
            ("/v1/stream/a?offset=-1&live=sse", "/v1/stream/a?offset=-1&live=sse"),
            ("/v1/stream/token=1", "/v1/stream/token=1"),
            ("/v1/stream/a?ticket=x&offset=-1", "/v1/stream/a?ticket=hidden&offset=-1"),
            (
                "/v1/stream/a?offset=-1&access_token=a=b&ticket=",
                "/v1/stream/a?offset=-1&access_token=hidden&ticket=hidden",
            ),
            ("/v1/stream/a?id_Token=x&%74icket=y", "/v1/stream/a?id_Token=hidden&%74icket=hidden"),
        ] {
            assert_eq!(without_secrets(target), expected);
        }
    }
}
