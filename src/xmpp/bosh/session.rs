//! [`BoshSession`]: a client that talks in HTTP requests (XEP-0124). At most one of its requests waits for something to send; a newer one
//! releases it.
//!
//! The stanzas of the client are handled one after the other by a task that lives as long as there are some (`work`), so that a
//! connection that is lost interrupts nothing. The same task reads messages for the client, but only while a request waits for them.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::Context;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use minidom::Element;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::{Condition, RequestBody, RequestKind, ResponseBody, Sid, Wishes};
use super::state::{
    EarlyRequest, OUT_BYTES_MAX, ParkedConnection, PendingLogin, ReleasedRequest, SessionState, Unhandled,
    wake,
};
use super::window::{RidPlace, RidWindow};
use crate::auth::Unauthorized;
use crate::budget::{Account, Charge};
use crate::hub::Waiter;
use crate::metrics::stall_timed;
use crate::stream::Principal;
use crate::xmpp::client::{
    ClientFront, ClientSession, LOGIN_BYTES_MAX, LOGIN_TIMEOUT, Negotiation, NegotiationStep, StreamError,
};
use crate::xmpp::xml::to_bytes;

/// Shortest time between two requests that only ask for news, if the first one has none (XEP-0124, section 12).
pub(super) const POLLING: Duration = Duration::from_secs(2);

/// The longest pause that a client may announce.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(120);

/// A session.
pub(super) struct BoshSession {
    clients: Arc<ClientFront>,
    pub(super) sid: Sid,
    /// The principal of the network address of the client that has opened it.
    pub(super) address: Principal,
    /// The client, once it has logged in.
    client: OnceLock<Box<ClientSession>>,
    state: Mutex<SessionState>,
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
}

