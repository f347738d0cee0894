//! Sends HTTP requests to other servers, for everything that the gateway itself requests: keys of issuers, webhooks, wake-ups.
//!
//! [`HttpClient::send`] sends a request to a [`Destination`] and returns the whole response. It speaks HTTP/2 if the other server
//! chooses that in the TLS handshake, else HTTP/1.1, and keeps connections for later requests. One deadline applies from the lookup
//! of the host to the last byte, and the size of the response is limited. Redirects are not followed: a response with the status 302
//! is a response like any other.
//!
//! A host is looked up once for each connection, each address is checked by the [`AddressPolicy`], and the connection goes to an
//! address that was checked. So a name server cannot first return an allowed address and then another one.
//!
//! This module does not retry, and has no queues: those are in `outbound`.

mod address;
mod connect;
mod destination;
mod exchange;
mod pool;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, Uri, Version};
use tokio::time::timeout;

pub use address::{AddressPolicy, InvalidAllowedHost, Resolve, Resolved, SystemResolver};
pub use destination::{
    Destination, InvalidUrl, RefusedOrigin, Trust, TrustError, check_client_url, check_origin_url,
};
pub use exchange::{ExchangeLimits, OutboundError};

use connect::Connector;
use pool::{LeasedConnection, Pool};

/// The value of `User-Agent`, unless the request has one.
const AGENT: &str = concat!("pollgate/", env!("CARGO_PKG_VERSION"));

/// Sends requests and keeps connections. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct HttpClient {
    connector: Arc<Connector>,
    pool: Arc<Pool>,
}

impl HttpClient {
    /// Creates a client without connections. At most `connections_max` are open at a time; further exchanges wait.
    pub fn new(policy: AddressPolicy, connections_max: usize) -> Self {
        Self::resolving(policy, connections_max, Box::new(SystemResolver))
    }

    /// Creates a client that looks up hosts with `resolver`.
    pub fn resolving(policy: AddressPolicy, connections_max: usize, resolver: Box<dyn Resolve>) -> Self {
        Self {
            connector: Arc::new(Connector::new(policy, resolver)),
            pool: Arc::new(Pool::new(connections_max)),
        }
    }

    /// Sends a request and returns the whole response. Of the request's URI only path and query count; the path is appended to that
    /// of the destination. `Host`, `Content-Length` and `User-Agent` are added.
    ///
    /// After an error, the other server may have received the request or not.
    ///
    /// Cancel safe: dropping the future closes the connection, or the stream of an HTTP/2 connection.
    pub async fn send(
        &self,
        to: &Destination,
        request: Request<Bytes>,
        limits: ExchangeLimits,
    ) -> Result<Response<Bytes>, OutboundError> {
        let exchange = self.exchange(to, request, limits.body_bytes_max);
        timeout(limits.time, exchange).await.map_err(|_| OutboundError::Late(limits.time))?
    }

    async fn exchange(
        &self,
        to: &Destination,
        request: Request<Bytes>,
        body_bytes_max: usize,
    ) -> Result<Response<Bytes>, OutboundError> {
        let (head, body) = request.into_parts();
        loop {
            let mut lease = self.pool.lease(to, &self.connector).await?;
            let request = addressed(&head, &body, to, lease.is_http2()).ok_or(OutboundError::Request)?;
            match lease.send(request).await {
                Ok(response) => return received(response, lease, body_bytes_max).await,
                // The other server closed the connection before it got the request.
                Err(unsent) if lease.is_reused() && unsent.message().is_some() => lease.discard(),
                Err(failed) => return Err(failed.into_error().into()),
            }
        }
    }
}

/// Returns the request as one to a destination.
fn addressed(head: &Parts, body: &Bytes, to: &Destination, is_http2: bool) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(body.clone()));
    let target = to.target(&head.uri);
    let fields = request.headers_mut();
    fields.clone_from(&head.headers);
    fields.remove(HOST);
    fields.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    if !matches!(head.method, Method::GET | Method::HEAD) || !body.is_empty() {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if is_http2 {
        *request.uri_mut() = format!("{}://{}{target}", to.scheme(), to.authority()).parse().ok()?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        fields.insert(HOST, HeaderValue::from_str(to.authority()).ok()?);
        *request.uri_mut() = target.parse::<Uri>().ok()?;
    }
    *request.method_mut() = head.method.clone();
    Some(request)
}

/// Receives the body. The connection can be used again unless that fails.
async fn received(
    response: Response<Incoming>,
    lease: LeasedConnection,
    body_bytes_max: usize,
) -> Result<Response<Bytes>, OutboundError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, body_bytes_max).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => OutboundError::Http(*error),
        Err(other) => {
            debug_assert!(other.is::<LengthLimitError>());
            OutboundError::TooLarge { max: body_bytes_max }
        }
    })?;
    lease.give_back();
    Ok(Response::from_parts(head, body.to_bytes()))
}
