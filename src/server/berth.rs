//! Where a request that has to wait leaves its answer, so that the connection can be taken from hyper.

use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::Response;
use hyper::body::Body as _;
use parking_lot::Mutex;

use crate::http::{Body, Gateway, Parsed};

/// An answer to come.
pub(super) type Waiting = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Between the service, within hyper, and whoever drives the connection.
#[derive(Default)]
pub(super) struct Berth(Mutex<Place>);

#[derive(Default)]
struct Place {
    /// Who drives the connection may take it.
    offered: Option<Waiting>,
    /// It has to wait within hyper.
    declined: Option<Waiting>,
    /// All that are offered are declined.
    closed: bool,
}

impl Berth {
    /// The answer, within hyper: at once, or if the connection is not taken. If it is, this never returns.
    pub(super) async fn answer(&self, gateway: Arc<Gateway>, request: Parsed) -> Response<Body> {
        let request = gateway.prepare(request).await;
        if !request.waits() {
            return gateway.answer(request).await;
        }
        let mut answer: Waiting = Box::pin(async move { gateway.answer(request).await });
        let first = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        answer = match first {
            Poll::Ready(answer) if answer.body().size_hint().exact().is_some() => return answer,
            Poll::Ready(answer) => Box::pin(ready(answer)),
            Poll::Pending => answer,
        };
        self.offer(answer);
        // Who declines polls hyper again, and hyper this.
        poll_fn(|_| self.declined()).await.await
    }

    fn offer(&self, answer: Waiting) {
        let mut place = self.0.lock();
        if place.closed {
            place.declined = Some(answer);
        } else {
            place.offered = Some(answer);
        }
    }

    fn declined(&self) -> Poll<Waiting> {
        self.0.lock().declined.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// An answer that is offered.
    pub(super) fn take(&self) -> Option<Waiting> {
        self.0.lock().offered.take()
    }

    /// Gives an answer back to hyper.
    pub(super) fn decline(&self, answer: Waiting) {
        self.0.lock().declined = Some(answer);
    }

    /// From now on hyper keeps the connection.
    pub(super) fn close(&self) {
        let mut place = self.0.lock();
        place.closed = true;
        if let Some(offered) = place.offered.take() {
            place.declined = Some(offered);
        }
    }
}
