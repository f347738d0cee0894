//! Moves sessions between connections, the table of [`Sessions`](super::sessions::Sessions) and the store:
//! loaded at the start, resumed and suspended with connections, ended when they expire.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use tokio::task::consume_budget;
use tokio::time::Instant;

use super::codec::{Connect, Reason, Will};
use super::groups::Group;
use super::groups::stored::GROUP_SESSIONS;
use super::session::{Presence, RestoredSession, Session};
use super::sessions::{Attached, Away, DelayedWill, SessionFound, WillRights};
use super::{Broker, SWEEP_INTERVAL};
use crate::auth::{CredentialRecord, Grants};
use crate::hub::SessionWalk;
use crate::stream::{Failure, Principal, SessionChange, SessionNames, StoredSession};

/// Number of due wills and sessions handled concurrently; each waits for the store.
const DUE_AT_ONCE: usize = 64;

/// Settings of a connection that client and gateway have agreed on.
#[derive(Debug)]
pub(super) struct Negotiated {
    /// Maximum time between two packets of the client, in milliseconds; 0: no limit.
    pub(super) keep_alive_millis: u32,
    /// How long the session is kept after the connection ends.
    pub(super) session_expiry: Duration,
    /// Maximum number of unacknowledged messages to the client.
    pub(super) in_flight_max: u16,
    /// Highest topic alias that the client accepts; `None`: none.
    pub(super) last_alias: Option<NonZeroU16>,
    pub(super) will: Option<Box<Will>>,
    /// See [`Connect::is_bridge`].
    pub(super) is_bridge: bool,
}

/// A session that a connection has.
pub(super) struct OpenSession {
    pub(super) attached: Attached,
    pub(super) session: Session,
    /// The session existed before the connection.
    pub(super) is_present: bool,
}

impl Broker {
    /// Loads the sessions that the store has kept, before clients are served.
    ///
    /// A client that was connected when the gateway ended has been disconnected since, for an unknown time.
    /// So the expiry of its session starts now, and so does the delay of its will, which a server may defer
    /// until it restarts (MQTT 5, section 3.1.2.5).
    pub async fn load(&self) -> Result<(), Failure> {
        if self.hub.shares_sessions() {
            return Ok(());
        }
        let mut groups = Vec::new();
        let mut walk = SessionWalk::over(SessionNames::Own(GROUP_SESSIONS));
        while let Some(sessions) = self.hub.next_sessions(&mut walk).await? {
            groups.extend(sessions.iter().filter_map(|stored| self.groups.restore(stored)));
        }
        let mut walk = SessionWalk::over(SessionNames::OfClients);
        while let Some(sessions) = self.hub.next_sessions(&mut walk).await? {
            for stored in sessions {
                self.sessions.adopt(self.restore(stored, &groups));
            }
        }
        Ok(())
    }

    /// Restores a session that is stored, and whose client is not connected.
    pub(super) fn restore(&self, stored: StoredSession, groups: &[Arc<Group>]) -> Away {
        let (now, now_of_day) = (self.clock.instant(), self.clock.now());
        let longest = self.limits.mqtt_session_expiry_max.get();
        let RestoredSession { mut session, presence, credentials, damaged } =
            RestoredSession::new(stored.client, &stored.entries);
        if damaged > 0 || presence.is_none() {
            tracing::error!(
                client = &*session.client,
                damaged,
                "a stored session is damaged or incomplete; its readable entries are used"
            );
        }
        session.restore_groups(groups);
        let left = |moment: SystemTime| moment.duration_since(now_of_day).unwrap_or_default().min(longest);
        let (until, will) = match presence {
            Some(Presence::Here { expiry, will }) => (expiry, will.map(|will| (will.delay, will))),
            Some(Presence::Away { until, will }) => (left(until), will.map(|(will, at)| (left(at), will))),
            None => (longest, None),
        };
        let until = until.min(longest);
        let will = will.map(|(delay, will)| {
            let rights = WillRights::Stored(credentials);
            DelayedWill { will, at: now + delay.min(until), rights }
        });
        Away { session, until: now + until, will }
    }

