//! A proxy without WebSocket support.

use hyper::header::{CONNECTION, UPGRADE};
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::server::{Answered, Body, Server, page};

/// Blocks upgrades.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NoWebsocket {
    /// How a request for an upgrade is treated.
    pub upgrade: Upgrade,
}

/// How a request for an upgrade is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upgrade {
    /// It is forwarded as a plain request without `Upgrade` and `Connection`, as RFC 9110 requires of such a proxy.
    Stripped,
    /// It is answered with 400.
    Refused,
}

impl NoWebsocket {
    /// Forwards a request; calls `fault` for each request for an upgrade.
    pub(super) async fn answer(
        &self,
        mut request: Request<Body>,
        server: Server,
        fault: impl Fn(),
    ) -> Answered {
        if !request.headers().contains_key(UPGRADE) {
            return Ok(server.send(request).await?);
        }
        fault();
        match self.upgrade {
            Upgrade::Refused => Ok(page(StatusCode::BAD_REQUEST, "Bad Request")),
            Upgrade::Stripped => {
                request.headers_mut().remove(UPGRADE);
                request.headers_mut().remove(CONNECTION);
                Ok(server.send(request).await?)
            }
        }
    }
}
