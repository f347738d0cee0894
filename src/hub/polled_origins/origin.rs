//! [`PolledOrigin`]: the origin of one stream, and how it is stored: as a session of the store, whose name has that of the stream.
//!
//! The session has an entry for the settings, and further ones for what the poller has seen of the origin. Those change in one step
//! with the appends to the stream, so that after a kill nothing is appended twice.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::Instant;

use super::settings::OriginSettings;
use super::status::{OriginStatus, SharedStatus};
use crate::budget::{Account, Budget, Charge, Owner};
use crate::stream::{ORIGIN_SESSIONS, Principal, SessionChange, StoredSession, StreamName};

/// The key of the settings. Those of what the poller has seen are longer.
const SETTINGS: &[u8] = b"c";

/// Memory of an origin with its task, besides what the poller has seen.
pub(super) const ORIGIN_BYTES: u64 = 4096;

/// An entry of a session: a key and its value; `None` removes it.
pub type SeenEntry = (Bytes, Option<Bytes>);

/// Which gateway polls an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginPlace {
    /// This one.
    Here,
    /// Another one that uses the store, or none for the moment.
    Elsewhere,
    /// None any more, as the stream has ended.
    Ended,
}

/// The origin of one stream.
#[derive(Debug)]
pub struct PolledOrigin {
    stream: StreamName,
    settings: OriginSettings,
    principal: Principal,
    /// In whole milliseconds.
    pub(super) created_at: SystemTime,
    /// The name of its session.
    pub(super) session: Arc<str>,
    /// What the poller had seen when this gateway began to poll.
    stored: Mutex<Vec<(Bytes, Bytes)>>,
    status: SharedStatus,
    /// When somebody last began to read.
    read_at: Mutex<Option<Instant>>,
    read: Notify,
    /// Locked while the stream is filled. True: the stream has ended, and a later one of its name is not filled.
    pub(super) has_ended: Arc<AsyncMutex<bool>>,
    place: watch::Sender<OriginPlace>,
    /// Its memory, with what the poller has seen.
    charge: Mutex<Charge>,
}

/// The name of the session with the origin of a stream.
pub(super) fn session_of(stream: &StreamName) -> Arc<str> {
    [ORIGIN_SESSIONS, stream.as_str()].concat().into()
}

fn millis_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Serialize, Deserialize)]
struct StoredOrigin {
    stream: String,
    settings: OriginSettings,
    principal: u64,
    /// Milliseconds since 1970.
    created_at: u64,
}

impl PolledOrigin {
    /// The origin of a new stream.
    pub(super) fn new(
        stream: StreamName,
        settings: OriginSettings,
        owner: &Arc<Owner>,
        now: SystemTime,
    ) -> Self {
        let session = session_of(&stream);
        Self::of(stream, settings, owner, now, (session, Vec::new()))
    }

    fn of(
        stream: StreamName,
        settings: OriginSettings,
        owner: &Arc<Owner>,
        created_at: SystemTime,
        (session, stored): (Arc<str>, Vec<(Bytes, Bytes)>),
    ) -> Self {
        let principal = owner.principal();
        let charge = Mutex::new(Charge::new(owner, Account::Subscriptions, ORIGIN_BYTES));
        Self {
            charge,
            stream,
            settings,
            principal,
            created_at: UNIX_EPOCH + Duration::from_millis(millis_of(created_at)),
            session,
            stored: Mutex::new(stored),
            status: SharedStatus::default(),
            read_at: Mutex::default(),
            read: Notify::new(),
            has_ended: Arc::default(),
            place: watch::Sender::new(OriginPlace::Here),
        }
    }

    /// Reads a session whose name begins with [`ORIGIN_SESSIONS`]. `None`: it is damaged.
    pub(super) fn stored(session: StoredSession, budget: &Arc<Budget>) -> Option<Self> {
        let (settings, seen): (Vec<_>, Vec<_>) =
            session.entries.into_iter().partition(|(key, _)| key == SETTINGS);
        let (_, settings) = settings.into_iter().next()?;
        let StoredOrigin { stream, settings, principal, created_at } =
            serde_json::from_slice(&settings).ok()?;
        let created_at = UNIX_EPOCH.checked_add(Duration::from_millis(created_at))?;
        let stream = StreamName::stored(&stream).ok()?;
        let owner = budget.owner_in(stream.tenant(), Principal(principal));
        Some(Self::of(stream, settings, &owner, created_at, (session.client, seen)))
    }

    /// The change that stores the origin.
    pub(super) fn creation(&self) -> SessionChange {
        let stored = StoredOrigin {
            stream: self.stream.as_str().to_owned(),
            settings: self.settings.clone(),
            principal: self.principal.0,
            created_at: millis_of(self.created_at),
        };
        let stored = serde_json::to_vec(&stored).ok().map(Bytes::from);
        debug_assert!(stored.is_some(), "these types serialize to JSON");
        let entries = vec![(Bytes::from_static(SETTINGS), stored)];
        SessionChange { client: self.session.clone(), anew: true, entries }
    }

    /// The change that stores what the poller has seen.
    pub(super) fn change(&self, entries: Vec<SeenEntry>) -> SessionChange {
        SessionChange { client: self.session.clone(), anew: false, entries }
    }

    /// The change that removes the origin.
    pub(super) fn removal(&self) -> SessionChange {
        SessionChange::end(self.session.clone())
    }

    /// The stream that is filled.
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// Where the stream comes from, and how often.
    pub fn settings(&self) -> &OriginSettings {
        &self.settings
    }