    /// Resumes or creates the session of a client that has connected, and stores that the client is
    /// connected. Publishes the will of the earlier connection unless the new one prevents it. If this cannot
    /// be stored, the session stays as it was.
    pub(super) async fn open_session(
        &self,
        SessionFound { attached, mut away }: SessionFound,
        connect: &Connect,
        negotiated: &Negotiated,
        grants: &Grants,
    ) -> Result<OpenSession, Reason> {
        let client = attached.client().clone();
        let is_stored = self.hub.keeps_sessions() && !negotiated.session_expiry.is_zero();
        let is_present = away.is_some() && !connect.clean_start;
        // A will is due with the end of its session, and without a delay in any case.
        let is_due = |will: &Will| connect.clean_start || will.delay.is_zero();
        let will = away.as_mut().and_then(|away| away.will.take_if(|delayed| is_due(&delayed.will)));
        let begun = Session::new(client.clone(), is_stored);
        let session = away.as_ref().filter(|_| is_present).map_or(&begun, |away| &away.session);
        let change = if is_stored {
            let will = negotiated.will.as_deref().cloned();
            let here = Presence::Here { expiry: negotiated.session_expiry, will };
            session.change(Some((&here, grants.record())))
        } else {
            away.as_ref().and_then(|away| away.session.end())
        };
        if let Err(reason) = self.publish_and_store(&attached, self.allowed(will), change).await {
            self.give_back(attached, away).await;
            return Err(reason);
        }
        let mut session = away.filter(|_| is_present).map_or(begun, |away| away.session);
        if is_stored {
            session.saved()
        } else {
            session.forgotten()
        }
        Ok(OpenSession { attached, session, is_present })
    }

    /// Suspends the session of a connection that has ended, stores it, and publishes its will unless that is
    /// delayed. A will that is `deferred` waits for the next start of the gateway.
    pub(super) async fn suspend_session(
        &self,
        OpenSession { attached, mut session, .. }: OpenSession,
        expiry: Duration,
        will: Option<Will>,
        rights: &Arc<Grants>,
        deferred: bool,
    ) -> Result<(), Reason> {
        let (now, is_over) = (self.clock.instant(), expiry.is_zero());
        let principal = attached.principal();
        let is_due = |delayed: &mut DelayedWill| is_over || (delayed.will.delay.is_zero() && !deferred);
        let until = now + expiry;
        let mut later = will.map(|will| {
            let at = now + will.delay.min(expiry);
            DelayedWill { will, at, rights: WillRights::Held(rights.clone()) }
        });
        // The token may have just expired, which ended the connection; a will that is due now is published anyway. A revocation prevents it.
        let due = later.take_if(is_due).filter(|_| self.auth.stands(rights));
        let offsets_stored = if is_over { Ok(()) } else { self.store_offsets(&mut session).await };
        let change = if is_over {
            session.end()
        } else {
            session.change(Some((&self.away(until, later.as_ref()), rights.record())))
        };
        let outcome = self.publish_and_store(&attached, due, change).await.and(offsets_stored);
        let away = (!is_over).then(|| {
            if outcome.is_ok() {
                session.saved();
            }
            let will =
                later.map(|delayed| DelayedWill { at: if deferred { until } else { delayed.at }, ..delayed });
            Away { session, until, will }
        });
        self.give_back(attached, away).await;
        self.end_excess(principal, false).await;
        outcome
    }

    /// Discards disconnected sessions, oldest first, while `principal` has more than its share, or has no
    /// room for `another` one.
    pub(super) async fn end_excess(&self, principal: Principal, another: bool) {
        while let Some((attached, away)) = self.sessions.take_excess(principal, another) {
            self.discard(attached, away).await;
        }
    }

    /// Ends a disconnected session as if it had expired (MQTT 5, section 4.1.0-2).
    pub(super) async fn discard(&self, attached: Attached, away: Away) {
        tracing::info!(
            client = &**attached.client(),
            "discarding the session of a disconnected client to make room for another session"
        );
        let now = self.clock.instant();
        self.end_or_keep(attached, Away { until: now, ..away }, now).await;
    }

