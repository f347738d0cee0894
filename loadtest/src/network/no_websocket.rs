//! A proxy that does not know WebSockets.

use hyper::header::{CONNECTION, UPGRADE};
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::server::{Answered, Body, Server, page};

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NoWebsocket {
    /// What becomes of a request for an upgrade.
    pub upgrade: Upgrade,
}

/// Of a request for an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upgrade {
    /// It goes on as a plain request, without `Upgrade` and `Connection`, as RFC 9110 wants it from such a proxy.
    Stripped,
    /// 400.
    Refused,
}

impl NoWebsocket {
    /// Asks; `fault` is told of each request for an upgrade.
    pub(super) async fn answer(
        &self,
        mut request: Request<Body>,
        server: Server,
        fault: impl Fn(),
    ) -> Answered {
        if !request.headers().contains_key(UPGRADE) {
            return Ok(server.ask(request).await?);
        }
        fault();
        match self.upgrade {
            Upgrade::Refused => Ok(page(StatusCode::BAD_REQUEST, "Bad Request")),
            Upgrade::Stripped => {
                request.headers_mut().remove(UPGRADE);
                request.headers_mut().remove(CONNECTION);
                Ok(server.ask(request).await?)
            }
        }
    }
}
