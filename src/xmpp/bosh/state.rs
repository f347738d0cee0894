//! [`SessionState`]: what a BOSH session has of its client's requests, and for them. Without IO.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use minidom::Element;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::body::{RequestBody, ResponseBody};
use super::window::RidWindow;
use crate::budget::Charge;
use crate::hub::Waiter;
use crate::xmpp::client::Negotiation;

/// Estimated memory of a session without a connection, in bytes.
pub(super) const SESSION_BYTES: u64 = 1536;

/// An element takes more memory than its XML.
const ELEMENT_FACTOR: usize = 4;

/// Size of stanzas for the client from which on no more are made until it has taken them.
pub(super) const OUT_BYTES_MAX: usize = 64 * 1024;

/// The state of a session.
pub(super) struct SessionState {
    pub(super) window: RidWindow,
    /// `None`: the client has logged in.
    pub(super) login: Option<Box<PendingLogin>>,
    /// What the client has sent and is not handled yet.
    pub(super) inbox: VecDeque<Unhandled>,
    /// Size of the bodies that it came in.
    pub(super) inbox_bytes: usize,
    /// Stanzas for the client.
    pub(super) out: Vec<u8>,
    /// The request that waits for its response, unless its connection is lost.
    pub(super) parked: Option<ParkedConnection>,
    pub(super) early: Option<Box<EarlyRequest>>,
    /// What a newer request has released. Its connection takes the response from here, since the window may drop large ones.
    pub(super) released: Option<Box<ReleasedRequest>>,
    /// Waits for messages for the client.
    pub(super) waiter: Waiter,
    /// The task of the session runs.
    pub(super) is_working: bool,
    /// When the session ends if no request waits until then.
    pub(super) idle_until: Instant,
    /// When the last request was taken.
    pub(super) last_arrival: Instant,
    /// The last request only asked for news, and there were none.
    pub(super) has_asked_in_vain: bool,
    pub(super) terms: SessionTerms,
    /// Distinguishes connections that wait for the response to one request.
    pub(super) next_connection: u32,
    /// The response to all requests once the session has ended.
    pub(super) end: Option<Box<Bytes>>,
    /// `None`: the session is not stored, since the store does not outlive the gateway, or the client has not logged in.
    pub(super) stored: Option<Box<StoredProgress>>,
    pub(super) charge: Charge,
}

/// What a client and the gateway have agreed on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SessionTerms {
    /// How long a request waits, in milliseconds.
    pub(super) wait_millis: u32,
    /// Requests may wait.
    pub(super) holds: bool,
    /// The client wants to be told which requests have arrived.
    pub(super) acks: bool,
}

/// How far a session is stored, so that its client can go on at another gateway, or after a restart. A response is sent once it is stored.
#[derive(Default)]
pub(super) struct StoredProgress {
    /// The request from which on the places of stanzas are counted.
    pub(super) first: u64,
    /// The last request whose response is stored. `None`: the session is not stored yet.
    pub(super) answered: Option<u64>,
    /// Connections whose responses are not stored yet.
    pub(super) wakers: Vec<Waker>,
    /// Is told when the session is stored and may go on elsewhere.
    pub(super) leaving: Option<oneshot::Sender<()>>,
    /// The session goes on elsewhere: nothing changes it any more.
    pub(super) has_moved: bool,
    /// It has moved, and what is not stored by now is not stored by this gateway.
    pub(super) is_settled: bool,
    /// The connection of a request that came too early, and the response that it gets elsewhere.
    pub(super) elsewhere: Option<(u32, oneshot::Receiver<Bytes>)>,
}

/// A client that has not logged in.
pub(super) struct PendingLogin {
    pub(super) negotiation: Negotiation,
    pub(super) until: Instant,
}

/// A connection that waits for the response to a request.
pub(super) struct ParkedConnection {
    pub(super) connection: u32,
    pub(super) waker: Option<Waker>,
    pub(super) deadline: Instant,
    /// For how long its client then sends nothing.
    pub(super) pause: Option<Duration>,
    /// It is answered even if there is nothing to send.
    pub(super) is_released: bool,
}

/// A request that has overtaken the one before it.
pub(super) struct EarlyRequest {
    pub(super) body: RequestBody,
    pub(super) parked: ParkedConnection,
}

/// A request that has its response, which its connection has not taken yet.
pub(super) struct ReleasedRequest {
    pub(super) connection: u32,
    pub(super) response: Bytes,
}

/// Something that the client has sent.
pub(super) enum Unhandled {
    /// With its place among all stanzas of the client, if the session is stored.
    Element(Element, Option<u64>),
    Restart,
    Terminate,
}

