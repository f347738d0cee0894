//! [`Sessions`]: the table of all sessions, of connected and of disconnected clients.
//!
//! A connection owns its session while it lasts. A new connection of the same client signals the older one
//! and waits until that has put the session back, so a session always has exactly one owner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::codec::Will;
use super::session::Session;
use super::shares::{Accounts, SessionCharge, Share};
use crate::auth::{CredentialRecord, Grants};
use crate::budget::Budget;
use crate::hub::Signal;
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

/// Counts one connection in [`SessionSlot::connections`] until it is dropped.
#[derive(Debug)]
struct Claim(Arc<SessionSlot>);

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
    sessions: Arc<Sessions>,
    client: Arc<str>,
    slot: Arc<SessionSlot>,
    kept: OwnedMutexGuard<SlotState>,
    number: u64,
    principal: Principal,
    /// `None` once the session is detached.
    charge: Option<SessionCharge>,
    /// `None` if no connection has the session.
    _claim: Option<Claim>,
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
        Self { slots: DashMap::new(), agenda: Mutex::default(), accounts, metrics }
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
            let claim = Some(Claim::new(&slot));
            let mut number = 0;
            slot.newest.update(|newest| {
                *newest += 1;
                number = *newest;
            });
            let kept = slot.kept.clone().lock_owned().await;
            if matches!(*kept, SlotState::Removed) {
                continue;
            }
            let (sessions, client, charge) =
                (self.clone(), client.clone(), Some(self.accounts.open(tenant_of(client), principal)));
            let mut attached =
                Attached { sessions, client, slot, kept, number, principal, charge, _claim: claim };
            if attached.superseded().now_or_never().is_some() {
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
                let (sessions, client, principal) = (self.clone(), client.clone(), charge.principal());
                let (number, charge) = (0, Some(charge));
                let attached =
                    Attached { sessions, client, slot, kept, number, principal, charge, _claim: None };
                Some((attached, *away))
            }
            other => {
                *kept = other;
                None
            }
        }
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
    fn new(slot: &Arc<SessionSlot>) -> Self {
        slot.connections.fetch_add(1, Ordering::Relaxed);
        Self(slot.clone())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Attached {
    /// Waits until a newer connection wants the session. Cancel safe.
    pub(super) async fn superseded(&self) {
        self.slot.newest.wait_until(|newest| (*newest != self.number).then_some(())).await;
    }

    /// Returns the principal that the session is charged to.
    pub(super) fn principal(&self) -> Principal {
        self.principal
    }

    /// Returns the client id.
    pub(super) fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// Sets the size of the session in bytes. Returns whether the sessions of its principal are within their
    /// share.
    pub(super) fn charge(&mut self, bytes: usize) -> bool {
        self.charge.as_mut().is_none_or(|charge| charge.set_bytes(bytes))
    }

    /// Keeps the session until it expires or is taken.
    pub(super) fn detach(mut self, away: Away) {
        let Some(mut charge) = self.charge.take() else { return };
        let at = away.will.as_ref().map_or(away.until, |delayed| away.until.min(delayed.at));
        let due = self.sessions.agenda.lock().add(at, self.client.clone());
        let will_bytes = away.will.as_ref().map_or(0, |delayed| delayed.will.bytes());
        charge.set_bytes(away.session.bytes() + will_bytes);
        charge.leave(&self.client);
        *self.kept = SlotState::Session(Box::new(away), due, charge);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if matches!(*self.kept, SlotState::Nothing) {
            *self.kept = SlotState::Removed;
            self.sessions.remove(&self.client, &self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::clock::in_time;
    use crate::metrics::Metrics;
    use crate::mqtt::codec::MessageProperties;
    use crate::stream::QoS;

    const HOUR: Duration = Duration::from_secs(3600);

    fn sessions() -> Arc<Sessions> {
        let share = Share { sessions_max: 9, bytes_max: 1 << 20 };
        Arc::new(Sessions::new(share, Budget::unlimited(), Metrics::new().mqtt().clone()))
    }

    async fn attach(sessions: &Arc<Sessions>, client: &str) -> SessionFound {
        in_time("the session is free", sessions.attach(&client.into(), Principal::GATEWAY)).await.unwrap()
    }

    fn away(until: Instant, will: Option<DelayedWill>) -> Away {
        Away { session: Session::new("a".into(), true), until, will }
    }

    #[tokio::test]
    async fn a_session_is_found_again_until_it_expires() {
        let sessions = sessions();
        let now = Instant::now();
        let found = attach(&sessions, "a").await;
        assert!(found.away.is_none());
        found.attached.detach(away(now + HOUR, None));
        assert!(sessions.take_due(now).is_none());
        let found = attach(&sessions, "a").await;
        assert!(found.away.is_some());
        found.attached.detach(away(now + HOUR, None));
        let (attached, due) = sessions.take_due(now + HOUR).unwrap();
        assert!(due.until == now + HOUR && sessions.take_due(now + HOUR).is_none());
        drop(attached);
        assert_eq!((sessions.len(), sessions.agenda.lock().due.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_will_is_due_at_its_time_and_the_session_stays() {
        let sessions = sessions();
        let now = Instant::now();
        let will = Will {
            topic: "gone".into(),
            payload: Bytes::new(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: MessageProperties::default(),
            delay: HOUR,
        };
        let rights = WillRights::Stored(None);
        attach(&sessions, "a")
            .await
            .attached
            .detach(away(now + 2 * HOUR, Some(DelayedWill { will, at: now + HOUR, rights })));
        assert!(sessions.take_due(now).is_none());
        let (attached, due) = sessions.take_due(now + HOUR).unwrap();
        assert!(due.will.is_some());
        attached.detach(Away { will: None, ..due });
        assert!(sessions.take_due(now + HOUR).is_none());
        assert!(sessions.take_due(now + 2 * HOUR).is_some());
    }

    #[tokio::test]
    async fn an_adopted_session_waits_for_its_client() {
        let sessions = sessions();
        sessions.adopt(away(Instant::now() + HOUR, None));
        assert_eq!(sessions.len(), 1);
        assert!(attach(&sessions, "a").await.away.is_some());
    }

    #[tokio::test]
    async fn the_newest_of_many_connections_gets_the_session() {
        let sessions = sessions();
        let first = attach(&sessions, "a").await;
        let others: Vec<_> = (0..3)
            .map(|_| {
                let sessions = sessions.clone();
                tokio::spawn(async move { sessions.attach(&"a".into(), Principal::GATEWAY).await })
            })
            .collect();
        // The first connection and each of the others count one.
        let all_came = first.attached.slot.newest.wait_until(|newest| (*newest == 4).then_some(()));
        in_time("all connections have come", all_came).await;
        first.attached.detach(away(Instant::now() + HOUR, None));
        let mut winners = 0;
        for other in others {
            if let Some(found) = in_time("a connection is told", other).await.unwrap() {
                assert!(found.away.is_some());
                winners += 1;
            }
        }
        assert_eq!(winners, 1);
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_a_session_counts_and_a_sweep_does_not() {
        let sessions = sessions();
        let first = attach(&sessions, "a").await;
        let waiting = {
            let sessions = sessions.clone();
            tokio::spawn(async move { sessions.attach(&"a".into(), Principal::GATEWAY).await })
        };
        in_time("the other one waits", first.attached.superseded()).await;
        first.attached.detach(away(Instant::now(), None));
        assert!(sessions.is_attached("a"), "no connection has the session, and one waits for it");
        let second = in_time("the session is free", waiting).await.unwrap().unwrap();
        second.attached.detach(away(Instant::now(), None));
        assert!(!sessions.is_attached("a"));
        let swept = sessions.take_due(Instant::now()).unwrap();
        assert!(!sessions.is_attached("a"), "the sweep is no connection");
        drop(swept);
    }

    #[tokio::test]
    async fn an_ended_session_leaves_no_entry() {
        let sessions = sessions();
        let found = attach(&sessions, "a").await;
        drop(found.attached);
        assert_eq!(sessions.len(), 0);
        assert!(attach(&sessions, "a").await.away.is_none());
    }
}
