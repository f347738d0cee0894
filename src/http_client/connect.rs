//! Makes connections: looks up the host, checks its addresses, connects to one of them, and does the handshakes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::{AddressPolicy, Resolve};
use super::destination::{AllowedAddresses, Destination};
use super::exchange::OutboundError;

/// How long connecting to one of several addresses may take.
const ATTEMPT_TIME: Duration = Duration::from_secs(3);

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;

/// Memory for the head of a response, and for what is read ahead. hyper's minimum is 8 KiB.
const BUFFER_BYTES: usize = 32 * 1024;

/// Header fields of a response.
const HEADERS_MAX: usize = 100;

/// Windows of HTTP/2: of a stream, and of a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Header list of an HTTP/2 response.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// How often an HTTP/2 connection with requests under way is probed, and how long the answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks up hosts and makes connections.
pub(super) struct Connector {
    policy: AddressPolicy,
    resolver: Box<dyn Resolve>,
}

/// The part of a connection that takes requests.
pub(super) enum Requests {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// The part of a connection that has to be polled until it ends.
pub(super) type Driver = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Connector {
    pub(super) fn new(policy: AddressPolicy, resolver: Box<dyn Resolve>) -> Self {
        Self { policy, resolver }
    }

    /// Connects, without a limit of time.
    pub(super) async fn connect(&self, to: &Destination) -> Result<(Requests, Driver), OutboundError> {
        let stream = connect_to(&self.addresses(to).await?).await.map_err(OutboundError::Connect)?;
        // Has no effect on the outcome.
        let _latency = stream.set_nodelay(true);
        let Some((trust, name)) = to.tls() else { return handshake1(stream).await };
        let connecting = TlsConnector::from(trust.config()).connect(name.clone(), stream);
        let stream = connecting.await.map_err(OutboundError::Tls)?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            handshake2(stream).await
        } else {
            handshake1(stream).await
        }
    }

    /// Returns the addresses of the host to which a connection is allowed.
    async fn addresses(&self, to: &Destination) -> Result<Vec<SocketAddr>, OutboundError> {
        let found = match to.host().parse() {
            Ok(address) => vec![address],
            Err(_) => self.resolver.resolve(to.host()).await.map_err(OutboundError::Lookup)?,
        };
        let is_allowed = |address: &IpAddr| match to.reach() {
            AllowedAddresses::Any => true,
            AllowedAddresses::Loopback => address.to_canonical().is_loopback(),
            // Without encryption only to this machine, even if the operator allows other private addresses.
            AllowedAddresses::Allowed if !to.is_encrypted() && !address.to_canonical().is_loopback() => false,
            AllowedAddresses::Named if !to.is_encrypted() => self.policy.names(to.host(), *address),
            AllowedAddresses::Allowed | AllowedAddresses::Named => self.policy.allows(to.host(), *address),
        };
        let allowed: Vec<_> =
            found.iter().filter(|address| is_allowed(address)).take(ADDRESSES_MAX).collect();
        match (allowed.is_empty(), found.first()) {
            (true, Some(address)) => {
                Err(OutboundError::Refused { host: to.host().to_owned(), address: *address })
            }
            (true, None) => Err(OutboundError::Lookup(io::ErrorKind::NotFound.into())),
            (false, _) => Ok(allowed.into_iter().map(|address| (*address, to.port()).into()).collect()),
        }
    }
}

/// Connects to the first address that accepts.
async fn connect_to(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for (index, address) in addresses.iter().enumerate() {
        let is_last = index + 1 == addresses.len();
        outcome = if is_last {
            TcpStream::connect(address).await
        } else {
            timeout(ATTEMPT_TIME, TcpStream::connect(address)).await.unwrap_or_else(|late| Err(late.into()))
        };
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

async fn handshake1(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(Requests, Driver), OutboundError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES).max_headers(HEADERS_MAX);
    let (requests, connection) = builder.handshake(TokioIo::new(io)).await?;
    Ok((Requests::Http1(requests), Box::pin(async move { drop(connection.await) })))
}

async fn handshake2(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(Requests, Driver), OutboundError> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PONG_TIMEOUT);
    let (requests, connection) = builder.handshake(TokioIo::new(io)).await?;
    Ok((Requests::Http2(requests), Box::pin(async move { drop(connection.await) })))
}
