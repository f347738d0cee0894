//! An HTTP/1.1 client on one connection.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;
use super::sse::Events;

/// A request to build and send.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    target: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// Creates a request with any method.
pub fn request(method: &str, target: impl Into<String>) -> Request {
    let method = Method::from_bytes(method.as_bytes()).expect("a token");
    Request { method, target: target.into(), headers: Vec::new(), body: Bytes::new() }
}

macro_rules! methods {
    ($($name:ident = $method:literal),*) => {
        $(
            pub fn $name(target: impl Into<String>) -> Request {
                request($method, target)
            }
        )*
    };
}

methods!(get = "GET", head = "HEAD", put = "PUT", post = "POST", delete = "DELETE", options = "OPTIONS");

impl Request {
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: impl ToString) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn text(self, body: impl Into<Bytes>) -> Self {
        self.header("content-type", "text/plain").body(body)
    }
}

/// A complete response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Returns a header field, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("visible characters"))
    }

    /// Whether it is the last response of its connection.
    pub fn says_close(&self) -> bool {
        self.header("connection") == "close"
    }

    /// Returns the offset that every response carries.
    pub fn next_offset(&self) -> String {
        let offset = self.header("stream-next-offset");
        assert!(!offset.is_empty(), "an answer without an offset: {self:?}");
        offset.to_owned()
    }

    /// Checks the status; a panic shows the whole response.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }

    /// Returns the type of the problem that it reports.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let kind = self.json()["type"].as_str().expect("a type").to_owned();
        kind.strip_prefix("urn:pollgate:").expect("our kind").to_owned()
    }
}

/// A connection for one request at a time. A drop closes the socket.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
    address: SocketAddr,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.expect("the gateway accepts")
    }

    pub async fn try_open(address: SocketAddr) -> std::io::Result<Self> {
        Self::of(TcpStream::connect(address).await?, address).await
    }

    /// The address of the gateway.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens another connection to the same address.
    pub async fn again(&self) -> Self {
        Self::open(self.address).await
    }

    /// Opens a connection from one of this machine's addresses, as a separate client.
    pub async fn open_from(own: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(own, 0)).expect("an address of this machine");
        let stream = socket.connect(address).await.expect("the gateway accepts");
        Self::of(stream, address).await.expect("the gateway accepts")
    }

    async fn of(stream: TcpStream, address: SocketAddr) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        let driver = tokio::spawn(async move {
            let _ended = connection.await;
        });
        Ok(Self { sender, driver, address })
    }

    /// Sends a request and reads the whole response.
    pub async fn send(&mut self, request: Request) -> Answer {
        let shown = format!("{} {}", request.method, request.target);
        let answer = timeout(PATIENCE, self.try_send(request)).await;
        answer
            .unwrap_or_else(|_| panic!("no answer to {shown}"))
            .unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    /// Like [`Self::send`], with a failure of the connection as a value.
    pub async fn try_send(&mut self, request: Request) -> hyper::Result<Answer> {
        let (status, headers, body) = self.begin(request).await?;
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status, headers, body })
    }

    /// Opens a stream of server-sent events, which takes up the connection.
    pub async fn events(self, target: impl Into<String>) -> Events {
        self.events_of(get(target)).await
    }

    /// Like [`Self::events`], with any request.
    pub async fn events_of(mut self, request: Request) -> Events {
        let (status, headers, body) = self.begin(request).await.expect("an answer");
        assert_eq!(status, StatusCode::OK);
        let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
        assert!(content_type.is_some_and(|value| value.starts_with("text/event-stream")), "{content_type:?}");
        Events::new(self, headers, body)
    }

    /// Sends a request and returns after the head of the response.
    pub async fn begin(&mut self, request: Request) -> hyper::Result<(StatusCode, HeaderMap, Incoming)> {
        self.sender.ready().await?;
        let mut built = hyper::Request::builder().method(request.method).uri(request.target);
        built = built.header("host", self.address.to_string());
        for (name, value) in &request.headers {
            built = built.header(name, value);
        }
        let built = built.body(Full::new(request.body)).expect("a request");
        let (head, body) = self.sender.send_request(built).await?.into_parts();
        Ok((head.status, head.headers, body))
    }

    /// Whether the server closes the connection within `time`.
    pub async fn is_closed_within(&mut self, time: Duration) -> bool {
        timeout(time, &mut self.driver).await.is_ok()
    }
}
