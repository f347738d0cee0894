//! A session as a store keeps it: one entry for each thing that changes by itself. A value is a byte for its format and
//! the value in postcard's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Session;
use super::unsaved::{Deadline, SessionKey};
use crate::mqtt::codec::{PacketId, SubscriptionOptions, Will};
use crate::mqtt::forms::{NameForm, StartForm};
use crate::stream::{Filter, SessionChange, Start, StreamName};

/// The format of the values. Another one gets another number; values of a number that is not known are passed over.
const FORMAT: u8 = 1;

/// Whether a client is here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::mqtt) enum Presence {
    /// It is connected, or was when the gateway was killed.
    Here {
        /// How long its session is kept from when it is gone.
        expiry: Duration,
        will: Option<Will>,
    },
    Away {
        /// When its session ends.
        until: SystemTime,
        /// What is still to be published, and when.
        will: Option<(Will, SystemTime)>,
    },
}

/// A session that a store has kept.
#[derive(Debug)]
pub(in crate::mqtt) struct RestoredSession {
    pub(in crate::mqtt) session: Session,
    /// `None`: it is missing, or damaged.
    pub(in crate::mqtt) presence: Option<Presence>,
    /// How many entries could not be read.
    pub(in crate::mqtt) damaged: usize,
}

#[derive(Serialize, Deserialize)]
struct StoredOffset(#[serde(with = "StartForm")] Start);

/// The name of the stream up to which a subscription was sent what is retained; empty: nothing was sent.
#[derive(Serialize, Deserialize)]
struct RetainedPlace(String);

/// A retained message in the queue that earlier versions stored.
#[derive(Serialize, Deserialize)]
struct QueuedRetained {
    number: u64,
    #[serde(with = "NameForm")]
    stream: StreamName,
    options: SubscriptionOptions,
    #[serde(with = "StartForm")]
    before: Start,
}

/// Offsets that one change stores at the most, if there is anything else to be stored with it.
const CURSORS_A_CHANGE: usize = 1000;

impl Presence {
    /// As an entry of a change.
    pub(in crate::mqtt) fn entry(&self) -> (Bytes, Option<Bytes>) {
        (SessionKey::Presence.to_bytes(), encoded(self))
    }
}

impl Session {
    /// What is to be stored so that all of the session is, and whether its client is here if that is said. Nothing of
    /// one that is not stored.
    pub(in crate::mqtt) fn change(&self, presence: Option<&Presence>) -> Option<SessionChange> {
        let unsaved = self.unsaved.as_deref()?;
        let entries = unsaved.keys.iter().map(|key| (key.to_bytes(), self.value(key)));
        let entries = entries.chain(presence.map(Presence::entry)).collect();
        Some(SessionChange { client: self.client.clone(), anew: unsaved.is_new, entries })
    }

    /// The first of many offsets that are not stored yet; `None`: they are few enough for one `change`. An offset that is
    /// stored before its subscription does no harm, but a change as large as all of them holds up the others.
    pub(in crate::mqtt) fn take_offsets_change(&mut self) -> Option<SessionChange> {
        let unsaved = self.unsaved.as_deref_mut().filter(|unsaved| !unsaved.is_new)?;
        let keys = unsaved.take_offsets(CURSORS_A_CHANGE)?;
        let entries = keys.iter().map(|key| (key.to_bytes(), self.value(key))).collect();
        Some(SessionChange { client: self.client.clone(), anew: false, entries })
    }

    /// The store has not taken a change of offsets.
    pub(in crate::mqtt) fn put_offsets_back(&mut self, change: &SessionChange) {
        for key in change.entries.iter().filter_map(|(key, _)| SessionKey::parse(key)) {
            self.note(key, Deadline::SomeTime);
        }
    }

    /// What is to be stored when it is over.
    pub(in crate::mqtt) fn end(&self) -> Option<SessionChange> {
        self.unsaved.as_ref().map(|_| SessionChange::end(self.client.clone()))
    }

    /// The change that stores a received message, and nothing else: it goes with the message itself.
    pub(in crate::mqtt) fn receiving(&self, id: PacketId) -> Option<SessionChange> {
        self.unsaved.as_ref()?;
        let entries = vec![(SessionKey::Received(id).to_bytes(), encoded(&()))];
        Some(SessionChange { client: self.client.clone(), anew: false, entries })
    }

    /// Has the subscriptions of a queued message be sent what is retained, from the first stream on, and its entry removed.
    fn requeue_retained(&mut self, number: u64, stream: &StreamName) {
        let matching = |filter: &&Filter| filter.matches(stream);
        let filters: Vec<_> = self.subscriptions.filters().filter(matching).cloned().collect();
        for filter in filters {
            self.retained.insert(filter.clone(), None);
            self.note(SessionKey::Retained(filter), Deadline::SomeTime);
        }
        self.note(SessionKey::QueuedRetained(number), Deadline::SomeTime);
    }

    /// What an entry holds. `None`: there is none now.
    fn value(&self, key: &SessionKey) -> Option<Bytes> {
        match key {
            // The connection knows it.
            SessionKey::Presence => None,
            SessionKey::Subscription(filter) => self.subscriptions.get(filter).and_then(encoded),
            SessionKey::Offset(stream) => {
                self.offsets.get(stream).and_then(|offset| encoded(&StoredOffset(Start::At(*offset))))
            }
            SessionKey::Flight(id) => self.in_flight.get(*id).and_then(encoded),
            SessionKey::Received(id) => self.received.get(id).and_then(|_| encoded(&())),
            SessionKey::Retained(filter) => {
                let after = self.retained.get(filter)?;
                encoded(&RetainedPlace(after.as_ref().map_or_else(String::new, ToString::to_string)))
            }
            SessionKey::QueuedRetained(_) => None,
        }
    }
}

impl RestoredSession {
    /// Reads a session. What can not be read is passed over.
    pub(in crate::mqtt) fn new(client: Arc<str>, entries: &[(Bytes, Bytes)]) -> Self {
        let mut restored = Self { session: Session::new(client, true), presence: None, damaged: 0 };
        let mut queued = Vec::new();
        for (key, value) in entries {
            restored.damaged += usize::from(restored.take(key, value, &mut queued).is_none());
        }
        let session = &mut restored.session;
        session.in_flight.restored();
        session.saved();
        let Session { retained, subscriptions, .. } = session;
        retained.retain(|filter, _| subscriptions.get(filter).is_some());
        for QueuedRetained { number, stream, .. } in queued {
            session.requeue_retained(number, &stream);
        }
        restored
    }

    /// Takes an entry, unless it can not be read.
    fn take(&mut self, key: &[u8], value: &[u8], queued: &mut Vec<QueuedRetained>) -> Option<()> {
        let session = &mut self.session;
        match SessionKey::parse(key)? {
            SessionKey::Presence => self.presence = Some(decoded(value)?),
            SessionKey::Subscription(filter) => {
                session.subscriptions.put(filter.clone(), decoded(value)?);
                session.subscriptions.begin(&filter);
            }
            SessionKey::Offset(stream) => {
                if let StoredOffset(Start::At(offset)) = decoded(value)? {
                    session.offsets.insert(stream, offset);
                }
            }
            SessionKey::Flight(_) => session.in_flight.restore(decoded(value)?),
            SessionKey::Received(id) => {
                let () = decoded(value)?;
                session.received.insert(id);
            }
            SessionKey::Retained(filter) => {
                let RetainedPlace(after) = decoded(value)?;
                let after = if after.is_empty() { None } else { Some(StreamName::parse(&after).ok()?) };
                session.retained.insert(filter, after);
            }
            SessionKey::QueuedRetained(_) => queued.push(decoded(value)?),
        }
        Some(())
    }
}

/// Values of these types can always be written; one that could not would be as if it were not there.
fn encoded(value: &impl Serialize) -> Option<Bytes> {
    postcard::to_extend(value, vec![FORMAT]).ok().map(Bytes::from)
}

fn decoded<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    match value.split_first()? {
        (&FORMAT, value) => postcard::from_bytes(value).ok(),
        _ => None,
    }
}
