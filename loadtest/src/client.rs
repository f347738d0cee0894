//! One reader: where it stands in its stream, what it has received, and what that took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use hyper::StatusCode;
use hyper::header::{HOST, HeaderValue};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::dialects::{Asking, HttpDialect};
use crate::recorder::{Reception, Recorder};
use crate::target::Target;
use crate::wire::{Connection, Meter, Metered, Request, WireError, open};

/// From when an answer is due until it is given up: max(5 s, three slow round trips) in the cost model's section 5.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Client {
    /// Its place among all clients, from 0.
    pub number: u32,
    /// The name of its stream.
    pub stream: String,
    /// Behind what it has received; `None`: at the beginning.
    pub offset: Option<String>,
    /// Its random part of an even spread, from 0 to 1.
    pub phase: f64,
    /// Its own random numbers.
    pub random: Rng,
    /// The server.
    pub target: Target,
    /// Counts its requests.
    pub meter: Arc<Meter>,
    /// Where receipts are noted.
    pub recorder: Arc<Recorder>,
    /// What it has received.
    pub reception: Arc<Mutex<Reception>>,
    /// The start of the run, once it is known.
    pub start: watch::Receiver<Option<Instant>>,
    /// Told once when it is connected.
    pub connected: Option<mpsc::Sender<()>>,
}

impl Client {
    /// A new counted connection.
    pub async fn open(&self, address: SocketAddr) -> Result<Metered<TcpStream>, WireError> {
        Ok(Metered::new(open(address).await?, self.meter.clone()))
    }

    /// The same for HTTP.
    pub async fn connect(&self) -> Result<Connection, WireError> {
        Connection::over(self.open(self.target.address).await?).await
    }

    /// Says that it is connected, and waits for the start of the run. Returns at once when that was done
    /// before.
    pub async fn started(&mut self) -> Instant {
        self.connected = None;
        let start = self.start.wait_for(Option::is_some).await.ok().and_then(|start| *start);
        match start {
            Some(start) => start,
            // Nobody starts this run any more, and whoever dropped the start ends its readers too.
            None => std::future::pending().await,
        }
    }

    /// The server's requests.
    pub fn dialect(&self) -> Result<&'static dyn HttpDialect, WireError> {
        self.target.dialect.http().ok_or_else(|| WireError::Mqtt("this server has no HTTP".to_owned()))
    }

    /// Counts and completes a request.
    pub fn asking(&self, request: Asking) -> Result<Request, WireError> {
        self.meter.request();
        addressed(request, &self.target)
    }

    /// Notes the messages in `text`, which has arrived just now. Returns whether there are any.
    pub fn take(&self, text: &[u8]) -> bool {
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

    /// Polls once on `connection` and moves on behind what came. Returns whether there were messages.
    pub async fn poll(
        &mut self,
        connection: &mut Connection,
        hold: Option<Duration>,
    ) -> Result<bool, WireError> {
        let dialect = self.dialect()?;
        let request = self.asking(dialect.poll(&self.stream, self.offset.as_deref(), hold))?;
        let patience = hold.unwrap_or_default() + PATIENCE;
        let answer = timeout(patience, connection.exchange(request)).await.unwrap_or(Err(WireError::Mute))?;
        let any = brings_messages(answer.status())? && self.take(answer.body());
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

/// Whether the answer to a poll has messages, if any came; an error if it is a refusal.
pub fn brings_messages(status: StatusCode) -> Result<bool, WireError> {
    match status {
        StatusCode::OK => Ok(true),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::REQUEST_TIMEOUT => Ok(false),
        other => Err(WireError::Status(other)),
    }
}

/// A request with the `Host` of its target.
pub fn addressed(request: Asking, target: &Target) -> Result<Request, WireError> {
    let mut request = request?;
    let host = HeaderValue::from_str(&target.address.to_string()).map_err(hyper::http::Error::from)?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}
