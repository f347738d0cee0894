//! [`Server`]: the server as a proxy reaches it, with a new connection for each request, which is nginx's default.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::Builder;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::wire::{WireError, open};

/// Why a body broke off.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Body of a request or response in transit.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Result of a proxied request.
pub(super) type Answered = Result<Response<Body>, NoAnswer>;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// The client gets 502.
    #[error("the server: {0}")]
    Server(#[from] WireError),
    /// The client's connection is closed.
    #[error("cut by the network")]
    Cut,
}

/// Opens a connection within this process.
pub(crate) type Opener = Arc<dyn Fn() -> Opening + Send + Sync>;

/// A connection that is being opened.
pub(crate) type Opening = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The next hop or the server.
#[derive(Clone)]
pub(super) enum Server {
    /// It listens there.
    At(SocketAddr),
    /// It is simulated in this process.
    Simulated(Opener),
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(formatter),
            Self::Simulated(_) => formatter.write_str("simulated"),
        }
    }
}

impl Server {
    /// Opens a connection.
    pub(super) async fn open(&self) -> io::Result<TcpStream> {
        match self {
            Self::At(address) => open(*address).await,
            Self::Simulated(opener) => opener().await,
        }
    }

    /// Sends a request and returns the response. The connection ends with the response's body, or if the future is dropped.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, WireError> {
        let io = TokioIo::new(self.open().await?);
        let (mut sender, connection) = Builder::new().preserve_header_case(true).handshake(io).await?;
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request).await?;
        Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

/// A body that is complete.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A response of the proxy itself, as an HTML page.
pub(super) fn page(status: StatusCode, title: &str) -> Response<Body> {
    let text = format!(
        "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    );
    let mut answer = Response::new(whole(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    answer
}
