//! [`ParkedRequest`]: a request of a BOSH session that waits for its response. There may be very many, so it is no future: the connection
//! polls it with its own timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::body::{Condition, RequestBody, ResponseBody};
use super::responses::PolledResponse;
use super::session::{BoshSession, TakenRequest};
use crate::clock::ReusableSleep;

/// A request that waits for its response. Dropping it tells the session that the connection is lost.
pub struct ParkedRequest {
    wait: Wait,
    /// The client will send no more over its connection.
    has_left: bool,
}

enum Wait {
    Answered(Bytes),
    Waiting {
        session: Arc<BoshSession>,
        rid: u64,
        /// Distinguishes connections that wait for the response to one request.
        connection: u32,
    },
    /// Until its session has come to this gateway.
    Fetching(oneshot::Receiver<ParkedRequest>),
    /// For the response of another object.
    Elsewhere(oneshot::Receiver<Bytes>),
}

impl ParkedRequest {
    fn new(wait: Wait) -> Self {
        Self { wait, has_left: false }
    }

    pub(super) fn answered(response: Bytes) -> Self {
        Self::new(Wait::Answered(response))
    }

    /// A request whose session ends with it.
    pub(super) fn refused(condition: Condition) -> Self {
        Self::answered(ResponseBody::terminate(Some(condition)).with_payload(b""))
    }

    pub(super) fn fetching(request: oneshot::Receiver<Self>) -> Self {
        Self::new(Wait::Fetching(request))
    }

    /// A request that a session has taken. The error is one whose session goes on elsewhere.
    pub(super) fn taken(session: Arc<BoshSession>, taken: TakenRequest) -> Result<Self, Box<RequestBody>> {
        match taken {
            TakenRequest::Answered(response) => Ok(Self::answered(response)),
            TakenRequest::Waits { rid, connection } => {
                Ok(Self::new(Wait::Waiting { session, rid, connection }))
            }
            TakenRequest::Moved(body) => Err(body),
        }
    }

    /// Polls for the body of the response, which is returned once. `timer` is the timer of the connection.
    pub fn poll_response(&mut self, timer: &mut ReusableSleep, cx: &mut Context<'_>) -> Poll<Bytes> {
        // Without its sender, the gateway is about to end.
        let lost = || ResponseBody::terminate(Some(Condition::SystemShutdown)).with_payload(b"");
        loop {
            match &mut self.wait {
                Wait::Answered(response) => return Poll::Ready(response.clone()),
                Wait::Waiting { session, rid, connection } => {
                    match session.poll_response((*rid, *connection), self.has_left, cx) {
                        PolledResponse::Ready(response) => self.wait = Wait::Answered(response),
                        PolledResponse::Until(deadline) => ready!(timer.poll(cx, deadline)),
                        PolledResponse::Elsewhere(response) => self.wait = Wait::Elsewhere(response),
                    }
                }
                Wait::Fetching(request) => match ready!(Pin::new(request).poll(cx)) {
                    // It is taken apart in place, since it tells its session when it is dropped.
                    Ok(mut request) => std::mem::swap(&mut self.wait, &mut request.wait),
                    Err(_ended) => self.wait = Wait::Answered(lost()),
                },
                Wait::Elsewhere(response) => {
                    let response = ready!(Pin::new(response).poll(cx));
                    self.wait = Wait::Answered(response.unwrap_or_else(|_ended| lost()));
                }
            }
        }
    }

    /// Ends the wait early: the client will send no more over its connection, and might be gone.
    pub fn end(&mut self) {
        self.has_left = true;
    }

    /// Whether [`end`](Self::end) was called, or the response is there.
    pub fn has_ended(&self) -> bool {
        self.has_left || matches!(self.wait, Wait::Answered(_))
    }
}

impl Drop for ParkedRequest {
    fn drop(&mut self) {
        if let Wait::Waiting { session, connection, .. } = &self.wait {
            session.abandon(*connection);
        }
    }
}
