//! One connection: which protocol it speaks, hyper to speak it, and its end.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::TRANSFER_ENCODING;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Phase;
use super::guard::Guarded;
use super::head::HeadWatch;
use crate::http::admin::Admin;
use crate::http::{Body, Conditions, Gateway, Link, Parsed};
use crate::limits::Limits;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that has said nothing when the server closes may be one whose request is on its way: it has so long.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Who answers the requests of an HTTP listener.
pub(super) enum Site {
    Gateway(Arc<Gateway>),
    Admin(Admin),
}

/// A request on the way to its answer.
enum Asked {
    Gateway(Arc<Gateway>, Parsed),
    Admin(Response<Body>),
}

impl Site {
    fn ask(&self, request: Request<Incoming>, conditions: Conditions) -> Asked {
        match self {
            Self::Gateway(gateway) => Asked::Gateway(gateway.clone(), gateway.parse(request, conditions)),
            Self::Admin(admin) => Asked::Admin(admin.answer(&request)),
        }
    }
}

impl Asked {
    async fn answer(self) -> Response<Body> {
        match self {
            Self::Gateway(gateway, request) => gateway.answer(request).await,
            Self::Admin(answer) => answer,
        }
    }
}

/// Serves a connection to its end. `refuse`: it is one too many, and is told so. `link` is dropped when nothing is
/// left of it.
pub(super) async fn serve(
    mut stream: TcpStream,
    site: Arc<Site>,
    limits: Arc<Limits>,
    link: Arc<Link>,
    mut phase: watch::Receiver<Phase>,
    refuse: bool,
) -> io::Result<()> {
    let sniffed = tokio::select! {
        biased;
        sniffed = timeout(limits.first_byte_timeout.get(), sniff(&mut stream)) => Some(sniffed),
        () = last_word(&mut phase) => None,
    };
    let Some(sniffed) = sniffed else {
        return Guarded::new(stream, Bytes::new(), None, link, limits, phase).shutdown().await;
    };
    let (is_http2, read_ahead) = sniffed??;
    let head = Arc::new(HeadWatch::default());
    let busy = Arc::new(Busy::default());
    let watched = (!is_http2).then(|| head.clone());
    let io =
        TokioIo::new(Guarded::new(stream, read_ahead, watched, link.clone(), limits.clone(), phase.clone()));
    let service = service_fn(|request: Request<Incoming>| {
        let ambiguous_length = !is_http2 && head.begin(request.headers().contains_key(TRANSFER_ENCODING));
        let answering = Answering::new(head.clone(), busy.clone());
        let conditions = Conditions { refuse, ambiguous_length, link: link.clone() };
        let (asked, head) = (site.ask(request, conditions), head.clone());
        async move {
            let answer = asked.answer().await;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                head.stop();
            }
            Ok::<_, Infallible>(answer.map(|body| Tracked { body, _answering: answering }))
        }
    });
    if is_http2 {
        let idle = busy.idle_for(&limits);
        let connection = pin!(http2_settings(&limits).serve_connection(io, service));
        run(connection, http2::Connection::graceful_shutdown, idle, phase).await
    } else {
        // hyper itself ends an idle HTTP/1 connection.
        let connection = pin!(http1_settings(&limits).serve_connection(io, service).with_upgrades());
        run(connection, http1::UpgradeableConnection::graceful_shutdown, pending(), phase).await
    }
}

/// Lets a connection run to its end: its own, or `finish` when it is idle for too long or the server closes.
async fn run<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    finish: impl FnOnce(Pin<&mut C>),
    idle: impl Future<Output = ()>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    // First the connection, so that hyper knows of a request that is there before it is told to end.
    tokio::select! {
        biased;
        outcome = connection.as_mut() => return outcome.map_err(io::Error::other),
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => {}
        () = idle => {}
    }
    finish(connection.as_mut());
    tokio::select! {
        outcome = connection.as_mut() => outcome.map_err(io::Error::other),
        _ = phase.wait_for(|phase| *phase >= Phase::Stopped) => Ok(()),
    }
}

/// Returns when the server closes and the connection has had the time for its last word.
async fn last_word(phase: &mut watch::Receiver<Phase>) {
    drop(phase.wait_for(|phase| *phase >= Phase::Closing).await);
    sleep(LAST_WORD).await;
}

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge.
async fn sniff(stream: &mut TcpStream) -> io::Result<(bool, Bytes)> {
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

fn http1_settings(limits: &Limits) -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout.get())
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.connection_buffer_bytes);
    settings
}

fn http2_settings(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .initial_stream_window_size(limits.http2_stream_window_bytes)
        .initial_connection_window_size(limits.http2_connection_window_bytes)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.http2_resets_max)
        .max_local_error_reset_streams(limits.http2_resets_max)
        .enable_connect_protocol()
        .max_send_buf_size(limits.connection_buffer_bytes)
        .keep_alive_interval(limits.write_timeout.get())
        .keep_alive_timeout(limits.write_timeout.get());
    settings
}

/// How many requests of a connection are being answered, and how many have been.
#[derive(Debug, Default)]
struct Busy {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Busy {
    /// Returns when no request came or was answered for the idle timeout.
    async fn idle_for(&self, limits: &Limits) {
        loop {
            let before = self.begun.load(Ordering::Relaxed);
            let busy = before != self.ended.load(Ordering::Relaxed);
            sleep(limits.idle_timeout.get()).await;
            if !busy && self.begun.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// A request from its head to the end of its answer, or to the client's leaving.
struct Answering {
    head: Arc<HeadWatch>,
    busy: Arc<Busy>,
}

impl Answering {
    fn new(head: Arc<HeadWatch>, busy: Arc<Busy>) -> Self {
        busy.begun.fetch_add(1, Ordering::Relaxed);
        Self { head, busy }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.head.end();
        self.busy.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A body that says when it is done.
struct Tracked {
    body: Body,
    _answering: Answering,
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
