//! A session as a store keeps it: one entry for each thing that changes by itself. A value is a byte for its format and
//! the value in postcard's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Session;
use super::unsaved::Key;
use crate::mqtt::codec::{PacketId, Will};
use crate::mqtt::forms::StartForm;
use crate::stream::{SessionChange, Start};

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
pub(in crate::mqtt) struct Restored {
    pub(in crate::mqtt) session: Session,
    /// `None`: it is missing, or damaged.
    pub(in crate::mqtt) presence: Option<Presence>,
    /// How many entries could not be read.
    pub(in crate::mqtt) damaged: usize,
}

#[derive(Serialize, Deserialize)]
struct Cursor(#[serde(with = "StartForm")] Start);

impl Presence {
    /// As an entry of a change.
    pub(in crate::mqtt) fn entry(&self) -> (Bytes, Option<Bytes>) {
        (Key::Presence.to_bytes(), encoded(self))
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

    /// What is to be stored when it is over.
    pub(in crate::mqtt) fn end(&self) -> Option<SessionChange> {
        self.unsaved.as_ref().map(|_| SessionChange::end(self.client.clone()))
    }

    /// The change that stores a received message, and nothing else: it goes with the message itself.
    pub(in crate::mqtt) fn receiving(&self, id: PacketId) -> Option<SessionChange> {
        self.unsaved.as_ref()?;
        let entries = vec![(Key::Received(id).to_bytes(), encoded(&()))];
        Some(SessionChange { client: self.client.clone(), anew: false, entries })
    }

    /// What an entry holds. `None`: there is none now.
    fn value(&self, key: &Key) -> Option<Bytes> {
        match key {
            // The connection knows it.
            Key::Presence => None,
            Key::Subscription(filter) => self.subscriptions.get(filter).and_then(encoded),
            Key::Cursor(stream) => self.cursors.get(stream).and_then(|start| encoded(&Cursor(*start))),
            Key::Flight(id) => self.in_flight.get(*id).and_then(encoded),
            Key::Received(id) => self.received.get(id).and_then(|_| encoded(&())),
            Key::Retained(number) => {
                let place = self.retained.binary_search_by_key(number, |one| one.number).ok()?;
                self.retained.get(place).and_then(encoded)
            }
        }
    }
}

impl Restored {
    /// Reads a session. What can not be read is passed over.
    pub(in crate::mqtt) fn new(client: Arc<str>, entries: &[(Bytes, Bytes)]) -> Self {
        let mut restored = Self { session: Session::new(client, true), presence: None, damaged: 0 };
        for (key, value) in entries {
            restored.damaged += usize::from(restored.take(key, value).is_none());
        }
        restored.session.in_flight.restored();
        restored.session.retained.make_contiguous().sort_by_key(|one| one.number);
        restored.session.saved();
        restored
    }

    /// Takes an entry, unless it can not be read.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let session = &mut self.session;
        match Key::parse(key)? {
            Key::Presence => self.presence = Some(decoded(value)?),
            Key::Subscription(filter) => {
                session.subscriptions.put(filter, decoded(value)?);
            }
            Key::Cursor(stream) => {
                let Cursor(start) = decoded(value)?;
                session.cursors.insert(stream, start);
            }
            Key::Flight(_) => session.in_flight.restore(decoded(value)?),
            Key::Received(id) => {
                let () = decoded(value)?;
                session.received.insert(id);
            }
            Key::Retained(_) => session.retained.push_back(decoded(value)?),
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
