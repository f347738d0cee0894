//! [`ParkedRequest`]: a request of a BOSH session that waits for its response. There may be very many, so it is no future: the connection
//! polls it with its own timer.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::session::BoshSession;
use crate::clock::ReusableSleep;

/// A request that waits for its response. Dropping it tells the session that the connection is lost.
pub struct ParkedRequest(Wait);

enum Wait {
    Answered(Bytes),
    Waiting {
        session: Arc<BoshSession>,
        rid: u64,
        /// Distinguishes connections that wait for the response to one request.
        connection: u32,
        /// The client will send no more over its connection.
        has_left: bool,
    },
}

impl ParkedRequest {
    pub(super) fn answered(response: Bytes) -> Self {
        Self(Wait::Answered(response))
    }

    pub(super) fn waiting(session: Arc<BoshSession>, rid: u64, connection: u32) -> Self {
        Self(Wait::Waiting { session, rid, connection, has_left: false })
    }

    /// Polls for the body of the response, which is returned once. `timer` is the timer of the connection.
    pub fn poll_response(&mut self, timer: &mut ReusableSleep, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            match &self.0 {
                Wait::Answered(response) => return Poll::Ready(response.clone()),
                Wait::Waiting { session, rid, connection, has_left } => {
                    match session.poll_response((*rid, *connection), *has_left, cx) {
                        Ok(response) => self.0 = Wait::Answered(response),
                        Err(deadline) => ready!(timer.poll(cx, deadline)),
                    }
                }
            }
        }
    }

    /// Ends the wait early: the client will send no more over its connection, and might be gone.
    pub fn end(&mut self) {
        if let Wait::Waiting { has_left, .. } = &mut self.0 {
            *has_left = true;
        }
    }

    /// Whether [`end`](Self::end) was called, or the response is there.
    pub fn has_ended(&self) -> bool {
        match &self.0 {
            Wait::Answered(_) => true,
            Wait::Waiting { has_left, .. } => *has_left,
        }
    }
}

impl Drop for ParkedRequest {
    fn drop(&mut self) {
        if let Wait::Waiting { session, connection, .. } = &self.0 {
            session.abandon(*connection);
        }
    }
}
