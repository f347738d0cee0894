//! The sessions of all clients: who has one at the moment, and what is kept of those who are away.
//!
//! A connection owns its session. One that comes for the same client says so and waits until the older one has put
//! the session down, so there is never a moment with two of them or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use dashmap::DashMap;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::codec::Will;
use super::session::Session;
use super::shares::{Accounts, SessionCharge, Share};
use crate::budget::Budget;
use crate::hub::Signal;
use crate::metrics::MqttMetrics;
use crate::stream::Principal;

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: DashMap<Arc<str>, Arc<SessionSlot>>,
    agenda: Mutex<Agenda>,
    accounts: Arc<Accounts>,
    metrics: MqttMetrics,
}

/// When to look at which slot again.
#[derive(Debug, Default)]
struct Agenda {
    due: BTreeMap<Due, Arc<str>>,
    next: u64,
}

/// A moment, and a number that makes it unique.
type Due = (Instant, u64);

/// Where the session of one client is, if no connection has it.
#[derive(Debug)]
struct SessionSlot {
    kept: Arc<tokio::sync::Mutex<SlotState>>,
    /// The newest connection that wants it.
    newest: Signal<u64>,
}

#[derive(Debug)]
enum SlotState {
    /// There is none yet, or a connection has it.
    Nothing,
    Session(Box<Away>, Due, SessionCharge),
    /// The slot is not in the table any more.
    Removed,
}

/// The session of a client that is away.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) session: Session,
    pub(super) until: Instant,
    /// What is published for the client, and when.
    pub(super) will: Option<(Will, Instant)>,
}

/// A hold on the session of a client. Dropped without `detach`, the session is over.
#[derive(Debug)]
pub(super) struct Attached {
    sessions: Arc<Sessions>,
    client: Arc<str>,
    slot: Arc<SessionSlot>,
    kept: OwnedMutexGuard<SlotState>,
    number: u64,
    principal: Principal,
    /// `None` once the session is kept.
    charge: Option<SessionCharge>,
}

/// What a connection finds of its client.
#[derive(Debug)]
pub(super) struct SessionFound {
    pub(super) attached: Attached,
    /// What was kept of it.
    pub(super) away: Option<Away>,
}

impl Sessions {
    pub(super) fn new(share: Share, budget: Arc<Budget>, metrics: MqttMetrics) -> Self {
        let accounts = Accounts::new(share, budget);
        Self { slots: DashMap::new(), agenda: Mutex::default(), accounts, metrics }
    }

