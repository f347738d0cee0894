//! [`BoshSession`]: a client that talks in HTTP requests (XEP-0124). At most one of its requests waits for something to send; a newer one
//! releases it.
//!
//! The stanzas of the client are handled one after the other by a task that lives as long as there are some (`work`), so that a
//! connection that is lost interrupts nothing. The same task reads messages for the client, but only while a request waits for them.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::body::{Condition, RequestBody, RequestKind, ResponseBody, Sid, Wishes};
use super::record::{BoshRecord, place_of, session_name};
use super::state::{
    EarlyRequest, ParkedConnection, PendingLogin, ReleasedRequest, SessionState, SessionTerms,
    StoredProgress, Unhandled, wake,
};
use super::window::{RidPlace, RidWindow};
use crate::auth::Unauthorized;
use crate::budget::Charge;
use crate::stream::Principal;
use crate::xmpp::client::{
    ClientFront, ClientSession, LOGIN_BYTES_MAX, LOGIN_TIMEOUT, Negotiation, StreamError,
};
use crate::xmpp::xml::to_bytes;

/// Shortest time between two requests that only ask for news, if the first one has none (XEP-0124, section 12).
pub(super) const POLLING: Duration = Duration::from_secs(2);

/// The longest pause that a client may announce.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(120);

/// A session.
pub(super) struct BoshSession {
    pub(super) clients: Arc<ClientFront>,
    pub(super) sid: Sid,
    /// The principal of the network address of the client that has opened it.
    pub(super) address: Principal,
    /// The client, once it has logged in.
    pub(super) client: OnceLock<Box<ClientSession>>,
    pub(super) state: Mutex<SessionState>,
}

/// What becomes of a request.
pub(super) enum TakenRequest {
    /// It has this response.
    Answered(Bytes),
    /// It waits for its response.
    Waits {
        rid: u64,
        /// Distinguishes connections that wait for the response to one request.
        connection: u32,
    },
    /// The session goes on elsewhere.
    Moved(Box<RequestBody>),
}

impl BoshSession {
    /// A session, and the response to the request `rid` that has opened it: it names the session and what the client can do.
    pub(super) fn open(
        clients: Arc<ClientFront>,
        sid: Sid,
        address: Principal,
        (rid, wishes): (u64, &Wishes),
        charge: Charge,
    ) -> (Self, Bytes) {
        let limits = &clients.limits;
        let wait = wishes.wait.unwrap_or(Duration::MAX).min(limits.bosh_wait_max.get());
        let holds = wishes.hold != Some(0) && !wait.is_zero();
        let inactivity = limits.bosh_inactivity.get();
        let requests_max = 1 + u64::from(holds);
        let negotiation = Negotiation::new(clients.clone(), address, false);
        let opened = ResponseBody::new()
            .of_xmpp()
            .with("sid", sid)
            .with("from", &clients.domain)
            .with("ver", "1.11")
            .with("wait", wait.as_secs())
            .with("hold", u8::from(holds))
            .with("requests", requests_max)
            .with("polling", POLLING.as_secs())
            .with("inactivity", inactivity.as_secs())
            .with("maxpause", PAUSE_MAX.as_secs())
            .with("charsets", "UTF-8");
        let opened = if wishes.acks { opened.with("ack", rid) } else { opened };
        let mut window = RidWindow::new(rid, requests_max);
        let response = opened.with_payload(&to_bytes(&negotiation.features()));
        window.answer(&response);
        let login = Box::new(PendingLogin { negotiation, until: Instant::now() + LOGIN_TIMEOUT });
        let wait_millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let terms = SessionTerms { wait_millis, holds, acks: wishes.acks };
        let mut state = SessionState::new(window, terms, Some(login), charge, inactivity);
        state.update_charge();
        clients.metrics.bosh_sessions.inc();
        let state = Mutex::new(state);
        (Self { clients, sid, address, client: OnceLock::new(), state }, response)
    }

    /// The session of a client that has logged in before, as it was stored.
    pub(super) fn restore(
        clients: Arc<ClientFront>,
        sid: Sid,
        client: ClientSession,
        record: BoshRecord,
        charge: Charge,
    ) -> Self {
        let BoshRecord { login, requests, subscriptions } = record;
        let inactivity = clients.limits.bosh_inactivity.get();
        let mut state = SessionState::new(requests.window, login.terms, None, charge, inactivity);
        let answered = Some(state.window.answered());
        state.stored =
            Some(Box::new(StoredProgress { first: login.first, answered, ..StoredProgress::default() }));
        state.out = requests.out;
        state.inbox_bytes = requests.inbox_bytes;
        state.inbox = requests.inbox.into();
        state.update_charge();
        client.store_in(session_name(sid));
        client.adopt(subscriptions);
        client.restore_device(requests.device.as_deref());
        clients.metrics.bosh_sessions.inc();
        let (address, state) = (Principal(login.address), Mutex::new(state));
        Self { clients, sid, address, client: OnceLock::from(Box::new(client)), state }
    }