    /// The client that has created the stream, and is charged for its messages.
    pub fn principal(&self) -> Principal {
        self.principal
    }

    /// The same origin while another gateway polls it.
    pub(super) fn elsewhere(self) -> Self {
        self.place.send_replace(OriginPlace::Elsewhere);
        self.stored.lock().clear();
        self
    }

    /// Whether this is the origin of the same creation of the stream.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.settings, self.created_at) == (&other.settings, other.created_at)
    }

    /// Takes what the poller had seen when this gateway began to poll.
    pub fn take_stored(&self) -> Vec<(Bytes, Bytes)> {
        std::mem::take(&mut self.stored.lock())
    }

    /// Charges the memory of what the poller has seen, in bytes.
    pub fn keeps(&self, seen_bytes: usize) {
        self.charge.lock().set(ORIGIN_BYTES + seen_bytes as u64);
    }

    /// What readers are told.
    pub fn status(&self) -> Arc<OriginStatus> {
        self.status.get()
    }

    /// Tells readers that the stream is as new as its origin.
    pub fn succeeded(&self, now: SystemTime, next: Option<SystemTime>) {
        self.status.update(|status| {
            status.succeeded(now);
            status.next = next;
        });
    }

    /// Tells readers what the gateway that polls has told.
    pub(super) fn has_status(&self, told: OriginStatus) {
        self.status.update(|status| *status = OriginStatus { version: status.version, ..told });
    }

    /// Tells readers again what they were told before.
    pub(super) fn has_again(&self, before: Arc<OriginStatus>) {
        self.has_status(OriginStatus::clone(&before));
    }

    /// Tells readers that a poll has failed, with the reason in one word.
    pub fn failed(&self, reason: &str, now: SystemTime, next: Option<SystemTime>) {
        self.status.update(|status| {
            status.failed(reason, now);
            status.next = next;
        });
    }

    /// Tells readers when the origin is polled next. `None`: when somebody reads.
    pub fn is_due(&self, next: Option<SystemTime>) {
        self.status.update(|status| status.next = next);
    }

    /// Notes that somebody begins to read.
    pub(in crate::hub) fn note_reader(&self) {
        *self.read_at.lock() = Some(Instant::now());
        self.read.notify_one();
    }

    /// Whether somebody has begun to read within the last `time`.
    pub fn was_read_within(&self, time: Duration) -> bool {
        self.read_at.lock().is_some_and(|at| at.elapsed() < time)
    }

    /// Waits until somebody begins to read. May return early.
    pub async fn reader(&self) {
        self.read.notified().await;
    }

    /// Which gateway polls it, now and later.
    pub fn place(&self) -> watch::Receiver<OriginPlace> {
        self.place.subscribe()
    }

    pub(super) fn is_here(&self) -> bool {
        *self.place.borrow() == OriginPlace::Here
    }

    /// This gateway polls from now on, after others that have `seen` this.
    pub(super) fn comes(&self, seen: Vec<(Bytes, Bytes)>) {
        *self.stored.lock() = seen.into_iter().filter(|(key, _)| key != SETTINGS).collect();
        self.move_to(OriginPlace::Here);
    }

    /// Another gateway polls from now on.
    pub(super) fn leaves(&self) {
        self.move_to(OriginPlace::Elsewhere);
        self.keeps(0);
    }

    pub(super) fn ends(&self) {
        self.move_to(OriginPlace::Ended);
    }

    /// What has ended does not begin again.
    fn move_to(&self, place: OriginPlace) {
        self.place.send_if_modified(|current| {
            let moves = *current != place && *current != OriginPlace::Ended;
            if moves {
                *current = place;
            }
            moves
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{ElementKey, OriginInterval};

    #[test]
    fn a_stored_origin_is_read_again_with_what_was_seen() {
        let settings = OriginSettings {
            url: "https://origin.example/feed?x=y".into(),
            interval: OriginInterval::parse("2-9").unwrap(),
            is_always_polled: true,
            key: ElementKey::parse("/user/id"),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let name = StreamName::parse("feed").unwrap();
        let budget = Budget::unlimited();
        let origin = PolledOrigin::new(name, settings, &budget.owner(Principal(7)), now);
        let mut entries = Vec::new();
        let seen = (Bytes::from_static(b"seen"), Some(Bytes::from_static(b"1")));
        for change in [origin.creation(), origin.change(vec![seen])] {
            entries.extend(change.entries.into_iter().filter_map(|(key, value)| Some((key, value?))));
        }
        let client = origin.session.clone();
        let stored = StoredSession { client: client.clone(), entries };
        let read = PolledOrigin::stored(stored, &budget).unwrap();
        assert_eq!((read.stream(), read.settings()), (origin.stream(), origin.settings()));
        assert_eq!((read.principal, read.created_at, &read.session), (Principal(7), now, &client));
        assert_eq!(read.take_stored(), [(Bytes::from_static(b"seen"), Bytes::from_static(b"1"))]);

        let damaged = (Bytes::from_static(SETTINGS), Bytes::from_static(b"{}"));
        assert_eq!(client, session_of(read.stream()));
        let damaged = StoredSession { client, entries: vec![damaged] };
        assert!(PolledOrigin::stored(damaged, &budget).is_none());

        let charged = || budget.usage().accounts[Account::Subscriptions as usize];
        read.keeps(1000);
        assert_eq!(charged(), 2 * ORIGIN_BYTES + 1000);
        drop((origin, read));
        assert_eq!(charged(), 0);
    }
}
