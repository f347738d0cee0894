//! The server as a proxy reaches it: a connection of its own for each request, as nginx does it by default.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::Builder;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::wire::{WireError, open};

/// Why a body breaks off.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Of a request or an answer on its way.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What a proxy has for its client.
pub(super) type Answered = Result<Response<Body>, NoAnswer>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// The client gets 502.
    #[error("the server: {0}")]
    Server(#[from] WireError),
    /// The client's connection ends.
    #[error("cut by the network")]
    Cut,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server(pub(super) SocketAddr);

impl Server {
    /// The head of its answer; the connection ends with the answer's body, or with a request that is dropped.
    pub(super) async fn ask(self, request: Request<Body>) -> Result<Response<Body>, WireError> {
        let io = TokioIo::new(open(self.0).await?);
        let (mut sender, connection) = Builder::new().preserve_header_case(true).handshake(io).await?;
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request).await?;
        Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

/// A body that is there as a whole.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer that comes from no server, as a page for people.
pub(super) fn page(status: StatusCode, title: &str) -> Response<Body> {
    let text = format!(
        "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    );
    let mut answer = Response::new(whole(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    answer
}