    /// Takes a request of the client.
    pub(super) fn take(self: &Arc<Self>, body: RequestBody) -> TakenRequest {
        let mut state = self.state.lock();
        if state.has_moved() {
            return TakenRequest::Moved(Box::new(body));
        }
        if let Some(end) = &state.end {
            return TakenRequest::Answered(Bytes::clone(end));
        }
        if state.login.is_some() && body.bytes > LOGIN_BYTES_MAX {
            return self.refuse(&mut state, Condition::PolicyViolation);
        }
        let parked = state.new_parked();
        let taken = TakenRequest::Waits { rid: body.rid, connection: parked.connection };
        match state.window.place(body.rid) {
            RidPlace::Answered(response) => {
                self.clients.metrics.bosh_repeated.inc();
                if state.may_send(body.rid) {
                    return TakenRequest::Answered(response);
                }
            }
            RidPlace::Repeated => {
                self.clients.metrics.bosh_repeated.inc();
                if state.parked.is_none() {
                    state.parked = Some(parked);
                } else {
                    // Requests over two connections arrive in any order, so the client may read either. Both get the same response, and now: of two
                    // responses to one request the client would take one, and miss what is in the other.
                    let newest = state.window.taken();
                    self.release(&mut state, newest);
                }
            }
            RidPlace::Early => {
                let before = state.early.replace(Box::new(EarlyRequest { body, parked }));
                wake(before.map(|early| early.parked));
                state.update_charge();
            }
            RidPlace::Next => {
                let mut next = Some((body, parked));
                while let Some((body, parked)) = next {
                    if let Err(condition) = self.accept(&mut state, body, parked) {
                        return self.refuse(&mut state, condition);
                    }
                    next = state.early.take().map(|early| {
                        let EarlyRequest { body, mut parked } = *early;
                        // Its connection waits for its turn, and not yet for something to send.
                        parked.wake();
                        (body, parked)
                    });
                }
            }
            RidPlace::Outside => {
                // With all requests under way that it may have, the client has sent one more.
                let is_full = state.parked.is_some() && state.early.is_some();
                let is_new = body.rid > state.window.taken();
                let condition =
                    if is_full && is_new { Condition::PolicyViolation } else { Condition::ItemNotFound };
                return self.refuse(&mut state, condition);
            }
        }
        taken
    }

    /// Takes the request that is next by its id. It waits, and releases the one that waits.
    fn accept(
        self: &Arc<Self>,
        state: &mut SessionState,
        body: RequestBody,
        mut parked: ParkedConnection,
    ) -> Result<(), Condition> {
        let now = Instant::now();
        // The client has no reason to ask again so soon (XEP-0124, sections 11 and 12).
        let has_asked = state.parked.is_some() || !state.terms.holds && state.has_asked_in_vain;
        if body.is_empty() && has_asked && now < state.last_arrival + POLLING && state.login.is_none() {
            return Err(Condition::PolicyViolation);
        }
        let unhandled_max = 2 * self.clients.limits.xmpp_stanza_bytes_max;
        if state.inbox_bytes + body.bytes > unhandled_max {
            return Err(Condition::PolicyViolation);
        }
        if let RequestKind::Pause(pause) = body.kind
            && pause > PAUSE_MAX
        {
            return Err(Condition::PolicyViolation);
        }
        (state.last_arrival, state.has_asked_in_vain) = (now, body.is_empty());
        if let Some(ack) = body.ack {
            state.window.acknowledge(ack);
        }
        self.release(state, body.rid);
        state.window.take_next();
        if !body.payload.is_empty() {
            state.inbox_bytes += body.bytes;
        }
        let first = state.stored.as_ref().map(|stored| stored.first);
        let place = |index| first.and_then(|first| place_of(body.rid - first, index));
        let elements = body.payload.into_iter().zip(0..);
        state.inbox.extend(elements.map(|(element, index)| Unhandled::Element(element, place(index))));
        match body.kind {
            RequestKind::Plain => {}
            RequestKind::Restart => state.inbox.push_back(Unhandled::Restart),
            RequestKind::Terminate => state.inbox.push_back(Unhandled::Terminate),
            RequestKind::Pause(pause) => (parked.pause, parked.is_released) = (Some(pause), true),
        }
        state.parked = Some(parked);
        state.update_charge();
        self.start_work(state);
        Ok(())
    }

