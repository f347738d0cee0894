//! HTTP connections: bytes to requests, and responses to bytes.
//!
//! `http1` drives an HTTP/1 connection with one loop: the fast path (`fast_path`) parses short polls, long polls and small
//! appends; hyper parses any other request, one at a time (`hyper_request`). Every HTTP/1 response is written here
//! (`response`, `write`), so a request that waits costs a socket and a waiter, whichever parser it came through. `http2` lets
//! hyper drive the whole connection. `io` wraps a socket with the timeouts that hyper lacks.

mod body;
mod fast_path;
mod http1;
mod http2;
mod hyper_request;
mod io;
mod pending;
mod response;
mod state;
mod upgraded;
mod write;

use std::future::Future;
use std::io as std_io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, sleep, timeout};

use super::Gateway;
use super::admin::Admin;
use crate::limits::Limits;

pub use body::Body;
pub use io::GuardedStream;
pub use state::{ConnectionState, Phase};
pub use upgraded::{MqttSocket, UpgradedIo};

pub(super) use body::FRAME_BYTES_MAX;
pub(super) use response::{Answer, DECIMALS, Framing, Head, decimal};

use pending::PendingResponse;
use response::{Outgoing, ResponseBytes};

/// The first bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// When the server closes, a new connection gets this long to send the request that may be on its way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Answers the requests of an HTTP listener.
pub enum Service {
    /// Publishers and readers.
    Gateway(Arc<Gateway>),
    /// Operators.
    Admin(Admin),
}

/// What serves one connection.
pub struct ConnectionContext {
    /// Answers its requests.
    pub service: Arc<Service>,
    /// Timeouts and buffer sizes.
    pub limits: Arc<Limits>,
    /// Dropped when nothing is left of the connection.
    pub state: Arc<ConnectionState>,
    /// How far the server's shutdown is; only its first value has been seen.
    pub phase: watch::Receiver<Phase>,
    /// The connection is above the limit: its first request is answered with 503.
    pub refuse: bool,
}

impl ConnectionContext {
    /// Whether the server's phase has changed. Takes no lock while it has not.
    fn may_close(&self) -> bool {
        !matches!(self.phase.has_changed(), Ok(false))
    }

    /// Completes once the server is at `phase` or later.
    fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut now = self.phase.clone();
        async move {
            // An error means that the server is gone, which is later than any phase.
            drop(now.wait_for(|now| *now >= phase).await);
        }
    }

    /// Who answers requests of the fast path; `None`: hyper parses every request.
    fn fast_path(&self) -> Option<&Gateway> {
        match &*self.service {
            Service::Gateway(gateway) if !self.refuse => Some(gateway),
            Service::Gateway(_) | Service::Admin(_) => None,
        }
    }

    /// Prepares a response for writing. It closes the connection if the server is closing.
    fn outgoing(&self, mut response: ResponseBytes) -> Outgoing {
        if self.may_close() && *self.phase.borrow() >= Phase::Closing {
            response.close();
        }
        response.into_outgoing()
    }

    fn guard(&self, stream: TcpStream, read_ahead: Bytes) -> GuardedStream {
        GuardedStream::new(stream, read_ahead, self.state.clone(), self.limits.clone(), self.phase.clone())
    }
}

/// A rare step of a connection, boxed so that a connection has room only for the step that it is at.
type Step<'a, T> = Pin<Box<dyn Future<Output = std_io::Result<T>> + Send + 'a>>;

/// Serves a connection until either side closes it.
pub fn serve(
    stream: TcpStream,
    context: ConnectionContext,
) -> impl Future<Output = std_io::Result<()>> + Send {
    let begun = begin(stream, context);
    async move { begun.await?.await }
}

/// Finds out which protocol the client speaks, and returns the future that serves it.
fn begin(mut stream: TcpStream, context: ConnectionContext) -> Step<'static, Step<'static, ()>> {
    Box::pin(async move {
        Ok(match first_bytes(&mut stream, &context).await? {
            None => http1::close(Box::new(context.guard(stream, Bytes::new()))),
            Some((true, read_ahead)) => http2::serve(stream, read_ahead, context),
            Some((false, read_ahead)) => http1::serve(stream, read_ahead, context),
        })
    })
}

/// The first bytes of a connection, and whether they begin HTTP/2; `None` if the server closes before they come.
async fn first_bytes(
    stream: &mut TcpStream,
    context: &ConnectionContext,
) -> std_io::Result<Option<(bool, Bytes)>> {
    tokio::select! {
        biased;
        sniffed = timeout(context.limits.first_byte_timeout.get(), sniff(stream)) => sniffed?.map(Some),
        () = grace_is_over(context) => Ok(None),
    }
}

async fn grace_is_over(context: &ConnectionContext) {
    context.reached(Phase::Closing).await;
    sleep(FIRST_REQUEST_GRACE).await;
}

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge.
async fn sniff(stream: &mut TcpStream) -> std_io::Result<(bool, Bytes)> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok((false, read.freeze()));
        }
        let compared = read.len().min(HTTP2_PREFACE.len());
        let agrees = read.get(..compared) == HTTP2_PREFACE.get(..compared);
        if !agrees || compared == HTTP2_PREFACE.len() {
            return Ok((agrees, read.freeze()));
        }
    }
}
