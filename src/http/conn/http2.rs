//! Drives an HTTP/2 connection with hyper.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::sleep;

use super::body::Body;
use super::context::{BoxedStep, ConnectionContext, Service};
use super::response::Framing;
use super::state::{ConnectionState, Phase};
use super::transport::Transport;
use super::upgraded::UpgradedIo;
use crate::http::api::routes::Refusal;
use crate::limits::Limits;
use crate::metrics::stall_timed;

/// Serves a connection until either side closes it, it is idle for too long, the server closes, or memory is critical. In the last
/// two cases its requests are still answered.
pub(super) fn serve(
    stream: Transport,
    read_ahead: Bytes,
    context: ConnectionContext,
) -> BoxedStep<'static, ()> {
    Box::pin(async move {
        let busy = Arc::new(Busy::default());
        let io = TokioIo::new(context.guarded_stream(stream, read_ahead));
        let refusal = context.state.is_refused().then_some(Refusal::TooManyConnections);
        let hyper_service = service_fn(|request: Request<Incoming>| {
            let answering = BusyGuard::new(busy.clone());
            let (service, state) = (context.service.clone(), context.state.clone());
            async move {
                let response = respond(&service, request, refusal, &state).await;
                Ok::<_, Infallible>(response.map(|body| Tracked { body, _answering: answering }))
            }
        });
        let mut connection = pin!(settings(&context.limits).serve_connection(io, hyper_service));
        // The connection is polled first, so that hyper knows each request that has arrived before the shutdown begins.
        tokio::select! {
            biased;
            outcome = connection.as_mut() => return outcome.map_err(io::Error::other),
            () = context.reached(Phase::Shedding) => {}
            () = busy.idle_for(&context.limits) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            outcome = connection => outcome.map_err(io::Error::other),
            () = context.reached(Phase::Stopped) => Ok(()),
        }
    })
}

async fn respond(
    service: &Service,
    mut request: Request<Incoming>,
    refusal: Option<Refusal>,
    state: &Arc<ConnectionState>,
) -> Response<Body> {
    let upgraded = request.extensions_mut().remove::<OnUpgrade>();
    let framing = Framing::of(&request);
    let gateway = match service {
        Service::Gateway(gateway) => gateway,
        Service::Admin(admin) => return admin.answer(request, framing, state).await,
    };
    // hyper resets the stream when an unread body is dropped.
    let (request, _unread) = gateway.receive(request, framing, refusal, state).await;
    let reply = gateway.respond::<Response<Body>>(request, state).await;
    if let (Some(upgrade), Some(upgraded)) = (reply.upgrade, upgraded) {
        let state = state.clone();
        WatchedTasks.execute(async move {
            if let Ok(upgraded) = upgraded.await {
                upgrade.serve(UpgradedIo::Http2(TokioIo::new(upgraded)), state).await;
            }
        });
    }
    reply.answer
}

fn settings(limits: &Limits) -> http2::Builder<WatchedTasks> {
    let mut settings = http2::Builder::new(WatchedTasks);
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

/// Executor that spawns a task for each HTTP/2 stream.
#[derive(Debug, Clone, Copy)]
struct WatchedTasks;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for WatchedTasks {
    fn execute(&self, stream: F) {
        tokio::spawn(stall_timed(|| "an HTTP/2 stream", Box::pin(stream)));
    }
}

/// Counts the requests of a connection that have begun and ended, to tell when the connection is idle.
#[derive(Debug, Default)]
struct Busy {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Busy {
    /// Completes once no request was received or answered for the idle timeout.
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

/// Counts a request as busy from its head to the end of its response, or until the client leaves.
struct BusyGuard(Arc<Busy>);

impl BusyGuard {
    fn new(busy: Arc<Busy>) -> Self {
        busy.begun.fetch_add(1, Ordering::Relaxed);
        Self(busy)
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A response body that counts its request as busy until the last byte is written or the client leaves.
struct Tracked {
    body: Body,
    _answering: BusyGuard,
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

#[cfg(test)]
mod tests;
