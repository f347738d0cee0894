//! Receives one HTTP/1 request with hyper: its head, and its body if the operation needs one.
//!
//! hyper parses exactly one request and never responds: once the request is complete, the connection is taken back from hyper,
//! and the response is written in the same way as on the fast path. So a connection costs the same memory afterwards, whatever
//! it has sent. hyper writes only `100 Continue`, and the response to bytes that are not HTTP.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::BytesMut;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use httparse::{EMPTY_HEADER, Status};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::body::Body;
use super::context::{BoxedStep, ConnectionContext, Service};
use super::io::GuardedStream;
use super::pending::PendingResponse;
use super::response::Framing;
use super::state::Phase;
use crate::http::api::fields::{Fields, ParsedFields};
use crate::http::api::routes::Refusal;
use crate::limits::Limits;

/// A connection, and the pending response to its request.
type OwedResponse<'a> = (Box<GuardedStream>, PendingResponse<'a>);

/// Receives the next request of a connection with hyper. `None`: the connection has ended.
pub(super) fn receive_with_hyper(
    mut io: Box<GuardedStream>,
    context: &ConnectionContext,
) -> BoxedStep<'_, Option<OwedResponse<'_>>> {
    Box::pin(async move {
        let Some(head) = read_head(&mut io, &context.limits).await? else { return Ok(None) };
        let refusal =
            if context.state.is_refused() { Some(Refusal::TooManyConnections) } else { head.refusal() };
        io.unread(&head.bytes);
        // The service puts its result here and never responds, so hyper neither writes nor parses the next request.
        let received = Mutex::new(None);
        let service = service_fn(async |request: Request<Incoming>| {
            let response = respond(context, request, refusal).await;
            // This keeps an unread body too: if it were dropped, hyper would read on.
            *received.lock() = Some(response);
            pending::<Result<Response<Body>, Infallible>>().await
        });
        let mut connection = settings(&context.limits).serve_connection(TokioIo::new(io), service);
        let receive = poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(ended.map(|()| None));
            }
            // A `100 Continue` that the kernel has not accepted yet would be lost with hyper's buffer.
            let is_written = !context.state.is_unsent();
            match received.lock().take_if(|_| is_written) {
                Some(response) => Poll::Ready(Ok(Some(response))),
                None => Poll::Pending,
            }
        });
        let response = tokio::select! {
            biased;
            response = receive => response.map_err(io::Error::other)?,
            () = context.reached(Phase::Stopped) => None,
        };
        let Some((response, unread)) = response else { return Ok(None) };
        let parts = connection.into_parts();
        let mut io = parts.io.into_inner();
        io.unread(&parts.read_buf);
        io.skip(unread.map_or(0, bytes_not_decoded));
        Ok(Some((io, response)))
    })
}

/// Reads the body if the operation needs it, and begins to answer. Also returns the body if it is left unread.
async fn respond<'a>(
    context: &'a ConnectionContext,
    request: Request<Incoming>,
    refusal: Option<Refusal>,
) -> (PendingResponse<'a>, Option<Incoming>) {
    let framing = Framing::of(&request);
    match &*context.service {
        Service::Gateway(gateway) => {
            let (request, unread) = gateway.receive(request, framing, refusal, &context.state).await;
            (PendingResponse::begin(gateway, request, &context.state).into_pending(), unread)
        }
        Service::Admin(admin) => {
            let keep_alive = framing.keep_alive && request.body().is_end_stream();
            let response = admin.answer(request, Framing { keep_alive, ..framing }, &context.state).await;
            (PendingResponse::ready(response), None)
        }
    }
}

/// Returns how many bytes of a body hyper has not decoded. Decoded bytes are in the body's channel, and are discarded here.
pub(super) fn bytes_not_decoded(mut body: Incoming) -> u64 {
    while let Some(Some(Ok(_))) = body.frame().now_or_never() {}
    body.size_hint().exact().unwrap_or(0)
}

/// The bytes of a request head, possibly with bytes of what follows.
struct ReadHead {
    bytes: BytesMut,
    has_two_lengths: bool,
}

impl ReadHead {
    fn refusal(&self) -> Option<Refusal> {
        self.has_two_lengths.then_some(Refusal::AmbiguousLength)
    }
}

/// Reads until the head is complete, or until hyper can tell that it is invalid. `None`: the client has left.
///
/// A request with both `Content-Length` and `Transfer-Encoding` is detected here: hyper ignores the first (RFC 9112, section
/// 6.3, allows that), but a proxy in front of the gateway may have used it.
async fn read_head(io: &mut GuardedStream, limits: &Limits) -> io::Result<Option<ReadHead>> {
    let mut bytes = BytesMut::with_capacity(1024);
    let read = async {
        loop {
            if io.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
            let mut fields = vec![EMPTY_HEADER; limits.headers_max];
            let mut request = httparse::Request::new(&mut fields);
            match request.parse(&bytes) {
                Ok(Status::Partial) if bytes.len() <= limits.head_bytes_max => {}
                Ok(Status::Partial) | Err(_) => return Ok(Some(false)),
                Ok(Status::Complete(_)) => {
                    let fields = ParsedFields::new(request.headers);
                    let has = |name| fields.values(name).next().is_some();
                    return Ok(Some(has(&CONTENT_LENGTH) && has(&TRANSFER_ENCODING)));
                }
            }
        }
    };
    let in_time = timeout(limits.head_timeout.get(), read).await;
    let has_two_lengths = in_time.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, "the request head did not arrive within head_timeout")
    })?;
    has_two_lengths.map(|found| found.map(|has_two_lengths| ReadHead { bytes, has_two_lengths }))
}

/// Configures hyper with the limits of the gateway.
pub(super) fn settings(limits: &Limits) -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout.get())
        .half_close(true)
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.connection_buffer_bytes);
    settings
}
