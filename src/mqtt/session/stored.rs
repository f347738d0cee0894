//! The stored form of a session: one entry for each part that changes independently. A value is a format byte
//! followed by the postcard encoding.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Session;
use super::unsaved::{Deadline, SessionKey};
use crate::auth::CredentialRecord;
use crate::mqtt::codec::{PacketId, SubscriptionOptions, Will};
use crate::mqtt::forms::{NameForm, StartForm};
use crate::mqtt::groups::{is_shared, stream_filter};
use crate::stream::{Filter, SessionChange, Start, StreamName};

/// Format of the values. A changed format gets a new number; values with an unknown number are skipped.
const FORMAT: u8 = 1;

/// Whether the client is connected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::mqtt) enum Presence {
    /// The client is connected, or was when the gateway was killed.
    Here {
        /// How long the session is kept after the connection ends.
        expiry: Duration,
        will: Option<Will>,
    },
    Away {
        /// When the session expires.
        until: SystemTime,
        /// The will and the time to publish it, if it is not published yet.
        will: Option<(Will, SystemTime)>,
    },
}

/// A session loaded from the store.
#[derive(Debug)]
pub(in crate::mqtt) struct RestoredSession {
    pub(in crate::mqtt) session: Session,
    /// `None`: the entry is missing or damaged.
    pub(in crate::mqtt) presence: Option<Presence>,
    /// The credentials by which the client has a will. `None`: it had none.
    pub(in crate::mqtt) credentials: Option<CredentialRecord>,
    /// Number of entries that could not be read.
    pub(in crate::mqtt) damaged: usize,
}

