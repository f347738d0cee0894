//! [`Unsaved`]: the entries of a session that are not stored yet. Only their keys are kept; the values are
//! taken from the session when they are stored, so an entry that changes ten times is written once.

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::mqtt::codec::PacketId;
use crate::stream::{Filter, StreamName};

/// The key of one entry of a stored session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::mqtt) enum SessionKey {
    /// Whether the client is connected, and how long its session is kept.
    Presence,
    Subscription(Filter),
    Offset(StreamName),
    /// A message in flight to the client.
    InFlightMessage(PacketId),
    /// A received message of QoS 2 that is in the log and not released yet.
    Received(PacketId),
    /// How far a new subscription has received retained messages.
    Retained(Filter),
    /// The credentials by which the will is published.
    WillCredentials,
    /// A queued retained message, by its number. Earlier versions stored a queue of them.
    QueuedRetained(u64),
}

/// When a change must be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    /// Before the client is sent anything more, since the next packet would confirm the change.
    NextPacket,
    /// At any time: if the change is lost, a message or request is repeated, which both sides can handle.
    SomeTime,
}

/// The changes of a session that are not stored yet.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    /// Nothing of the session is stored yet.
    pub(super) is_new: bool,
    pub(super) keys: HashSet<SessionKey>,
    /// A change with [`Deadline::NextPacket`] is among them.
    pub(super) is_due: bool,
}

impl Unsaved {
    pub(super) fn note(&mut self, key: SessionKey, by: Deadline) {
        self.keys.insert(key);
        self.is_due |= by == Deadline::NextPacket;
    }

    /// Takes up to `max` keys of offsets of streams that `may_go_alone`, if there are more than `max` keys in total. They count as stored.
    pub(super) fn take_offsets(
        &mut self,
        max: usize,
        may_go_alone: impl Fn(&StreamName) -> bool,
    ) -> Option<Vec<SessionKey>> {
        if self.keys.len() <= max {
            return None;
        }
        let is_taken = |key: &&SessionKey| matches!(key, SessionKey::Offset(stream) if may_go_alone(stream));
        let offsets = self.keys.iter().filter(is_taken);
        let taken: Vec<_> = offsets.take(max).cloned().collect();
        for key in &taken {
            self.keys.remove(key);
        }
        (!taken.is_empty()).then_some(taken)
    }
}

impl SessionKey {
    /// Encodes the key for the store.
    pub(in crate::mqtt) fn to_bytes(&self) -> Bytes {
        let number: [u8; 8];
        let id: [u8; 2];
        let (kind, name): (u8, &[u8]) = match self {
            Self::Presence => (b'p', &[]),
            Self::Subscription(filter) => (b's', filter.as_str().as_bytes()),
            Self::Offset(stream) => (b'c', stream.as_str().as_bytes()),
            Self::InFlightMessage(of) => {
                id = of.0.get().to_be_bytes();
                (b'f', &id)
            }
            Self::Received(of) => {
                id = of.0.get().to_be_bytes();
                (b'q', &id)
            }
            Self::Retained(filter) => (b'w', filter.as_str().as_bytes()),
            Self::WillCredentials => (b'a', &[]),
            Self::QueuedRetained(of) => {
                number = of.to_be_bytes();
                (b'r', &number)
            }
        };
        let mut bytes = BytesMut::with_capacity(1 + name.len());
        bytes.put_u8(kind);
        bytes.put_slice(name);
        bytes.freeze()
    }

    /// Parses a key. `None`: the bytes are not a key.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, name) = bytes.split_first()?;
        let text = || std::str::from_utf8(name).ok();
        let id = || u16::from_be_bytes(name.try_into().ok()?).try_into().map(PacketId).ok();
        match kind {
            b'p' if name.is_empty() => Some(Self::Presence),
            b'a' if name.is_empty() => Some(Self::WillCredentials),
            b's' => Filter::parse(text()?).map(Self::Subscription).ok(),
            b'c' => StreamName::stored(text()?).map(Self::Offset).ok(),
            b'f' => id().map(Self::InFlightMessage),
            b'q' => id().map(Self::Received),
            b'w' => Filter::parse(text()?).map(Self::Retained).ok(),
            b'r' => Some(Self::QueuedRetained(u64::from_be_bytes(name.try_into().ok()?))),
            _ => None,
        }
    }
}
