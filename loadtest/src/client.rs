//! [`Client`]: one reader, with its offset in its stream, its received messages, and their cost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use hyper::ext::Protocol;
use hyper::header::{HOST, HeaderValue, SEC_WEBSOCKET_VERSION};
use hyper::{StatusCode, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_websockets::{ClientBuilder, WebSocketStream};

use crate::dialects::{BuiltRequest, HttpDialect};
use crate::recorder::{Reception, Recorder};
use crate::target::Target;
use crate::wire::{Connection, Dialer, Io, Meter, Metered, Request, WireError, accepted, open};

/// How long after it was due an answer is abandoned: max(5 s, three slow round trips) in the cost model's section 5.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// One reader of one stream.
pub struct Client {
    /// Index among all clients, from 0.
    pub number: u32,
    /// Name of its stream.
    pub stream: String,
    /// Offset after the last received message; `None` at the beginning of the stream.
    pub offset: Option<String>,
    /// Random share of an interval, from 0 to 1, by which this client is shifted so that clients spread evenly.
    pub phase: f64,
    /// Random numbers of this client.
    pub random: Rng,
    /// The server to read from.
    pub target: Target,
    /// Opens its HTTP connections.
    pub dialer: Dialer,
    /// Counts requests and bytes.
    pub meter: Arc<Meter>,
    /// Records received messages.
    pub recorder: Arc<Recorder>,
    /// The messages received until now.
    pub reception: Arc<Mutex<Reception>>,
    /// Start of the run; `None` until it is known.
    pub start: watch::Receiver<Option<Instant>>,
    /// Notified once when the client is connected; then `None`.
    pub connected: Option<mpsc::Sender<()>>,
}

impl Client {
    /// Opens a TCP connection whose bytes are counted.
    pub async fn open(&self, address: SocketAddr) -> Result<Metered<TcpStream>, WireError> {
        Ok(Metered::new(open(address).await?, self.meter.clone()))
    }

    /// Opens an HTTP connection whose bytes are counted.
    pub async fn connect(&self) -> Result<Connection, WireError> {
        self.dialer.start_http(self.open(self.target.address).await?).await
    }

    /// Opens a WebSocket to a path and query. Over HTTP/2 (RFC 8441) it ends with the connection that is returned beside it.
    pub async fn web_socket(
        &self,
        target: &str,
    ) -> Result<(WebSocketStream<Io>, Option<Connection>), WireError> {
        self.meter.request();
        if !self.dialer.transport().is_http2() {
            let io = self.dialer.secure(self.open(self.target.address).await?).await?;
            let uri = format!("ws://{}{target}", self.target.address);
            let uri: Uri = uri.parse().map_err(hyper::http::Error::from)?;
            let (socket, _answer) = ClientBuilder::from_uri(uri).connect_on(io).await?;
            return Ok((socket, None));
        }
        let mut connection = self.connect().await?;
        let request = hyper::Request::connect(target).extension(Protocol::from_static("websocket"));
        let request = request.header(SEC_WEBSOCKET_VERSION, "13").body(Default::default());
        let answer = connection.send(addressed(request, &self.target)?).await?;
        accepted(&answer)?;
        let io: Io = Box::new(TokioIo::new(hyper::upgrade::on(answer).await?));
        Ok((ClientBuilder::new().take_over(io), Some(connection)))
    }

    /// Reports that the client is connected, and waits for the start of the run. Returns at once if the run has started.
    pub async fn started(&mut self) -> Instant {
        self.connected = None;
        let start = self.start.wait_for(Option::is_some).await.ok().and_then(|start| *start);
        match start {
            Some(start) => start,
            // The run was dropped before its start. Its owner also drops this task.
            None => std::future::pending().await,
        }
    }

    /// Returns how requests of this server are built.
    pub fn dialect(&self) -> Result<&'static dyn HttpDialect, WireError> {
        self.target.dialect.http().ok_or_else(|| WireError::Mqtt("this server has no HTTP".to_owned()))
    }

    /// Counts a request and adds its `Host`.
    pub fn counted_request(&self, request: BuiltRequest) -> Result<Request, WireError> {
        self.meter.request();
        addressed(request, &self.target)
    }

    /// Records the messages in `text`, which has just arrived. Returns whether there are any.
    pub fn receive(&self, text: &[u8]) -> bool {
        let start = *self.start.borrow();
        let since_start = start.map_or(Duration::ZERO, |start| start.elapsed());
        let mut reception = self.reception.lock();
        let mut any = false;
        for message in self.recorder.workload.find_in(text) {
            self.recorder.receive(&mut reception, message, since_start);
            any = true;
        }
        any
    }

    /// Polls once on `connection` and advances the offset. Returns whether there were messages.
    pub async fn poll(
        &mut self,
        connection: &mut Connection,
        hold: Option<Duration>,
    ) -> Result<bool, WireError> {
        let request = self.dialect()?.poll(&self.stream, self.offset.as_deref(), hold);
        self.answered(connection, request, hold.unwrap_or_default() + PATIENCE).await
    }

    /// Like [`poll`](Self::poll) without a hold, as a registered device.
    pub async fn poll_as(&mut self, connection: &mut Connection, device: &str) -> Result<bool, WireError> {
        let mut request = self.dialect()?.poll(&self.stream, self.offset.as_deref(), None)?;
        *request.uri_mut() =
            format!("{}&client={device}", request.uri()).parse().map_err(hyper::http::Error::from)?;
        self.answered(connection, Ok(request), PATIENCE).await
    }

    /// Records that a first poll is answered after a wake that arrived at `woken`.
    pub fn woken(&self, woken: Instant) {
        let start = *self.start.borrow();
        self.recorder.woken(start.map_or(Duration::ZERO, |start| woken - start), woken.elapsed());
    }

    async fn answered(
        &mut self,
        connection: &mut Connection,
        request: BuiltRequest,
        patience: Duration,
    ) -> Result<bool, WireError> {
        let dialect = self.dialect()?;
        let request = self.counted_request(request)?;
        let answer = timeout(patience, connection.exchange(request)).await.unwrap_or(Err(WireError::Mute))?;
        let any = brings_messages(answer.status())? && self.receive(answer.body());
        match dialect.offset(answer.headers()) {
            Some(offset) => self.offset = Some(offset),
            None if answer.status() == StatusCode::OK => return Err(WireError::NoOffset),
            None => {}
        }
        if !any {
            self.meter.empty_answer();
        }
        Ok(any)
    }
}

/// Returns whether a poll's answer with this status holds messages; an error if the status is a refusal.
pub fn brings_messages(status: StatusCode) -> Result<bool, WireError> {
    match status {
        StatusCode::OK => Ok(true),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::REQUEST_TIMEOUT => Ok(false),
        other => Err(WireError::Status(other)),
    }
}

/// Adds the `Host` of the target to a request.
pub fn addressed(request: BuiltRequest, target: &Target) -> Result<Request, WireError> {
    let mut request = request?;
    let host = HeaderValue::from_str(&target.address.to_string()).map_err(hyper::http::Error::from)?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}
