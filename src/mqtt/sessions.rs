//! [`Sessions`]: the table of all sessions, of connected and of disconnected clients.
//!
//! A connection owns its session while it lasts. A new connection of the same client signals the older one
//! and waits until that has put the session back, so a session always has exactly one owner.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use dashmap::DashMap;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

use super::codec::Will;
use super::session::Session;
use super::shares::{Accounts, SessionCharge, Share};
use crate::auth::{CredentialRecord, Grants};
use crate::budget::Budget;
use crate::hub::{Signal, Waiter};
use crate::metrics::MqttMetrics;
use crate::stream::{Principal, Tenant};

/// Separates the subject of a token from the client id that the client has chosen. A client id contains no control characters, so
/// the last separator of a key ends its subject.
const SEPARATOR: char = '\u{1f}';

/// The table of all sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: DashMap<Arc<str>, Arc<SessionSlot>>,
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

/// A time, and a number that makes it unique.
type Due = (Instant, u64);

/// The slot of one client. It holds the session while no connection has it.
#[derive(Debug)]
struct SessionSlot {
    kept: Arc<tokio::sync::Mutex<SlotState>>,
    /// Number of the newest connection that wants the session.
    newest: Signal<u64>,
    /// Number of connections that have the session or wait for it.
    connections: AtomicUsize,
}

/// Keeps the slot of a client in the table until it is dropped. The last one to be dropped removes a slot without a session.
#[derive(Debug)]
struct Claim {
    sessions: Arc<Sessions>,
    client: Arc<str>,
    slot: Arc<SessionSlot>,
    /// Whether it counts in [`SessionSlot::connections`].
    is_connection: bool,
    /// Waits for a newer connection.
    waiter: Waiter,
}

#[derive(Debug)]
enum SlotState {
    /// There is no session yet, or a connection has it.
    Nothing,
    Session(Box<Away>, Due, SessionCharge),
    /// The slot has been removed from the table.
    Removed,
}

/// The session of a disconnected client.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) session: Session,
    /// When the session expires.
    pub(super) until: Instant,
    pub(super) will: Option<DelayedWill>,
}

impl Away {
    /// When the session has to be looked at: it expires, or its will is to be published.
    pub(super) fn due(&self) -> Instant {
        self.will.as_ref().map_or(self.until, |delayed| self.until.min(delayed.at))
    }
}

/// The will of a disconnected client.
#[derive(Debug)]
pub(super) struct DelayedWill {
    pub(super) will: Will,
    /// When it is published.
    pub(super) at: Instant,
    pub(super) rights: WillRights,
}

/// What a will is published by.
#[derive(Debug)]
pub(super) enum WillRights {
    /// The rights that the client had when it left.
    Held(Arc<Grants>),
    /// The session was loaded from the store, with the credentials that the client had, if it had any.
    Stored(Option<CredentialRecord>),
}

/// Exclusive access to the session of a client. Dropping it without `detach` ends the session.
#[derive(Debug)]
pub(super) struct Attached {
    kept: OwnedMutexGuard<SlotState>,
    /// Dropped after `kept`, whose lock it tries.
    claim: Claim,
    number: u64,
    principal: Principal,
    /// `None` once the session is detached.
    charge: Option<SessionCharge>,
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
    /// Cancel safe: dropping the future leaves the session where it is.
    pub(super) async fn attach(
        self: &Arc<Self>,
        client: &Arc<str>,
        principal: Principal,
    ) -> Option<SessionFound> {
        loop {
            let slot = self.slot(client);
            let claim = Claim::of_connection(self, client, &slot);
            let mut number = 0;
            slot.newest.update(|newest| {
                *newest += 1;
                number = *newest;
            });
            let kept = slot.kept.clone().lock_owned().await;
            if matches!(*kept, SlotState::Removed) {
                continue;
            }
            let charge = Some(self.accounts.open(tenant_of(client), principal));
            let mut attached = Attached { kept, claim, number, principal, charge };
            if attached.is_superseded() {
                return None;
            }
            return Some(match std::mem::replace(&mut *attached.kept, SlotState::Nothing) {
                SlotState::Session(away, due, _charge) => {
                    self.agenda.lock().due.remove(&due);
                    SessionFound { attached, away: Some(*away) }
                }
                SlotState::Nothing | SlotState::Removed => SessionFound { attached, away: None },
            });
        }
    }

    fn slot(&self, client: &Arc<str>) -> Arc<SessionSlot> {
        let new = || {
            self.metrics.sessions.inc();
            Arc::new(SessionSlot::new())
        };
        self.slots.entry(client.clone()).or_insert_with(new).clone()
    }