impl SessionState {
    /// A session without requests that wait, whose client has to come back within `inactivity`.
    pub(super) fn new(
        window: RidWindow,
        terms: SessionTerms,
        login: Option<Box<PendingLogin>>,
        charge: Charge,
        inactivity: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            window,
            login,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            out: Vec::new(),
            parked: None,
            early: None,
            released: None,
            waiter: Waiter::default(),
            is_working: false,
            idle_until: now + inactivity,
            last_arrival: now,
            has_asked_in_vain: false,
            terms,
            next_connection: 0,
            end: None,
            stored: None,
            charge,
        }
    }

    /// Whether the session goes on elsewhere.
    pub(super) fn has_moved(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.has_moved)
    }

    /// Whether the response to a request may be sent.
    pub(super) fn may_send(&self, rid: u64) -> bool {
        self.stored.as_ref().is_none_or(|stored| stored.answered.is_some_and(|answered| rid <= answered))
    }

    /// Whether the session has changed in a way that has to be stored.
    pub(super) fn is_unstored(&self) -> bool {
        let answered = self.window.answered();
        let stored = self.stored.as_ref().filter(|stored| !stored.has_moved && self.end.is_none());
        stored.is_some_and(|stored| stored.answered != Some(answered))
    }

    /// Whether another gateway waits for the session.
    pub(super) fn is_wanted(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.leaving.is_some())
    }

    /// Wakes the connections whose responses were not stored.
    pub(super) fn wake_unstored(&mut self) {
        let wakers = self.stored.as_mut().map(|stored| std::mem::take(&mut stored.wakers));
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Gives a request that came too early away, whose session goes on elsewhere. Its connection gets the response that is sent.
    pub(super) fn give_early(&mut self) -> Option<(RequestBody, oneshot::Sender<Bytes>)> {
        let stored = self.stored.as_mut()?;
        let EarlyRequest { body, mut parked } = *self.early.take()?;
        let (sender, receiver) = oneshot::channel();
        stored.elsewhere = Some((parked.connection, receiver));
        parked.wake();
        Some((body, sender))
    }

    /// Takes what [`give_early`](Self::give_early) has left for a connection.
    pub(super) fn take_elsewhere(&mut self, connection: u32) -> Option<oneshot::Receiver<Bytes>> {
        let stored = self.stored.as_mut()?;
        stored.elsewhere.take_if(|(its, _)| *its == connection).map(|(_, receiver)| receiver)
    }

    pub(super) fn new_parked(&mut self) -> ParkedConnection {
        self.next_connection = self.next_connection.wrapping_add(1);
        let deadline = Instant::now() + Duration::from_millis(self.terms.wait_millis.into());
        ParkedConnection {
            connection: self.next_connection,
            waker: None,
            deadline,
            pause: None,
            is_released: false,
        }
    }

    /// No request waits any more. The client has to come back within its pause or, if it has announced none, within `inactivity`.
    pub(super) fn leave(&mut self, now: Instant, inactivity: Duration) {
        let pause = self.parked.take().and_then(|parked| parked.pause);
        self.idle_until = now + pause.unwrap_or(inactivity);
    }

    /// The response to the last request that was taken, while `newest` is the last one that has arrived in order.
    pub(super) fn response(&mut self, payload: &[u8], newest: u64) -> Bytes {
        self.has_asked_in_vain &= payload.is_empty();
        if self.terms.acks && newest > self.window.taken() {
            return ResponseBody::new().with("ack", newest).with_payload(payload);
        }
        if payload.is_empty() { ResponseBody::empty() } else { ResponseBody::new().with_payload(payload) }
    }

    pub(super) fn update_charge(&mut self) {
        let early = self.early.as_ref().map_or(0, |early| early.body.bytes);
        let elements = ELEMENT_FACTOR * (self.inbox_bytes + early);
        let released = self.released.as_ref().map_or(0, |released| released.response.len());
        let bytes = elements + self.out.len() + self.window.bytes() + released;
        self.charge.set(SESSION_BYTES + bytes as u64);
    }

    /// Takes the response of a request that a newer one has released.
    pub(super) fn take_released(&mut self, connection: u32) -> Option<Bytes> {
        let released = self.released.take_if(|released| released.connection == connection)?;
        self.update_charge();
        Some(released.response)
    }
}

impl ParkedConnection {
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Wakes the connection of a request that no longer waits.
pub(super) fn wake(parked: Option<ParkedConnection>) {
    if let Some(mut parked) = parked {
        parked.wake();
    }
}
