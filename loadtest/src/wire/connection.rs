//! TCP connections to a server, and [`Connection`] for HTTP requests on one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::HOST;
use hyper::http::uri::{Authority, Scheme};
use hyper::{Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// A request with its whole body.
pub type Request = hyper::Request<Full<Bytes>>;

/// Why an exchange with a server failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection could not be opened, or broke.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// The response is not HTTP, or broke off.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The response on a lean connection is not HTTP.
    #[error("HTTP: {0}")]
    Head(#[from] httparse::Error),
    /// A response that ends only with its connection, or is coded wrongly.
    #[error("an answer without an end of its own")]
    Endless,
    /// Bytes after a response.
    #[error("bytes after the answer")]
    Surplus,
    /// The certificate of the server cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The request is invalid.
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    /// Not a WebSocket, or broken off.
    #[error("WebSocket: {0}")]
    WebSocket(#[from] tokio_websockets::Error),
    /// Not MQTT, or refused by the broker.
    #[error("MQTT: {0}")]
    Mqtt(String),
    /// Not XMPP, or refused by the server.
    #[error("XMPP: {0}")]
    Xmpp(String),
    /// Not Socket.IO.
    #[error("Socket.IO: {0}")]
    SocketIo(String),
    /// Not NATS, or refused by the server.
    #[error("NATS: {0}")]
    Nats(String),
    /// Not Redis, or refused by the server.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The client cannot be woken.
    #[error("wakes: {0}")]
    Wakes(String),
    /// A response with a status that the strategy cannot handle.
    #[error("answered {0}")]
    Status(StatusCode),
    /// A response without an offset.
    #[error("an answer without an offset")]
    NoOffset,
    /// A response with a message before the requested offset.
    #[error("a message that was read before")]
    ReadBefore,
    /// A response to a poll that should have been held.
    #[error("an answer where nothing was published")]
    NotHeld,
    /// A response without the one expected message.
    #[error("an answer that is not the one message")]
    NotTheMessage,
    /// No response in time.
    #[error("no answer in time")]
    Mute,
    /// The server ended the connection.
    #[error("the server closed the connection")]
    Closed,
}

/// Opens a connection with TCP_NODELAY.
pub async fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The kernel assigns one half of its 28 232 local ports on connect, and the other half on bind. When a half is full, each
/// connect takes about a millisecond, since the kernel searches that half before it takes from the other.
const CONNECTS_MAX: usize = 9000;

/// Opens connection `number`, from 0, of many. It ends with a reset, which frees its port at once.
pub async fn open_one_of_many(address: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let (socket, any) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    };
    socket.set_nodelay(true)?;
    socket.set_zero_linger()?;
    if number >= CONNECTS_MAX {
        // The other half may be full too, of connections that ended recently. Then connecting is slow.
        let _full = socket.bind(SocketAddr::new(any, 0));
    }
    socket.connect(address).await
}

/// Returns an error if the status of the response is no success.
pub fn accepted<B>(answer: &Response<B>) -> Result<(), WireError> {
    answer.status().is_success().then_some(()).ok_or(WireError::Status(answer.status()))
}

/// A connection for one request at a time. A drop closes it.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    /// With the scheme of its requests.
    Http2(http2::SendRequest<Full<Bytes>>, &'static str),
}

impl Connection {
    /// Starts HTTP/1.1 over `io`.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, WireError> {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        // The request in flight returns the same error.
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender: Sender::Http1(sender), driver })
    }

    /// Starts HTTP/2 over `io`, for requests with this scheme.
    pub async fn over_http2(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        scheme: &'static str,
    ) -> Result<Self, WireError> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender: Sender::Http2(sender, scheme), driver })
    }

    /// Whether no further request can be sent.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender, _) => sender.is_closed(),
        }
    }

    /// Sends a request and returns the head of the response; the body is still to come.
    pub async fn send(&mut self, request: Request) -> Result<Response<Incoming>, WireError> {
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender, scheme) => {
                sender.ready().await?;
                sender.send_request(with_authority(request, scheme)?).await?
            }
        })
    }

    /// Sends a request and returns the whole response.
    pub async fn exchange(&mut self, request: Request) -> Result<Response<Bytes>, WireError> {
        let (head, body) = self.send(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

/// Moves `Host` into the target of a request, as HTTP/2 has it.
fn with_authority(mut request: Request, scheme: &str) -> Result<Request, WireError> {
    let host = request.headers_mut().remove(HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::try_from(scheme).map_err(hyper::http::Error::from)?);
    if let Some(host) = host {
        parts.authority = Some(Authority::try_from(host.as_bytes()).map_err(hyper::http::Error::from)?);
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(hyper::http::Error::from)?;
    Ok(request)
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