    fn remove(&self, client: &Arc<str>, slot: &Arc<SessionSlot>) {
        if self.slots.remove_if(client, |_, other| Arc::ptr_eq(other, slot)).is_some() {
            self.metrics.sessions.dec();
        }
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
        let slot = self.slots.get(client).map(|slot| slot.value().clone())?;
        let mut kept = slot.kept.clone().try_lock_owned().ok()?;
        match std::mem::replace(&mut *kept, SlotState::Nothing) {
            SlotState::Session(away, due, charge) if wanted(due) => {
                let claim = Claim {
                    sessions: self.clone(),
                    client: client.clone(),
                    slot,
                    is_connection: false,
                    waiter: Waiter::default(),
                };
                let principal = charge.principal();
                Some((Attached { kept, claim, number: 0, principal, charge: Some(charge) }, *away))
            }
            other => {
                *kept = other;
                None
            }
        }
    }

    /// Ends the connection that has the session of a client. Returns whether there is one.
    pub(super) fn supersede(&self, client: &str) -> bool {
        let slot = self.slots.get(client).map(|slot| slot.value().clone());
        let slot = slot.filter(|slot| slot.connections.load(Ordering::SeqCst) > 0);
        slot.map(|slot| slot.newest.update(|newest| *newest += 1)).is_some()
    }

    /// Takes the slot of a client that no connection has, whose session is in the store alone.
    pub(super) fn attach_vacant(self: &Arc<Self>, client: &Arc<str>) -> Option<Attached> {
        let slot = self.slot(client);
        let claim = Claim {
            sessions: self.clone(),
            client: client.clone(),
            slot,
            is_connection: false,
            waiter: Waiter::default(),
        };
        let kept = claim.slot.kept.clone().try_lock_owned().ok()?;
        let is_vacant =
            matches!(*kept, SlotState::Nothing) && claim.slot.connections.load(Ordering::SeqCst) == 0;
        let charge = Some(self.accounts.open(tenant_of(client), Principal::GATEWAY));
        is_vacant.then_some(Attached { kept, claim, number: 0, principal: Principal::GATEWAY, charge })
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
        self.slots.get(client).is_some_and(|slot| slot.connections.load(Ordering::Relaxed) > 0)
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

impl SessionSlot {
    fn new() -> Self {
        Self {
            kept: Arc::new(tokio::sync::Mutex::new(SlotState::Nothing)),
            newest: Signal::new(0),
            connections: AtomicUsize::new(0),
        }
    }
}

impl Claim {
    fn of_connection(sessions: &Arc<Sessions>, client: &Arc<str>, slot: &Arc<SessionSlot>) -> Self {
        slot.connections.fetch_add(1, Ordering::SeqCst);
        let (sessions, client, slot) = (sessions.clone(), client.clone(), slot.clone());
        Self { sessions, client, slot, is_connection: true, waiter: Waiter::default() }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.slot.newest.forget(&mut self.waiter);
        let connections = &self.slot.connections;
        if self.is_connection {
            connections.fetch_sub(1, Ordering::SeqCst);
        }
        // A connection that waits begins the next session in the same slot, so that the client counts as attached meanwhile.
        if connections.load(Ordering::SeqCst) == 0
            && let Ok(mut kept) = self.slot.kept.try_lock()
            && matches!(*kept, SlotState::Nothing)
        {
            *kept = SlotState::Removed;
            self.sessions.remove(&self.client, &self.slot);
        }
    }
}

impl Attached {
    /// Whether a newer connection wants the session.
    fn is_superseded(&self) -> bool {
        self.claim.slot.newest.note(|newest| *newest != self.number)
    }

    /// Completes when a newer connection wants the session.
    pub(super) fn poll_superseded(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Claim { slot, waiter, .. } = &mut self.claim;
        slot.newest.poll_until(waiter, context, |newest| (*newest != self.number).then_some(()))
    }

    /// Returns the principal that the session is charged to.
    pub(super) fn principal(&self) -> Principal {
        self.principal
    }

    /// Returns the client id.
    pub(super) fn client(&self) -> &Arc<str> {
        &self.claim.client
    }

    /// Sets the size of the session in bytes. Returns whether the sessions of its principal are within their
    /// share.
    pub(super) fn charge(&mut self, bytes: usize) -> bool {
        self.charge.as_mut().is_none_or(|charge| charge.set_bytes(bytes))
    }

    /// Keeps the session until it expires or is taken.
    pub(super) fn detach(mut self, away: Away) {
        let Some(mut charge) = self.charge.take() else { return };
        let due = self.claim.sessions.agenda.lock().add(away.due(), self.claim.client.clone());
        self.claim.sessions.scheduled.notify_one();
        let will_bytes = away.will.as_ref().map_or(0, |delayed| delayed.will.bytes());
        charge.set_bytes(away.session.bytes() + will_bytes);
        charge.leave(&self.claim.client);
        *self.kept = SlotState::Session(Box::new(away), due, charge);
    }
}
