//! The responses of a [`BoshSession`] to requests that wait, as their connections poll for them.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::body::{Condition, ResponseBody};
use super::session::BoshSession;
use super::state::{OUT_BYTES_MAX, ReleasedRequest, SessionState};
use super::window::RidPlace;

/// Interval at which a connection looks again that is woken when there is something for it.
const LAST_TIME: Duration = Duration::from_secs(60);

/// The outcome of a poll for a response.
pub(super) enum PolledResponse {
    Ready(Bytes),
    /// There is none until this time.
    Until(Instant),
    /// The session goes on at another gateway, or in another object, which responds.
    Elsewhere(oneshot::Receiver<Bytes>),
}

impl BoshSession {
    /// Returns the response to a request, or until when it waits. `has_left`: the client will send no more over this connection.
    pub(super) fn poll_response(
        self: &Arc<Self>,
        (rid, connection): (u64, u32),
        has_left: bool,
        cx: &mut Context<'_>,
    ) -> PolledResponse {
        let mut state = self.state.lock();
        if let Some(response) = state.take_elsewhere(connection) {
            return PolledResponse::Elsewhere(response);
        }
        if state.may_send(rid)
            && let Some(response) = state.take_released(connection)
        {
            return PolledResponse::Ready(response);
        }
        if let Some(end) = &state.end {
            return PolledResponse::Ready(Bytes::clone(end));
        }
        let now = Instant::now();
        if let Some(early) = state.early.as_mut().filter(|early| early.parked.connection == connection) {
            early.parked.waker = Some(cx.waker().clone());
            let deadline = early.parked.deadline;
            if has_left {
                // As if it had not come: it may not be answered before its turn.
                state.early = None;
                state.update_charge();
                return PolledResponse::Ready(ResponseBody::empty());
            }
            if state.has_moved() {
                return PolledResponse::Until(now + LAST_TIME);
            }
            if deadline > now {
                return PolledResponse::Until(deadline);
            }
            // Those before it are lost.
            let end = self.end(&mut state, ResponseBody::terminate(Some(Condition::ItemNotFound)));
            return PolledResponse::Ready(end);
        }
        let Some(parked) = state.parked.as_ref().filter(|parked| parked.connection == connection) else {
            return match state.window.place(rid) {
                RidPlace::Answered(_) if !state.may_send(rid) => Self::wait_for_store(&mut state, now, cx),
                RidPlace::Answered(response) => PolledResponse::Ready(response),
                // Another connection waits for the response.
                _ => PolledResponse::Ready(ResponseBody::empty()),
            };
        };
        let deadline = parked.deadline;
        let is_pause = parked.pause.is_some();
        let is_over = has_left || parked.is_released || deadline <= now;
        if let Some(client) = self.client.get().filter(|_| !is_over) {
            while client.poll_changed(&mut state.waiter, cx).is_ready() && !state.is_working {
                self.start_work(&mut state);
            }
        }
        let is_quiet = !state.is_working && state.inbox.is_empty();
        let has_news = !state.out.is_empty() && (is_quiet || state.out.len() >= OUT_BYTES_MAX);
        if has_news || is_over || is_quiet && !state.terms.holds {
            let payload = if is_pause { Vec::new() } else { std::mem::take(&mut state.out) };
            let response = state.response(&payload, rid);
            state.window.answer(&response);
            state.leave(now, self.clients.limits.bosh_inactivity.get());
            let may_send = state.may_send(rid);
            if !may_send {
                state.released = Some(Box::new(ReleasedRequest { connection, response: response.clone() }));
            }
            state.update_charge();
            self.start_work(&mut state);
            return match may_send {
                true => PolledResponse::Ready(response),
                false => Self::wait_for_store(&mut state, now, cx),
            };
        }
        if let Some(parked) = &mut state.parked {
            parked.waker = Some(cx.waker().clone());
        }
        // One that has passed is handled when the task has ended, which wakes this connection.
        let retry_at = self.client.get().and_then(|client| client.retry_at()).filter(|at| *at > now);
        PolledResponse::Until(retry_at.map_or(deadline, |retry_at| retry_at.min(deadline)))
    }

    /// Waits until the response to a request is stored. If the session goes on elsewhere without it, the client has to log in again.
    fn wait_for_store(state: &mut SessionState, now: Instant, cx: &Context<'_>) -> PolledResponse {
        match &mut state.stored {
            Some(stored) if !stored.is_settled => {
                stored.wakers.push(cx.waker().clone());
                PolledResponse::Until(now + LAST_TIME)
            }
            _ => {
                let end = ResponseBody::terminate(Some(Condition::ItemNotFound));
                PolledResponse::Ready(end.with_payload(b""))
            }
        }
    }

    /// The connection of a request is lost.
    pub(super) fn abandon(&self, connection: u32) {
        let mut state = self.state.lock();
        if state.parked.as_ref().is_some_and(|parked| parked.connection == connection) {
            state.leave(Instant::now(), self.clients.limits.bosh_inactivity.get());
        }
        if state.early.as_ref().is_some_and(|early| early.parked.connection == connection) {
            state.early = None;
            state.update_charge();
        }
        state.take_released(connection);
    }
}