    /// Answers the request that waits with what there is, as the request `newest` has come.
    pub(super) fn release(&self, state: &mut SessionState, newest: u64) {
        if !state.window.owes_response() {
            return;
        }
        let parked = state.parked.take();
        let payload = match &parked {
            // The response to a pause has no payload (XEP-0124, section 10).
            Some(parked) if parked.pause.is_none() => std::mem::take(&mut state.out),
            // Over a lost connection nothing would arrive.
            _ => Vec::new(),
        };
        let response = state.response(&payload, newest);
        state.window.answer(&response);
        if let Some(mut parked) = parked {
            let connection = parked.connection;
            state.released = Some(Box::new(ReleasedRequest { connection, response }));
            parked.wake();
        }
    }

    /// Ends the session because of a request, which is told why.
    fn refuse(&self, state: &mut SessionState, condition: Condition) -> TakenRequest {
        TakenRequest::Answered(self.end(state, ResponseBody::terminate(Some(condition))))
    }

    /// Ends the session. Each request that waits gets this response, with the stanzas that are still to be sent.
    pub(super) fn end(&self, state: &mut SessionState, response: ResponseBody) -> Bytes {
        let end = response.with_payload(&std::mem::take(&mut state.out));
        if self.client.get().is_none() {
            self.clients.metrics.logins_failed.inc();
        }
        (state.inbox, state.inbox_bytes, state.login) = Default::default();
        state.end = Some(Box::new(end.clone()));
        wake(state.parked.take());
        wake(state.early.take().map(|early| early.parked));
        state.update_charge();
        self.clients.metrics.bosh_sessions.dec();
        end
    }

    /// Ends the session with a stream error (XEP-0206, section 8).
    pub(super) fn end_with(&self, state: &mut SessionState, error: StreamError) {
        state.out.extend(to_bytes(&error.to_element()));
        self.end(state, ResponseBody::terminate(Some(Condition::RemoteStreamError)));
    }

    /// Ends the session because the gateway drains.
    pub(super) fn shut_down(&self) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            self.end(&mut state, ResponseBody::terminate(Some(Condition::SystemShutdown)));
        }
    }

    /// Answers the request that waits, if there is one.
    pub(super) fn answer_early(&self) {
        if let Some(parked) = &mut self.state.lock().parked {
            parked.is_released = true;
            parked.wake();
        }
    }

    /// Ends the session if its time is over, or that of the client's rights.
    pub(super) fn check(&self, now: Instant, wall: SystemTime) {
        let mut state = self.state.lock();
        if state.end.is_some() || state.has_moved() {
            return;
        }
        if state.login.as_ref().is_some_and(|login| login.until <= now) {
            return self.end_with(&mut state, StreamError("connection-timeout"));
        }
        let is_idle = state.parked.is_none() && state.early.is_none() && !state.is_working;
        if is_idle && state.idle_until <= now {
            self.clients.metrics.bosh_lost.inc();
            self.end(&mut state, ResponseBody::terminate(Some(Condition::ItemNotFound)));
            return;
        }
        let rights = self.client.get().map(|client| self.clients.auth.check(client.grants(), wall));
        match rights {
            Some(Err(Unauthorized::Expired)) => self.end_with(&mut state, StreamError("reset")),
            Some(Err(_)) => self.end_with(&mut state, StreamError("not-authorized")),
            None | Some(Ok(())) => {}
        }
    }

    /// Whether the session goes on elsewhere.
    pub(super) fn has_moved(&self) -> bool {
        self.state.lock().has_moved()
    }

    /// Whether the client can go on elsewhere.
    pub(super) fn is_stored(&self) -> bool {
        self.state.lock().stored.is_some()
    }

    /// Counts the session no more, unless it has ended.
    pub(super) fn count_moved(&self) {
        if self.state.lock().end.is_none() {
            self.clients.metrics.bosh_sessions.dec();
        }
    }

    /// Gives a request away that came too early, see [`SessionState::give_early`].
    pub(super) fn give_early(&self) -> Option<(RequestBody, oneshot::Sender<Bytes>)> {
        self.state.lock().give_early()
    }

    /// Whether the session has ended. It is kept for a moment, for a client that repeats its last request.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().end.is_some()
    }
}
