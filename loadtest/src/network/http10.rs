//! An old proxy: HTTP/1.0 to both sides, one request per connection, no chunks and no upgrades. A response without a length
//! ends with its connection.

use http_body_util::BodyExt;
use hyper::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{HeaderMap, Request, Version};
use serde::Deserialize;

use super::server::{Answered, Body, NoAnswer, Server, whole};

/// Speaks HTTP/1.0 to both sides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http10 {}

impl Http10 {
    /// Forwards a request and its response.
    pub(super) async fn answer(&self, request: Request<Body>, server: Server) -> Answered {
        let (mut head, body) = request.into_parts();
        // HTTP/1.0 needs the length of a body, so it is collected. An error here means that the client is gone.
        let body = body.collect().await.map_err(|_| NoAnswer::Cut)?.to_bytes();
        head.version = Version::HTTP_10;
        last_century(&mut head.headers);
        let mut answer = server.send(Request::from_parts(head, whole(body))).await?;
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
