//! [`Sessions`]: the table of all sessions, of connected and of disconnected clients.
//!
//! A connection owns its session while it lasts. A new connection of the same client signals the older one
//! and waits until that has put the session back, so a session always has exactly one owner.

mod slot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use dashmap::DashMap;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) use slot::{Away, DelayedWill, WillRights};

use slot::{Due, HoldError, KeptSession, SessionSlot, SlotKey, SlotState};

use super::shares::{Accounts, SessionCharge, Share};
use crate::budget::Budget;
use crate::metrics::MqttMetrics;
use crate::stream::{Principal, Tenant};

/// Separates the subject of a token from the client id that the client has chosen. A client id contains no control characters, so
/// the last separator of a key ends its subject.
const SEPARATOR: char = '\u{1f}';

/// The table of all sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: DashMap<SlotKey, ()>,
    agenda: Mutex<Agenda>,
    /// Notified when something is added to the agenda.
    scheduled: Notify,
    accounts: Arc<Accounts>,
    metrics: MqttMetrics,
}

/// Times at which slots have to be checked: a will is due or the session expires.
#[derive(Debug, Default)]
struct Agenda {
    due: BTreeMap<Due, Arc<str>>,
    next: u64,
}

/// Keeps the slot of a client in the table until it is dropped. The last one to be dropped removes a slot without a session.
#[derive(Debug)]
struct Claim {
    sessions: Arc<Sessions>,
    slot: Arc<SessionSlot>,
    /// See [`SlotState::newest`].
    number: u32,
    /// Whether it counts in [`SlotState::connections`].
    is_connection: bool,
    /// Whether it has the session.
    holds: bool,
}

/// Exclusive access to the session of a client. Dropping it without `detach` ends the session.
#[derive(Debug)]
pub(super) struct Attached {
    claim: Claim,
    charge: SessionCharge,
}

/// The result of [`Sessions::attach`].
#[derive(Debug)]
pub(super) struct SessionFound {
    pub(super) attached: Attached,
    /// The kept session, if there was one.
    pub(super) away: Option<Away>,
}

/// The key of a client's session: a client id belongs to the subject of the token, so that no other client can take the session over
/// by its id.
pub(super) fn session_key(subject: Option<&str>, client_id: &str) -> Arc<str> {
    match subject {
        Some(subject) => format!("{subject}{SEPARATOR}{client_id}").into(),
        None => client_id.into(),
    }
}

/// The tenant of the client with a session, by its key. A key without a subject is what the client typed.
pub(super) fn tenant_of(session_key: &str) -> Tenant {
    if session_key.contains(SEPARATOR) { Tenant::of(session_key) } else { Tenant::default() }
}

impl Sessions {
    pub(super) fn new(share: Share, budget: Arc<Budget>, metrics: MqttMetrics) -> Self {
        let accounts = Accounts::new(share, budget);
        let (slots, agenda, scheduled) = Default::default();
        Self { slots, agenda, scheduled, accounts, metrics }
    }

    /// Takes the session of `client` from its owner, and charges it to `principal` from now on. `None`: an
    /// even newer connection wants it.
    ///
    /// Cancel safe: dropping the future leaves the session where it is. A waker that is left of it wakes its task once without need.
    pub(super) async fn attach(
        self: &Arc<Self>,
        client: &Arc<str>,
        principal: Principal,
    ) -> Option<SessionFound> {
        loop {
            let mut claim = Claim::of_connection(self, client);
            match poll_fn(|context| claim.poll_hold(context)).await {
                Ok(kept) => {
                    let charge = self.accounts.open(tenant_of(client), principal);
                    let away = kept.map(|kept| {
                        self.agenda.lock().due.remove(&kept.due);
                        kept.away
                    });
                    return Some(SessionFound { attached: Attached { claim, charge }, away });
                }
                Err(HoldError::Removed) => {}
                Err(HoldError::Superseded) => return None,
            }
        }
    }

    fn slot(&self, client: &Arc<str>) -> Arc<SessionSlot> {
        if let Some(slot) = self.find(client) {
            return slot;
        }
        let new = SlotKey(Arc::new(SessionSlot {
            client: client.clone(),
            state: Mutex::new(SlotState::default()),
        }));
        let count = || {
            self.metrics.sessions.inc();
        };
        self.slots.entry(new).or_insert_with(count).key().0.clone()
    }