/// What the task of a session does next.
enum SessionStep {
    Handle(Unhandled),
    Deliver,
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
        let now = Instant::now();
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
        let mut state = SessionState {
            window,
            login: Some(Box::new(PendingLogin { negotiation, until: now + LOGIN_TIMEOUT })),
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
            wait,
            holds,
            acks: wishes.acks,
            next_connection: 0,
            end: None,
            charge,
        };
        state.update_charge();
        clients.metrics.bosh_sessions.inc();
        let state = Mutex::new(state);
        (Self { clients, sid, address, client: OnceLock::new(), state }, response)
    }

    /// Takes a request of the client.
    pub(super) fn take(self: &Arc<Self>, body: RequestBody) -> TakenRequest {
        let mut state = self.state.lock();
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
                return TakenRequest::Answered(response);
            }
            RidPlace::Repeated => {
                self.clients.metrics.bosh_repeated.inc();
                // Its client has given up the connection before.
                wake(state.parked.replace(parked));
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
        let has_asked = state.parked.is_some() || !state.holds && state.has_asked_in_vain;
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
        state.inbox.extend(body.payload.into_iter().map(Unhandled::Element));
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
    fn release(&self, state: &mut SessionState, newest: u64) {
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
    fn end(&self, state: &mut SessionState, response: ResponseBody) -> Bytes {
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
    fn end_with(&self, state: &mut SessionState, error: StreamError) {
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
        if state.end.is_some() {
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

    /// Whether the session has ended. It is kept for a moment, for a client that repeats its last request.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// Starts the task of the session, if there is something to do.
    fn start_work(self: &Arc<Self>, state: &mut SessionState) {
        if !state.is_working && (!state.inbox.is_empty() || state.parked.is_some() && self.has_messages()) {
            state.is_working = true;
            let session = self.clone();
            tokio::spawn(stall_timed(|| "a BOSH session", Box::pin(async move { session.work().await })));
        }
    }

    fn has_messages(&self) -> bool {
        self.client.get().is_some_and(|client| client.has_messages())
    }

    /// Handles what the client has sent, and reads messages for it.
    async fn work(self: &Arc<Self>) {
        while let Some(step) = self.next_step() {
            match (step, self.client.get()) {
                (SessionStep::Handle(Unhandled::Element(stanza)), Some(client)) => {
                    let answers = client.handle(stanza).await;
                    self.send(answers);
                }
                // The messages count as sent once they are read: nothing may wait in between.
                (SessionStep::Deliver, Some(client)) => {
                    let messages = client.next_messages().await;
                    self.send(messages);
                }
                (SessionStep::Handle(Unhandled::Element(element)), None) => self.log_in(element),
                (SessionStep::Handle(Unhandled::Restart), _) => self.restart(),
                (SessionStep::Handle(Unhandled::Terminate), _) => {
                    let mut state = self.state.lock();
                    if state.end.is_none() {
                        self.end(&mut state, ResponseBody::terminate(None));
                    }
                }
                (SessionStep::Deliver, None) => {}
            }
        }
    }

    /// Returns what the task has to do, or notes that it ends.
    fn next_step(&self) -> Option<SessionStep> {
        let mut state = self.state.lock();
        if state.out.len() < OUT_BYTES_MAX {
            if let Some(received) = state.inbox.pop_front() {
                return Some(SessionStep::Handle(received));
            }
            // Its capacity is for elements, which are large.
            (state.inbox, state.inbox_bytes) = Default::default();
            if state.parked.is_some() && self.has_messages() {
                return Some(SessionStep::Deliver);
            }
        }
        state.is_working = false;
        if let Some(parked) = &mut state.parked {
            parked.wake();
        }
        None
    }

    fn send(&self, stanzas: Vec<Vec<u8>>) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            stanzas.iter().for_each(|stanza| state.out.extend_from_slice(stanza));
            state.update_charge();
        }
    }

    fn log_in(&self, element: Element) {
        let mut state = self.state.lock();
        let Some(login) = &mut state.login else { return };
        match login.negotiation.handle(element) {
            NegotiationStep::Answer(answer) => state.out.extend(to_bytes(&answer)),
            NegotiationStep::Bound(answer, client) => {
                state.out.extend(to_bytes(&answer));
                state.login = None;
                let grants = client.grants();
                let principal = grants.principal().unwrap_or(self.address);
                let owner = self.clients.hub.budget().owner_in(grants.tenant().clone(), principal);
                state.charge = Charge::new(&owner, Account::Sessions, 0);
                state.update_charge();
                // The only place that sets it, once.
                let _is_first = self.client.set(client);
            }
            // It was not offered.
            NegotiationStep::Resume(_) => self.end_with(&mut state, StreamError("unsupported-stanza-type")),
            NegotiationStep::End(answer, error) => {
                state.out.extend(answer.iter().flat_map(to_bytes));
                self.end_with(&mut state, error);
            }
        }
    }

    fn restart(&self) {
        let mut state = self.state.lock();
        if let Some(login) = &state.login {
            let features = to_bytes(&login.negotiation.features());
            state.out.extend(features);
        }
    }

    /// Returns the response to a request, or until when it waits. `has_left`: the client will send no more over this connection.
    pub(super) fn poll_response(
        self: &Arc<Self>,
        (rid, connection): (u64, u32),
        has_left: bool,
        cx: &mut Context<'_>,
    ) -> Result<Bytes, Instant> {
        let mut state = self.state.lock();
        if let Some(response) = state.take_released(connection) {
            return Ok(response);
        }
        if let Some(end) = &state.end {
            return Ok(Bytes::clone(end));
        }
        let now = Instant::now();
        if let Some(early) = state.early.as_mut().filter(|early| early.parked.connection == connection) {
            early.parked.waker = Some(cx.waker().clone());
            let deadline = early.parked.deadline;
            if has_left {
                // As if it had not come: it may not be answered before its turn.
                state.early = None;
                state.update_charge();
                return Ok(ResponseBody::empty());
            }
            if deadline > now {
                return Err(deadline);
            }
            // Those before it are lost.
            return Ok(self.end(&mut state, ResponseBody::terminate(Some(Condition::ItemNotFound))));
        }
        let Some(parked) = state.parked.as_ref().filter(|parked| parked.connection == connection) else {
            return Ok(match state.window.place(rid) {
                RidPlace::Answered(response) => response,
                // Another connection waits for the response.
                _ => ResponseBody::empty(),
            });
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
        if has_news || is_over || is_quiet && !state.holds {
            let payload = if is_pause { Vec::new() } else { std::mem::take(&mut state.out) };
            let response = state.response(&payload, rid);
            state.window.answer(&response);
            state.leave(now, self.clients.limits.bosh_inactivity.get());
            state.update_charge();
            self.start_work(&mut state);
            return Ok(response);
        }
        if let Some(parked) = &mut state.parked {
            parked.waker = Some(cx.waker().clone());
        }
        // One that has passed is handled when the task has ended, which wakes this connection.
        let retry_at = self.client.get().and_then(|client| client.retry_at()).filter(|at| *at > now);
        Err(retry_at.map_or(deadline, |retry_at| retry_at.min(deadline)))
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
