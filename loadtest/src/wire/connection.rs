//! One TCP connection, and HTTP/1.1 requests on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// A request with its whole body.
pub type Request = hyper::Request<Full<Bytes>>;

/// Why an exchange with a server failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No connection, or it broke.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// Not HTTP, or broken off in the middle.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The same of a lean connection.
    #[error("HTTP: {0}")]
    Head(#[from] httparse::Error),
    /// An answer that nothing can follow.
    #[error("an answer without an end of its own")]
    Endless,
    /// Bytes behind an answer.
    #[error("more than the answer")]
    Surplus,
    /// A request that cannot be written.
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    /// Not a WebSocket, or broken off in the middle.
    #[error("WebSocket: {0}")]
    WebSocket(#[from] tokio_websockets::Error),
    /// Not MQTT, or refused by the broker.
    #[error("MQTT: {0}")]
    Mqtt(String),
    /// An answer that this strategy cannot go on with.
    #[error("answered {0}")]
    Status(StatusCode),
    /// An answer without an offset.
    #[error("an answer without an offset")]
    NoOffset,
    /// An answer with what the offset says was read.
    #[error("a message that was read before")]
    ReadBefore,
    /// An answer to a request that was to be held.
    #[error("an answer where nothing was published")]
    NotHeld,
    /// An answer that should have one certain message.
    #[error("an answer that is not the one message")]
    NotTheMessage,
    /// No answer in time.
    #[error("no answer in time")]
    Mute,
    /// The server ended the connection.
    #[error("the server closed the connection")]
    Closed,
}

/// Connects, without waiting for small segments to grow.
pub async fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The kernel gives connects one half of its 28 232 ports and binds the other one. A half that is full takes a connect a
/// millisecond, which goes through all of it before it takes from the other half.
const CONNECTS_MAX: usize = 9000;

/// The same as one of many, whose number counts from 0. It ends with a reset, which leaves its port to whoever comes next.
pub async fn open_one_of_many(address: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let (socket, any) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    };
    socket.set_nodelay(true)?;
    socket.set_zero_linger()?;
    if number >= CONNECTS_MAX {
        // The other half may be full too, of connections that others have ended lately. Then connecting takes its time.
        let _full = socket.bind(SocketAddr::new(any, 0));
    }
    socket.connect(address).await
}

/// An error if the answer is a refusal.
pub fn accepted<B>(answer: &Response<B>) -> Result<(), WireError> {
    answer.status().is_success().then_some(()).ok_or(WireError::Status(answer.status()))
}

/// A connection for one request after the other; closed when dropped.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Speaks HTTP over `io`.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, WireError> {
        let (sender, connection) = handshake(TokioIo::new(io)).await?;
        // Its error is also that of the request under way.
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, driver })
    }

    /// Whether no further request can go out.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// The answer's head; its body is still to come.
    pub async fn send(&mut self, request: Request) -> Result<Response<Incoming>, WireError> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// The whole answer.
    pub async fn exchange(&mut self, request: Request) -> Result<Response<Bytes>, WireError> {
        let (head, body) = self.send(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
