//! Connections that speak HTTP/2: hyper serves them from the first byte to the last.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::Phase;
use super::connection::{Terms, Turn};
use super::tracked::Tracked;
use crate::http::Body;
use crate::limits::Limits;

/// Serves a connection to its end: its own, or when it is idle for too long or the server closes.
pub(super) fn serve(stream: TcpStream, read_ahead: Bytes, terms: Terms) -> Turn<'static, ()> {
    Box::pin(async move {
        let busy = Arc::new(Busy::default());
        let io = TokioIo::new(terms.guard(stream, read_ahead));
        let service = service_fn(|request: Request<Incoming>| {
            let answering = Answering::new(busy.clone());
            let asked = terms.ask(request, false);
            async move {
                let answer: Response<Body> = asked.answer().await;
                Ok::<_, Infallible>(answer.map(|body| Tracked::new(body, answering)))
            }
        });
        let mut connection = pin!(settings(&terms.limits).serve_connection(io, service));
        // First the connection, so that hyper knows of a request that is there before it is told to end.
        tokio::select! {
            biased;
            outcome = connection.as_mut() => return outcome.map_err(io::Error::other),
            () = terms.reached(Phase::Closing) => {}
            () = busy.idle_for(&terms.limits) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            outcome = connection => outcome.map_err(io::Error::other),
            () = terms.reached(Phase::Stopped) => Ok(()),
        }
    })
}

fn settings(limits: &Limits) -> http2::Builder<TokioExecutor> {
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
struct Answering(Arc<Busy>);

impl Answering {
    fn new(busy: Arc<Busy>) -> Self {
        busy.begun.fetch_add(1, Ordering::Relaxed);
        Self(busy)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