#[derive(Serialize, Deserialize)]
struct StoredOffset(#[serde(with = "StartForm")] Start);

/// Stream up to which a subscription was sent retained messages; empty: none was sent.
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

/// Maximum number of offsets in one change, if there is anything else to store.
const OFFSETS_PER_CHANGE: usize = 1000;

impl Presence {
    /// Returns the entries of a change. With a will, the `credentials` of its client are stored.
    pub(super) fn entries(&self, credentials: Option<CredentialRecord>) -> impl Iterator<Item = StoredEntry> {
        let will = match self {
            Self::Here { will, .. } => will.as_ref(),
            Self::Away { will, .. } => will.as_ref().map(|(will, _)| will),
        };
        // A session belongs to one subject, so another connection does not leave a will without credentials of its own.
        let credentials = will.and(credentials).map(|credentials| will_credentials(&credentials));
        [(SessionKey::Presence.to_bytes(), encoded(self))].into_iter().chain(credentials)
    }
}

/// A key with its value. `None`: the entry is removed.
type StoredEntry = (Bytes, Option<Bytes>);

fn will_credentials(credentials: &CredentialRecord) -> StoredEntry {
    (SessionKey::WillCredentials.to_bytes(), encoded(credentials))
}

impl Session {
    /// Returns the change that stores all unsaved parts of the session, and `presence` if given, with the
    /// credentials of the client. `None` for a session that is not stored.
    pub(in crate::mqtt) fn change(
        &self,
        presence: Option<(&Presence, Option<CredentialRecord>)>,
    ) -> Option<SessionChange> {
        let unsaved = self.unsaved.as_deref()?;
        let entries = unsaved.keys.iter().map(|key| (key.to_bytes(), self.value(key)));
        let presence = presence.map(|(presence, credentials)| presence.entries(credentials));
        let entries = entries.chain(presence.into_iter().flatten()).collect();
        Some(SessionChange { client: self.client.clone(), anew: unsaved.is_new, entries })
    }

    /// Takes a part of the unsaved offsets; `None`: the rest is small enough for one
    /// [`change`](Self::change). An offset stored before its subscription does no harm, while one change with
    /// all offsets would block the changes of others. The offset of a stream with messages in flight is stored together with
    /// them: after a kill in between, a message that was never received would count as sent.
    pub(in crate::mqtt) fn take_offsets_change(&mut self) -> Option<SessionChange> {
        let unsaved = self.unsaved.as_deref_mut().filter(|unsaved| !unsaved.is_new)?;
        let flights = self.seldom.iter().flat_map(|seldom| seldom.in_flight.iter());
        let in_flight: HashSet<_> = flights.map(|message| &message.stream).collect();
        let keys = unsaved.take_offsets(OFFSETS_PER_CHANGE, |stream| !in_flight.contains(stream))?;
        let entries = keys.iter().map(|key| (key.to_bytes(), self.value(key))).collect();
        Some(SessionChange { client: self.client.clone(), anew: false, entries })
    }

    /// Puts the offsets of a change back that the store did not accept.
    pub(in crate::mqtt) fn put_offsets_back(&mut self, change: &SessionChange) {
        for key in change.entries.iter().filter_map(|(key, _)| SessionKey::parse(key)) {
            self.note(key, Deadline::SomeTime);
        }
    }

    /// Returns the change that removes the session from the store.
    pub(in crate::mqtt) fn end(&self) -> Option<SessionChange> {
        self.unsaved.as_ref().map(|_| SessionChange::end(self.client.clone()))
    }

    /// Returns the change that stores a received message of QoS 2 and nothing else; it is stored in one step
    /// with the message.
    pub(in crate::mqtt) fn receiving(&self, id: PacketId) -> Option<SessionChange> {
        self.unsaved.as_ref()?;
        let entries = vec![(SessionKey::Received(id).to_bytes(), encoded(&()))];
        Some(SessionChange { client: self.client.clone(), anew: false, entries })
    }

    /// Returns the change that stores other credentials of a client that has a will.
    pub(in crate::mqtt) fn renewing(&self, credentials: &CredentialRecord) -> Option<SessionChange> {
        self.unsaved.as_ref()?;
        let entries = vec![will_credentials(credentials)];
        Some(SessionChange { client: self.client.clone(), anew: false, entries })
    }

    /// Restarts the retained messages of the subscriptions that match a queued message, and removes its
    /// entry.
    fn requeue_retained(&mut self, number: u64, stream: &StreamName) {
        let matching = |filter: &&Filter| filter.matches(stream);
        let filters: Vec<_> = self.subscriptions.filters().filter(matching).cloned().collect();
        for filter in filters {
            self.seldom_mut().retained.insert(filter.clone(), None);
            self.note(SessionKey::Retained(filter), Deadline::SomeTime);
        }
        self.note(SessionKey::QueuedRetained(number), Deadline::SomeTime);
    }

    /// Returns the current value of an entry. `None`: the entry is removed.
    fn value(&self, key: &SessionKey) -> Option<Bytes> {
        match key {
            // Known to the connection only.
            SessionKey::Presence | SessionKey::WillCredentials => None,
            SessionKey::Subscription(filter) => {
                let shared = || self.seldom.as_ref()?.shared.get(filter);
                self.subscriptions.get(filter).or_else(shared).and_then(encoded)
            }
            SessionKey::Offset(stream) => {
                self.offsets.get(stream).and_then(|offset| encoded(&StoredOffset(Start::At(*offset))))
            }
            SessionKey::InFlightMessage(id) => self.flight(*id).and_then(encoded),
            SessionKey::Received(id) => self.has_received(*id).then(|| encoded(&())).flatten(),
            SessionKey::Retained(filter) => {
                let after = self.seldom.as_ref()?.retained.get(filter)?;
                encoded(&RetainedPlace(after.as_ref().map_or_else(String::new, ToString::to_string)))
            }
            SessionKey::QueuedRetained(_) => None,
        }
    }
}

impl RestoredSession {
    /// Parses a session. Entries that cannot be read are skipped and counted.
    pub(in crate::mqtt) fn new(client: Arc<str>, entries: &[(Bytes, Bytes)]) -> Self {
        let session = Session::new(client, true);
        let mut restored = Self { session, presence: None, credentials: None, damaged: 0 };
        let mut queued = Vec::new();
        for (key, value) in entries {
            restored.damaged += usize::from(restored.restore_entry(key, value, &mut queued).is_none());
        }
        let session = &mut restored.session;
        session.saved();
        let Session { seldom, subscriptions, .. } = session;
        if let Some(seldom) = seldom {
            seldom.in_flight.restored();
            seldom.retained.retain(|filter, _| subscriptions.get(filter).is_some());
        }
        for QueuedRetained { number, stream, .. } in queued {
            session.requeue_retained(number, &stream);
        }
        restored
    }

    /// Adds an entry. `None`: it cannot be read.
    fn restore_entry(&mut self, key: &[u8], value: &[u8], queued: &mut Vec<QueuedRetained>) -> Option<()> {
        let session = &mut self.session;
        match SessionKey::parse(key)? {
            SessionKey::Presence => self.presence = Some(decoded(value)?),
            SessionKey::WillCredentials => self.credentials = Some(decoded(value)?),
            SessionKey::Subscription(filter) if is_shared(filter.as_str()) => {
                let streams = stream_filter(&filter)?;
                session.seldom_mut().shared.add(filter, streams, decoded(value)?);
            }
            SessionKey::Subscription(filter) => {
                session.subscriptions.put(filter.clone(), decoded(value)?);
                session.subscriptions.begin(&filter);
            }
            SessionKey::Offset(stream) => {
                if let StoredOffset(Start::At(offset)) = decoded(value)? {
                    let excess = super::long_name_bytes(&stream);
                    if session.offsets.insert(stream, offset).is_none() {
                        session.long_name_bytes += excess;
                    }
                }
            }
            SessionKey::InFlightMessage(_) => session.seldom_mut().in_flight.restore(decoded(value)?),
            SessionKey::Received(id) => {
                let () = decoded(value)?;
                session.seldom_mut().received.insert(id);
            }
            SessionKey::Retained(filter) => {
                let RetainedPlace(after) = decoded(value)?;
                let after = if after.is_empty() { None } else { Some(StreamName::stored(&after).ok()?) };
                session.seldom_mut().retained.insert(filter, after);
            }
            SessionKey::QueuedRetained(_) => queued.push(decoded(value)?),
        }
        Some(())
    }
}

/// Encodes a value. These types always encode; a failure would drop the entry.
fn encoded(value: &impl Serialize) -> Option<Bytes> {
    postcard::to_extend(value, vec![FORMAT]).ok().map(Bytes::from)
}

fn decoded<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    match value.split_first()? {
        (&FORMAT, value) => postcard::from_bytes(value).ok(),
        _ => None,
    }
}
