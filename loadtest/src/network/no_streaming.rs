//! A proxy that inspects whole responses before it forwards them, such as a virus scanner. A response without a length
//! (chunked, such as an event stream) is collected and gets a length; if it does not end in time, the client gets 502.

use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::TRANSFER_ENCODING;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use super::hop::Clock;
use super::server::{Answered, Body, NoAnswer, Server, page, whole};

/// Collects streaming responses.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NoStreaming {
    /// Time from the head of a response to its end.
    pub gives_up_after: Clock,
}

impl NoStreaming {
    /// Forwards a request; calls `fault` for each response that it abandons.
    pub(super) async fn answer(&self, request: Request<Body>, server: Server, fault: impl Fn()) -> Answered {
        let answer = server.send(request).await?;
        let is_upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_upgrade || answer.body().size_hint().exact().is_some() {
            return Ok(answer);
        }
        let (mut head, body) = answer.into_parts();
        let Ok(body) = timeout(self.gives_up_after.0, body.collect()).await else {
            fault();
            return Ok(page(StatusCode::BAD_GATEWAY, "Bad Gateway"));
        };
        head.headers.remove(TRANSFER_ENCODING);
        // The client has received nothing yet, so a response that breaks off closes the connection.
        Ok(Response::from_parts(head, whole(body.map_err(|_| NoAnswer::Cut)?.to_bytes())))
    }
}