    /// Takes the session of `client` from whoever has it, on the account of `principal` from now on. `None`: a still newer
    /// connection wants it.
    ///
    /// Cancel safe: whoever gives up waiting leaves the session where it is.
    pub(super) async fn attach(
        self: &Arc<Self>,
        client: &Arc<str>,
        principal: Principal,
    ) -> Option<SessionFound> {
        loop {
            let slot = self.slot(client);
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
                (self.clone(), client.clone(), Some(self.accounts.open(principal)));
            let mut attached = Attached { sessions, client, slot, kept, number, principal, charge };
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

    /// Takes a session whose time is over by `now`, or that has a will whose moment has come.
    pub(super) fn take_due(self: &Arc<Self>, now: Instant) -> Option<(Attached, Away)> {
        let next = || self.agenda.lock().take(now);
        while let Some((due, client)) = next() {
            // Whoever holds the slot has taken the session's entry out of the agenda, or is about to.
            if let Some(taken) = self.take(&client, |its_due| its_due == due) {
                return Some(taken);
            }
        }
        None
    }

    /// Takes a session that was left behind if `principal` has more than its share, or exactly that and wants `another`.
    pub(super) fn take_excess(
        self: &Arc<Self>,
        principal: Principal,
        another: bool,
    ) -> Option<(Attached, Away)> {
        if self.has_room(principal, another) {
            return None;
        }
        self.accounts.oldest_of(principal).and_then(|client| self.give_way(&client))
    }

    /// Takes the session that was left behind first, by the address that left the most.
    pub(super) fn take_oldest(self: &Arc<Self>) -> Option<(Attached, Away)> {
        self.accounts.oldest_of_most().and_then(|client| self.give_way(&client))
    }

    fn give_way(self: &Arc<Self>, client: &Arc<str>) -> Option<(Attached, Away)> {
        let taken = self.take(client, |due| {
            self.agenda.lock().due.remove(&due);
            true
        })?;
        self.metrics.sessions_discarded.inc();
        Some(taken)
    }

    /// Takes the session of a client that is away if it is `wanted`, unless somebody else is about to.
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
                Some((Attached { sessions, client, slot, kept, number, principal, charge }, *away))
            }
            other => {
                *kept = other;
                None
            }
        }
    }

    /// Takes over the session of a client that has not come yet.
    pub(super) fn adopt(self: &Arc<Self>, away: Away) {
        let client = away.session.client.clone();
        if let Some(Some(found)) = self.attach(&client, Principal::GATEWAY).now_or_never() {
            found.attached.detach(away);
        }
    }

    /// Whether `principal` has no more than its share, and room for `another` session if it wants one.
    pub(super) fn has_room(&self, principal: Principal, another: bool) -> bool {
        self.accounts.has_room(principal, another)
    }

    /// Whether a client has a session.
    pub(super) fn knows(&self, client: &str) -> bool {
        self.slots.contains_key(client)
    }

    /// Whether a connection has the session of a client at the moment.
    pub(super) fn is_attached(&self, client: &str) -> bool {
        self.slots.get(client).is_some_and(|slot| slot.kept.try_lock().is_err())
    }

    /// How many clients have a session, here or away.
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
        Self { kept: Arc::new(tokio::sync::Mutex::new(SlotState::Nothing)), newest: Signal::new(0) }
    }
}

impl Attached {
    /// Waits until a newer connection wants the session. Cancel safe.
    pub(super) async fn superseded(&self) {
        self.slot.newest.wait_until(|newest| (*newest != self.number).then_some(())).await;
    }

    /// Whose session it is.
    pub(super) fn principal(&self) -> Principal {
        self.principal
    }

    /// The client.
    pub(super) fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// The session takes so many bytes. Whether those of its principal take no more than they may.
    pub(super) fn charge(&mut self, bytes: usize) -> bool {
        self.charge.as_mut().is_none_or(|charge| charge.set_bytes(bytes))
    }

    /// Keeps the session until its time is over or somebody takes it.
    pub(super) fn detach(mut self, away: Away) {
        let Some(mut charge) = self.charge.take() else { return };
        let at = away.will.as_ref().map_or(away.until, |(_, at)| away.until.min(*at));
        let due = self.sessions.agenda.lock().add(at, self.client.clone());
        let will_bytes = away.will.as_ref().map_or(0, |(will, _)| will.bytes());
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

    fn away(until: Instant, will: Option<(Will, Instant)>) -> Away {
        Away { session: Session::new("a".into(), true), until, will }
    }

    #[tokio::test]
    async fn a_session_is_found_again_until_its_time_is_over() {
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
    async fn a_will_comes_at_its_moment_and_the_session_stays() {
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
        attach(&sessions, "a").await.attached.detach(away(now + 2 * HOUR, Some((will, now + HOUR))));
        assert!(sessions.take_due(now).is_none());
        let (attached, due) = sessions.take_due(now + HOUR).unwrap();
        assert!(due.will.is_some());
        attached.detach(Away { will: None, ..due });
        assert!(sessions.take_due(now + HOUR).is_none());
        assert!(sessions.take_due(now + 2 * HOUR).is_some());
    }

    #[tokio::test]
    async fn what_is_adopted_waits_for_its_client() {
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
        // The first and each of the others counts one.
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
    async fn an_ended_session_leaves_nothing_behind() {
        let sessions = sessions();
        let found = attach(&sessions, "a").await;
        drop(found.attached);
        assert_eq!(sessions.len(), 0);
        assert!(attach(&sessions, "a").await.away.is_none());
    }
}