    fn find(&self, client: &str) -> Option<Arc<SessionSlot>> {
        self.slots.get(client).map(|slot| slot.key().0.clone())
    }

    fn remove(&self, slot: &Arc<SessionSlot>) {
        if self.slots.remove_if(&*slot.client, |key, ()| Arc::ptr_eq(&key.0, slot)).is_some() {
            self.metrics.sessions.dec();
        }
    }

    /// Wakes all connections that have a session.
    pub(super) fn wake_holders(&self) {
        self.slots.iter().for_each(|slot| slot.key().0.state.lock().wake_holder());
    }

    /// Waits until there is a session that expires some time, or whose will is due. Cancel safe.
    pub(super) async fn until_scheduled(&self) {
        while self.agenda.lock().due.is_empty() {
            self.scheduled.notified().await;
        }
    }

    /// Takes a session that has expired by `now`, or whose will is due.
    pub(super) fn take_due(self: &Arc<Self>, now: Instant) -> Option<(Attached, Away)> {
        let next = || self.agenda.lock().take(now);
        while let Some((due, client)) = next() {
            // A holder of the slot has removed its entry from the agenda, or is about to.
            if let Some(taken) = self.take(&client, |its_due| its_due == due) {
                return Some(taken);
            }
        }
        None
    }

    /// Takes the session that has been disconnected longest if `principal` has more than its share, or
    /// exactly its share and wants `another`.
    pub(super) fn take_excess(
        self: &Arc<Self>,
        principal: Principal,
        another: bool,
    ) -> Option<(Attached, Away)> {
        if self.has_room(principal, another) {
            return None;
        }
        self.accounts.oldest_of(principal).and_then(|client| self.evict(&client))
    }

    /// Takes the session that has been disconnected longest, of the principal with the most disconnected
    /// sessions.
    pub(super) fn take_oldest(self: &Arc<Self>) -> Option<(Attached, Away)> {
        self.accounts.oldest_of_most().and_then(|client| self.evict(&client))
    }

    fn evict(self: &Arc<Self>, client: &Arc<str>) -> Option<(Attached, Away)> {
        let taken = self.take(client, |due| {
            self.agenda.lock().due.remove(&due);
            true
        })?;
        self.metrics.sessions_discarded.inc();
        Some(taken)
    }

    /// Takes the session of a disconnected client if `wanted` returns true, unless another task is taking it.
    fn take(
        self: &Arc<Self>,
        client: &Arc<str>,
        wanted: impl FnOnce(Due) -> bool,
    ) -> Option<(Attached, Away)> {
        let slot = self.find(client)?;
        let mut state = slot.state.lock();
        if state.is_held {
            return None;
        }
        let kept = state.kept.take_if(|kept| wanted(kept.due))?;
        state.is_held = true;
        drop(state);
        let KeptSession { away, charge, .. } = *kept;
        Some((Attached { claim: Claim::holding(self, slot), charge }, away))
    }

    /// Ends the connection that has the session of a client. Returns whether there is one.
    pub(super) fn supersede(&self, client: &str) -> bool {
        let Some(slot) = self.find(client) else { return false };
        let mut state = slot.state.lock();
        let has_connection = state.connections > 0;
        let told = if has_connection { state.supersede() } else { None };
        drop(state);
        told.into_iter().for_each(Waker::wake);
        has_connection
    }

    /// Takes the slot of a client that no connection has, whose session is in the store alone.
    pub(super) fn attach_vacant(self: &Arc<Self>, client: &Arc<str>) -> Option<Attached> {
        let slot = self.slot(client);
        {
            let mut state = slot.state.lock();
            let is_vacant = !state.is_held && state.kept.is_none() && state.connections == 0;
            if !is_vacant || state.is_removed {
                return None;
            }
            state.is_held = true;
        }
        let charge = self.accounts.open(tenant_of(client), Principal::GATEWAY);
        Some(Attached { claim: Claim::holding(self, slot), charge })
    }

