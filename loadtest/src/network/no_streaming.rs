//! A proxy that looks through whole answers before it passes them on, such as a virus scanner: one whose length is not
//! said in its head (chunked, such as an event stream) is waited for, and gets its length; if it does not end in time,
//! the client gets 502.

use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::TRANSFER_ENCODING;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use super::hop::Clock;
use super::server::{Answered, Body, NoAnswer, Server, page, whole};

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NoStreaming {
    /// From the head of the answer to its end.
    pub gives_up_after: Clock,
}

impl NoStreaming {
    /// Asks; `fault` is told of each answer that it gives up.
    pub(super) async fn answer(&self, request: Request<Body>, server: Server, fault: impl Fn()) -> Answered {
        let answer = server.ask(request).await?;
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
        // An answer that breaks off here has not begun for the client.
        Ok(Response::from_parts(head, whole(body.map_err(|_| NoAnswer::Cut)?.to_bytes())))
    }
}
