//! HTTP connections: parses bytes into requests, and writes responses.
//!
//! `http1` drives an HTTP/1 connection with one loop: the fast path (`fast_path`) parses short polls, long polls and small
//! appends; hyper parses any other request, one at a time (`hyper_request`). All HTTP/1 responses are written here
//! (`response`, `response_bytes`, `write`), so a request that waits costs a socket and a waiter, whichever parser it came through. `http2` lets
//! hyper drive the whole connection. `io` wraps a socket with the timeouts that hyper lacks; `transport` is the socket, with or
//! without TLS (`tls`).

mod body;
mod context;
mod fast_path;
mod frame_socket;
#[cfg(test)]
#[path = "../../../fuzz/http_head.rs"]
mod fuzz;
mod http1;
mod http2;
mod hyper_request;
mod io;
mod keep_alive;
mod pending;
mod response;
mod response_bytes;
mod state;
mod tls;
mod transport;
mod upgraded;
mod write;

use std::future::Future;
use std::io as std_io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryFutureExt;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep, timeout};
use tokio_rustls::rustls::ServerConfig;

use crate::hub::InPlace;

pub use body::Body;
pub use context::{ConnectionContext, Service};
pub use io::GuardedStream;
pub use state::{ConnectionDetails, ConnectionState, IdleConnections, OpenConnection, Phase};
pub use transport::Transport;
pub use upgraded::{SubprotocolSocket, UpgradedIo};

pub(super) use body::{FRAME_BYTES_MAX, logged};
pub(super) use frame_socket::{ClientMessage, FrameSocket};
pub(super) use response::{Answer, FixedFields, Framing, Head, bare, fixed_fields};

use context::BoxedStep;

/// The first bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a new connection may take to send a request that is on its way when the server closes.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Serves a connection until either side closes it.
pub fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    context: ConnectionContext,
) -> impl Future<Output = std_io::Result<()>> + Send + Unpin {
    begin(stream, tls, context).and_then(InPlace::new)
}

/// Detects which protocol the client speaks, and returns the future that serves the connection.
fn begin(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    context: ConnectionContext,
) -> BoxedStep<'static, BoxedStep<'static, ()>> {
    Box::pin(async move {
        let accepted = Transport::accept(stream, tls, context.limits.head_timeout.get()).await?;
        let (mut stream, certificate) = accepted;
        if let Some(certificate) = certificate {
            context.identify(&certificate);
        }
        Ok(match first_bytes(&mut stream, &context).await? {
            None => http1::close(Box::new(context.guarded_stream(stream, Bytes::new()))),
            Some((true, read_ahead)) => http2::serve(stream, read_ahead, context),
            Some((false, read_ahead)) => http1::serve(stream, read_ahead, context),
        })
    })
}

/// Reads the first bytes of a connection, and tells whether they begin HTTP/2. `None`: the server closes before they arrive.
async fn first_bytes(
    stream: &mut Transport,
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

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge (RFC 9113, section 3.3).
async fn sniff(stream: &mut Transport) -> std_io::Result<(bool, Bytes)> {
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