    /// Inserts a session loaded from the store, whose client has not connected yet.
    pub(super) fn adopt(self: &Arc<Self>, away: Away) {
        let client = away.session.client.clone();
        if let Some(Some(found)) = self.attach(&client, Principal::GATEWAY).now_or_never() {
            found.attached.detach(away);
        }
    }

    /// Whether `principal` is within its share, with room for `another` session if that is set.
    pub(super) fn has_room(&self, principal: Principal, another: bool) -> bool {
        self.accounts.has_room(principal, another)
    }

    /// Whether a client has a session.
    pub(super) fn knows(&self, client: &str) -> bool {
        self.slots.contains_key(client)
    }

    /// Whether a connection has the session of a client or waits for it.
    pub(super) fn is_attached(&self, client: &str) -> bool {
        self.find(client).is_some_and(|slot| slot.state.lock().connections > 0)
    }

    /// Returns the number of sessions, of connected and disconnected clients.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

impl Agenda {
    fn add(&mut self, at: Instant, client: Arc<str>) -> Due {
        self.next += 1;
        let due = (at, self.next);
        self.due.insert(due, client);
        due
    }

    fn take(&mut self, now: Instant) -> Option<(Due, Arc<str>)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove_entry())
    }
}

impl Claim {
    /// The newest connection of a client, which does not have its session yet.
    fn of_connection(sessions: &Arc<Sessions>, client: &Arc<str>) -> Self {
        let slot = sessions.slot(client);
        let mut state = slot.state.lock();
        let told = state.supersede();
        state.connections += 1;
        let number = state.newest;
        drop(state);
        told.into_iter().for_each(Waker::wake);
        Self { sessions: sessions.clone(), slot, number, is_connection: true, holds: false }
    }

    /// Has the session, and is no connection.
    fn holding(sessions: &Arc<Sessions>, slot: Arc<SessionSlot>) -> Self {
        Self { sessions: sessions.clone(), slot, number: 0, is_connection: false, holds: true }
    }

    /// Waits until nobody has the session, and takes it.
    fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Box<KeptSession>>, HoldError>> {
        let held = ready!(self.slot.state.lock().poll_hold(context, self.number));
        self.holds = held.is_ok();
        Poll::Ready(held)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.slot.state.lock();
        state.connections -= u32::from(self.is_connection);
        let told = if self.holds { state.release() } else { None };
        // A connection that waits begins the next session in the same slot, so that the client counts as attached meanwhile.
        let is_unused = state.connections == 0 && !state.is_held && state.kept.is_none();
        let is_removed = is_unused && !std::mem::replace(&mut state.is_removed, true);
        drop(state);
        told.into_iter().for_each(Waker::wake);
        if is_removed {
            self.sessions.remove(&self.slot);
        }
    }
}

impl Attached {
    /// Completes when a newer connection wants the session.
    pub(super) fn poll_superseded(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.claim.slot.state.lock();
        if state.newest != self.claim.number {
            return Poll::Ready(());
        }
        match &mut state.holder {
            Some(waker) => waker.clone_from(context.waker()),
            holder => *holder = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Returns the principal that the session is charged to.
    pub(super) fn principal(&self) -> Principal {
        self.charge.principal()
    }

    /// Returns the client id.
    pub(super) fn client(&self) -> &Arc<str> {
        &self.claim.slot.client
    }

    /// Sets the size of the session in bytes. Returns whether the sessions of its principal are within their
    /// share.
    pub(super) fn charge(&mut self, bytes: usize) -> bool {
        self.charge.set_bytes(bytes)
    }

    /// Keeps the session until it expires or is taken.
    pub(super) fn detach(self, away: Away) {
        let Self { mut claim, mut charge } = self;
        let will_bytes = away.will.as_ref().map_or(0, |delayed| delayed.will.bytes());
        charge.set_bytes(away.session.bytes() + will_bytes);
        charge.leave(&claim.slot.client);
        let told = {
            let mut state = claim.slot.state.lock();
            // Under the lock, so that the session is there when it is due.
            let due = claim.sessions.agenda.lock().add(away.due(), claim.slot.client.clone());
            state.kept = Some(Box::new(KeptSession { away, due, charge }));
            state.release()
        };
        claim.holds = false;
        told.into_iter().for_each(Waker::wake);
        claim.sessions.scheduled.notify_one();
    }
}
