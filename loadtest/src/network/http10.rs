//! A proxy of the last century: HTTP/1.0 to both sides, one request a connection, no chunks and no upgrades. The end
//! of an answer without a length is the end of its connection.

use http_body_util::BodyExt;
use hyper::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{HeaderMap, Request, Version};
use serde::Deserialize;

use super::server::{Answered, Body, NoAnswer, Server, whole};

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http10 {}

impl Http10 {
    /// Asks.
    pub(super) async fn answer(&self, request: Request<Body>, server: Server) -> Answered {
        let (mut head, body) = request.into_parts();
        // A body without a length cannot be sent on; a client that breaks off in it is gone.
        let body = body.collect().await.map_err(|_| NoAnswer::Cut)?.to_bytes();
        head.version = Version::HTTP_10;
        last_century(&mut head.headers);
        let mut answer = server.ask(Request::from_parts(head, whole(body))).await?;
        *answer.version_mut() = Version::HTTP_10;
        last_century(answer.headers_mut());
        Ok(answer)
    }
}

fn last_century(fields: &mut HeaderMap) {
    fields.remove(TRANSFER_ENCODING);
    fields.remove(UPGRADE);
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
}
