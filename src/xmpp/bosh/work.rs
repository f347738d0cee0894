//! The task of a [`BoshSession`]: it handles what the client has sent, reads messages for it, and stores the session. It lives as long as
//! there is something to do, so that a connection that is lost interrupts nothing.
//!
//! A session whose store outlives the gateway is stored before each response is sent: with the responses that the client may ask for again,
//! the offsets behind the messages in them, and what is not handled yet. So its client goes on anywhere, and reads nothing twice. A request
//! that was handled and not stored is handled again; what it has published is recognized by its place.

use std::sync::Arc;
use std::time::Duration;

use minidom::Element;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::body::ResponseBody;
use super::record::{LoginRecord, RequestsRecord, publisher_name, session_name};
use super::session::BoshSession;
use super::state::{OUT_BYTES_MAX, SessionState, StoredProgress, Unhandled};
use crate::budget::{Account, Charge};
use crate::metrics::stall_timed;
use crate::stream::Failure;
use crate::xmpp::RequestPlace;
use crate::xmpp::client::{NegotiationStep, StreamError};
use crate::xmpp::xml::to_bytes;

/// Delay before a session is stored again that could not be stored.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How long a session may take until it goes on elsewhere.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the task of a session does next.
enum SessionStep {
    Handle(Unhandled),
    Deliver,
    Store,
    /// Stores the session for the last time.
    Leave(oneshot::Sender<()>),
}

impl BoshSession {
    /// Starts the task of the session, if there is something to do.
    pub(super) fn start_work(self: &Arc<Self>, state: &mut SessionState) {
        let has_work = !state.inbox.is_empty()
            || state.parked.is_some() && self.has_messages()
            || state.is_unstored()
            || state.is_wanted();
        if !state.is_working && has_work {
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
                (SessionStep::Store, _) => self.store().await,
                (SessionStep::Leave(told), _) => self.leave_stored(told).await,
                (SessionStep::Handle(Unhandled::Element(stanza, number)), Some(client)) => {
                    let place =
                        number.map(|number| RequestPlace { session: publisher_name(self.sid), number });
                    let answers = client.handle_at(stanza, place).await;
                    self.send(answers);
                }
                // The messages count as sent once they are read: nothing may wait in between.
                (SessionStep::Deliver, Some(client)) => {
                    let messages = client.next_messages().await;
                    self.send(messages);
                }
                (SessionStep::Handle(Unhandled::Element(element, _)), None) => self.log_in(element),
                (SessionStep::Handle(Unhandled::Restart), _) => self.restart(),
                (SessionStep::Handle(Unhandled::Terminate), client) => {
                    client.iter().for_each(|client| client.leave_device());
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
        if let Some(told) = state.stored.as_mut().and_then(|stored| stored.leaving.take()) {
            return Some(SessionStep::Leave(told));
        }
        if state.stored.as_ref().is_some_and(|stored| stored.answered.is_none()) && state.is_unstored() {
            return Some(SessionStep::Store);
        }
        let has_room = state.out.len() < OUT_BYTES_MAX && !state.has_moved();
        if has_room && let Some(received) = state.inbox.pop_front() {
            return Some(SessionStep::Handle(received));
        }
        if state.is_unstored() {
            return Some(SessionStep::Store);
        }
        if has_room {
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
                if self.clients.hub.keeps_sessions() {
                    let first = state.window.taken();
                    state.stored = Some(Box::new(StoredProgress { first, ..StoredProgress::default() }));
                    client.store_in(session_name(self.sid));
                }
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

    /// Stores the session. While the store does not answer, no response is sent. If it refuses the change, as when it is full, responses are
    /// sent all the same, and the client has to log in again elsewhere.
    async fn store(&self) {
        let (entries, answered, is_first) = {
            let state = self.state.lock();
            let Some((stored, client)) = state.stored.as_ref().zip(self.client.get()) else { return };
            let is_first = stored.answered.is_none();
            let login = is_first.then(|| LoginRecord::of(client, self.address, stored.first, state.terms));
            let entries =
                [Some(RequestsRecord::of(&state, client).to_entry()), login.map(|login| login.to_entry())];
            (entries.into_iter().flatten().collect::<Option<Vec<_>>>(), state.window.answered(), is_first)
        };
        let outcome = match (entries, self.client.get()) {
            (Some(entries), Some(client)) => {
                let claimed = if is_first { self.claim().await } else { Ok(()) };
                match claimed {
                    Ok(()) => client.save(entries).await,
                    Err(failure) => Err(failure),
                }
            }
            _ => Err(Failure::Broken),
        };
        match outcome {
            Ok(()) => self.set_stored(answered),
            // Its client goes on elsewhere.
            Err(Failure::Superseded) => settle(&mut self.state.lock()),
            Err(error @ Failure::Unreachable) => {
                tracing::error!(%error, "cannot store a BOSH session; will retry");
                sleep(STORE_RETRY).await;
            }
            Err(error) => {
                tracing::error!(%error, "cannot store a BOSH session, which cannot go on elsewhere");
                self.set_stored(answered);
            }
        }
    }

    /// Responses to requests up to `answered` may be sent.
    fn set_stored(&self, answered: u64) {
        let mut state = self.state.lock();
        if let Some(stored) = &mut state.stored {
            stored.answered = Some(answered);
        }
        state.wake_unstored();
    }

    /// Makes this gateway the owner of the session.
    async fn claim(&self) -> Result<(), Failure> {
        if self.clients.hub.shares_sessions() {
            self.clients.hub.claim(&session_name(self.sid)).await?;
        }
        Ok(())
    }

    /// Answers the request that waits, and lets the client go on elsewhere. What happens at this gateway afterwards changes nothing.
    pub(super) async fn leave(self: &Arc<Self>) {
        let (told, is_left) = oneshot::channel();
        {
            let mut state = self.state.lock();
            let Some(stored) = state.stored.as_mut().filter(|stored| !stored.has_moved) else { return };
            stored.leaving = Some(told);
            self.start_work(&mut state);
        }
        if timeout(LEAVE_TIMEOUT, is_left).await.is_err() {
            settle(&mut self.state.lock());
        }
    }

    async fn leave_stored(&self, told: oneshot::Sender<()>) {
        let has_ended = {
            let mut state = self.state.lock();
            let has_ended = state.end.is_some();
            if !has_ended {
                let newest = state.window.taken();
                self.release(&mut state, newest);
            }
            if let Some(stored) = &mut state.stored {
                stored.has_moved = true;
            }
            has_ended
        };
        if !has_ended {
            self.store().await;
        }
        settle(&mut self.state.lock());
        let _gives_up = told.send(());
    }
}

/// Nothing changes a session any more that goes on elsewhere.
fn settle(state: &mut SessionState) {
    if let Some(stored) = &mut state.stored {
        (stored.has_moved, stored.is_settled) = (true, true);
    }
    state.wake_unstored();
}
