//! What of a session the store does not have yet. Only names of entries are noted: what they hold is looked up in the
//! session when it is stored, so what changes ten times in between is written once.

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::mqtt::codec::PacketId;
use crate::stream::{Filter, StreamName};

/// The name of one entry of a stored session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::mqtt) enum SessionKey {
    /// Whether the client is here, and how long its session is kept.
    Presence,
    Subscription(Filter),
    Offset(StreamName),
    /// A message on its way to the client.
    Flight(PacketId),
    /// A message of QoS 2 from the client that is in the log and not released yet.
    Received(PacketId),
    /// How far a new subscription has been sent what is retained.
    Retained(Filter),
    /// A retained message that was still to be sent, by its number. Earlier versions stored a queue of them.
    QueuedRetained(u64),
}

/// Deadline when a change has to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    /// Before the client is sent anything more, since it would take it for granted.
    NextPacket,
    /// At some time: if it is lost, the client is told or asked once more, and both sides know how to bear that.
    SomeTime,
}

/// The changes of a session that are not stored yet.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    /// Whether nothing at all is stored of it.
    pub(super) is_new: bool,
    pub(super) keys: HashSet<SessionKey>,
    pub(super) is_due: bool,
}

impl Unsaved {
    pub(super) fn note(&mut self, key: SessionKey, by: Deadline) {
        self.keys.insert(key);
        self.is_due |= by == Deadline::NextPacket;
    }

    /// Takes `max` keys of offsets, if there are more keys than that and these among them. What is taken counts as stored.
    pub(super) fn take_offsets(&mut self, max: usize) -> Option<Vec<SessionKey>> {
        if self.keys.len() <= max {
            return None;
        }
        let offsets = self.keys.iter().filter(|key| matches!(key, SessionKey::Offset(_)));
        let taken: Vec<_> = offsets.take(max).cloned().collect();
        for key in &taken {
            self.keys.remove(key);
        }
        (!taken.is_empty()).then_some(taken)
    }
}

impl SessionKey {
    /// The bytes of the key in a store.
    pub(in crate::mqtt) fn to_bytes(&self) -> Bytes {
        let number: [u8; 8];
        let id: [u8; 2];
        let (kind, name): (u8, &[u8]) = match self {
            Self::Presence => (b'p', &[]),
            Self::Subscription(filter) => (b's', filter.as_str().as_bytes()),
            Self::Offset(stream) => (b'c', stream.as_str().as_bytes()),
            Self::Flight(of) => {
                id = of.0.get().to_be_bytes();
                (b'f', &id)
            }
            Self::Received(of) => {
                id = of.0.get().to_be_bytes();
                (b'q', &id)
            }
            Self::Retained(filter) => (b'w', filter.as_str().as_bytes()),
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

    /// The key of those bytes. `None`: no key is written so.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, name) = bytes.split_first()?;
        let text = || std::str::from_utf8(name).ok();
        let id = || u16::from_be_bytes(name.try_into().ok()?).try_into().map(PacketId).ok();
        match kind {
            b'p' if name.is_empty() => Some(Self::Presence),
            b's' => Filter::parse(text()?).map(Self::Subscription).ok(),
            b'c' => StreamName::parse(text()?).map(Self::Offset).ok(),
            b'f' => id().map(Self::Flight),
            b'q' => id().map(Self::Received),
            b'w' => Filter::parse(text()?).map(Self::Retained).ok(),
            b'r' => Some(Self::QueuedRetained(u64::from_be_bytes(name.try_into().ok()?))),
            _ => None,
        }
    }
}