    /// Stores unsaved offsets in several changes, if they are too many for one.
    pub(super) async fn store_offsets(&self, session: &mut Session) -> Result<(), Reason> {
        while let Some(change) = session.take_offsets_change() {
            if let Err(reason) = self.store(Some(change.clone())).await {
                session.put_offsets_back(&change);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Publishes wills and ends sessions that are due.
    pub(super) async fn handle_due(&self) {
        let now = self.clock.instant();
        let due = std::iter::from_fn(|| self.sessions.take_due(now));
        stream::iter(due)
            .for_each_concurrent(DUE_AT_ONCE, |(attached, away)| self.look_at(attached, away, now))
            .await;
    }

    /// Publishes the will of a session and ends it, if they are due.
    pub(super) async fn look_at(&self, attached: Attached, mut away: Away, now: Instant) {
        if let Some(will) = away.will.as_mut().filter(|will| self.is_undecided(will)) {
            will.at = now + SWEEP_INTERVAL;
            away.until = away.until.max(will.at);
            return self.give_back(attached, Some(away)).await;
        }
        self.end_or_keep(attached, away, now).await;
    }

    async fn end_or_keep(&self, attached: Attached, mut away: Away, now: Instant) {
        consume_budget().await;
        let client = attached.client().clone();
        let is_over = away.until <= now;
        let will = away.will.take_if(|delayed| is_over || delayed.at <= now);
        let change = if is_over {
            away.session.end()
        } else {
            away.session.change(Some((&self.away(away.until, away.will.as_ref()), None)))
        };
        match self.publish_and_store(&attached, self.allowed(will), change).await {
            Ok(()) if is_over => return self.give_back(attached, None).await,
            Ok(()) => away.session.saved(),
            Err(reason) => {
                tracing::error!(
                    client = &*client,
                    ?reason,
                    is_over,
                    "cannot store the session of an MQTT client"
                )
            }
        }
        // A session in memory that could not be ended is dropped.
        if !is_over || self.hub.shares_sessions() {
            self.give_back(attached, Some(away)).await;
        }
    }

    /// The will of a client that has left, unless its token has expired or was revoked meanwhile.
    fn allowed(&self, will: Option<DelayedWill>) -> Option<DelayedWill> {
        will.filter(|delayed| match &delayed.rights {
            WillRights::Held(grants) => self.auth.check(grants, self.clock.wall()).is_ok(),
            WillRights::Stored(Some(credentials)) => self.recall(credentials) == Some(true),
            WillRights::Stored(None) => !self.auth.is_enabled(),
        })
    }

    fn recall(&self, credentials: &CredentialRecord) -> Option<bool> {
        self.auth.recall(credentials, self.clock.wall())
    }

    /// Whether it is not known yet if a will is allowed, since keys of an issuer were not fetched since the start.
    fn is_undecided(&self, will: &DelayedWill) -> bool {
        matches!(&will.rights, WillRights::Stored(Some(credentials)) if self.recall(credentials).is_none())
    }

    fn away(&self, until: Instant, will: Option<&DelayedWill>) -> Presence {
        let will = will.map(|delayed| (delayed.will.clone(), self.clock.at(delayed.at)));
        Presence::Away { until: self.clock.at(until), will }
    }

    /// Publishes a will and stores a change of the session, if there are any. Both go into one append, so
    /// that after a kill the will is published once. A refused will is dropped. Returns whether the change is
    /// stored.
    async fn publish_and_store(
        &self,
        attached: &Attached,
        will: Option<DelayedWill>,
        change: Option<SessionChange>,
    ) -> Result<(), Reason> {
        let Some(DelayedWill { will, rights, .. }) = will else { return self.store(change).await };
        let (client, principal) = (attached.client(), attached.principal());
        let rights = match &rights {
            WillRights::Held(grants) => Some(&**grants),
            WillRights::Stored(_) => None,
        };
        let published = self.publish_will(client, principal, &will, rights, change.clone()).await;
        let Err(reason) = published else { return Ok(()) };
        tracing::warn!(client = &**client, topic = will.topic, ?reason, "a will was refused and is dropped");
        self.store(change).await
    }
}
