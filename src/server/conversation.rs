//! The part of an HTTP/1 connection that hyper has: it reads the requests that are not answered without it, and writes their
//! answers. When one of them has to wait, the connection is taken from hyper.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Phase;
use super::berth::{Berth, Waiting};
use super::connection::{Asked, Terms, Turn};
use super::guard::Guarded;
use super::head::HeadWatch;
use super::tracked::Tracked;
use crate::limits::Limits;

/// What hyper leaves of a connection: its bytes, and an answer that is owed on it; or nothing.
pub(super) type Left = Option<(Box<Guarded>, Waiting)>;

/// Lets hyper serve the connection until it ends, or until an answer has to wait: then it comes back.
pub(super) fn converse(mut io: Box<Guarded>, terms: &Terms) -> Turn<'_, Left> {
    Box::pin(async move {
        let head = Arc::new(HeadWatch::default());
        io.watch(Some(head.clone()));
        let berth = Arc::new(Berth::default());
        let service = service_fn(|request: Request<Incoming>| {
            let ambiguous_length = head.begin(request.headers().contains_key(TRANSFER_ENCODING));
            let answering = Answering(head.clone());
            let (stays, has_body) = (stays(&request), !request.body().is_end_stream());
            let asked = terms.ask(request, ambiguous_length);
            let berth = berth.clone();
            async move {
                let answer = match asked {
                    Asked::Gateway(gateway, request)
                        if stays && (!has_body || request.has_body_to_read()) =>
                    {
                        berth.answer(gateway, request).await
                    }
                    asked => asked.answer().await,
                };
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    answering.0.stop();
                }
                Ok::<_, Infallible>(answer.map(|body| Tracked::new(body, answering)))
            }
        });
        let mut connection =
            settings(&terms.limits).serve_connection(TokioIo::new(io), service).with_upgrades();
        let offered = poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
                    return Poll::Ready(ended.map(|()| None));
                }
                match berth.take() {
                    None => return Poll::Pending,
                    Some(held) if !terms.link.is_unsent() => return Poll::Ready(Ok(Some(held))),
                    // What hyper has not written yet would be lost with it.
                    Some(held) => berth.decline(held),
                }
            }
        });
        // First the connection, so that hyper knows of a request that is there before it is told to end.
        let offered = tokio::select! {
            biased;
            offered = offered => Some(offered),
            () = terms.reached(Phase::Closing) => None,
        };
        match offered {
            Some(Ok(Some(held))) => {
                let Some(parts) = connection.into_parts() else { return Ok(None) };
                let mut io = parts.io.into_inner();
                io.unread(&parts.read_buf);
                io.watch(None);
                Ok(Some((io, held)))
            }
            Some(ended) => ended.map(|_| None).map_err(io::Error::other),
            None => {
                berth.close();
                Pin::new(&mut connection).graceful_shutdown();
                tokio::select! {
                    ended = connection => ended.map(|()| None).map_err(io::Error::other),
                    () = terms.reached(Phase::Stopped) => Ok(None),
                }
            }
        }
    })
}

/// Whether the connection may have another request behind this one (RFC 9112, section 9.3).
fn stays(request: &Request<Incoming>) -> bool {
    let mut options = request.headers().get_all(CONNECTION).iter();
    request.version() == Version::HTTP_11
        && options.all(|option| option.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
}

fn settings(limits: &Limits) -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout.get())
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.connection_buffer_bytes);
    settings
}

/// A request from its head to the end of its answer, or to the client's leaving.
struct Answering(Arc<HeadWatch>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}
