//! What is remembered of a client, without IO and without a clock: its subscriptions, how far it has been sent each
//! stream, and what is on its way in either direction.
//!
//! There is no queue of messages. What a client has not been sent lies in the logs behind its cursors, so a session
//! costs the same whether its client is a message or a million behind.
//!
//! A session that outlives its connection is also stored, if the store outlives the process. What is stored is always the session as it was at one moment;
//! each change says whether that moment must come before the client is sent anything more.

mod in_flight;
mod stored;
mod subscriptions;
#[cfg(test)]
mod tests;
mod unsaved;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec::{Ack, AckKind, PacketId, SubscriptionOptions};
use super::forms::{NameForm, StartForm};
use crate::stream::{Filter, Offset, Quality, Start, StreamName};

use in_flight::InFlight;
use unsaved::{By, Key, Unsaved};

pub(super) use in_flight::{Flight, Phase};
pub(super) use stored::{Presence, Restored};
pub(super) use subscriptions::{Subscriptions, Wanted};

/// A session of MQTT 5, section 4.1.
#[derive(Debug)]
pub(super) struct Session {
    /// The id of its client.
    pub(super) client: Arc<str>,
    subscriptions: Subscriptions,
    /// What the client was sent and has not acknowledged.
    in_flight: InFlight,
    /// Messages of quality 2 that are in the log, and that the client has not released yet.
    received: HashSet<PacketId>,
    /// Streams whose retained message is still to be sent to a new subscription.
    retained: VecDeque<Retained>,
    /// Behind what each stream was sent. A stream without one has come after its subscription.
    cursors: HashMap<StreamName, Start>,
    /// What the store does not have yet. `None`: the session is not stored, since it ends with its connection or the
    /// store with the process.
    unsaved: Option<Box<Unsaved>>,
}

/// A stream whose retained message is to be sent to a new subscription.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Retained {
    /// Its place in the queue.
    number: u64,
    #[serde(with = "NameForm")]
    pub(super) stream: StreamName,
    /// What the subscription asks for.
    pub(super) options: SubscriptionOptions,
    /// From where the client gets the stream anyway; a retained message behind that would come twice.
    #[serde(with = "StartForm")]
    pub(super) before: Start,
}

impl Session {
    /// A new session of `client`.
    pub(super) fn new(client: Arc<str>, is_stored: bool) -> Self {
        Self {
            client,
            subscriptions: Subscriptions::default(),
            in_flight: InFlight::default(),
            received: HashSet::new(),
            retained: VecDeque::new(),
            cursors: HashMap::new(),
            unsaved: is_stored.then(|| Box::new(Unsaved { is_new: true, ..Unsaved::default() })),
        }
    }

    /// Which streams the client wants.
    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Adds a subscription or replaces the one of the same filter. Whether it is new.
    pub(super) fn subscribe(&mut self, filter: Filter, options: SubscriptionOptions) -> bool {
        self.note(Key::Subscription(filter.clone()), By::NextPacket);
        self.subscriptions.put(filter, options)
    }

    /// Ends a subscription. Whether there was one. What is on its way still arrives.
    pub(super) fn unsubscribe(&mut self, filter: &Filter) -> bool {
        let existed = self.subscriptions.remove(filter);
        if existed {
            self.note(Key::Subscription(filter.clone()), By::NextPacket);
            let is_over =
                |name: &StreamName| filter.matches(name) && self.subscriptions.wanted(name).is_none();
            let over: Vec<_> = self.cursors.keys().filter(|name| is_over(name)).cloned().collect();
            over.iter().for_each(|name| self.forget_cursor(name));
        }
        existed
    }

    /// From where a stream is sent next.
    pub(super) fn cursor(&self, name: &StreamName) -> Start {
        self.cursors.get(name).copied().unwrap_or(Start::Earliest)
    }

    /// Whether a stream was there when it was subscribed to, or has been sent since.
    pub(super) fn has_cursor(&self, name: &StreamName) -> bool {
        self.cursors.contains_key(name)
    }

    /// The stream was sent up to there.
    pub(super) fn set_cursor(&mut self, name: StreamName, start: Start) {
        self.note_with(By::SomeTime, || Key::Cursor(name.clone()));
        self.cursors.insert(name, start);
    }

    /// The stream is no more; should one of its name come, it is sent from its beginning.
    pub(super) fn forget_cursor(&mut self, name: &StreamName) {
        if self.cursors.remove(name).is_some() {
            self.note_with(By::SomeTime, || Key::Cursor(name.clone()));
        }
    }

    /// Puts a stream into the queue of those whose retained message is to be sent.
    pub(super) fn queue_retained(&mut self, stream: StreamName, options: SubscriptionOptions) {
        let (before, number) = (self.cursor(&stream), self.retained.back().map_or(0, |last| last.number + 1));
        self.note(Key::Retained(number), By::NextPacket);
        self.retained.push_back(Retained { number, stream, options, before });
    }

    /// Takes the next stream out of that queue.
    pub(super) fn next_retained(&mut self) -> Option<Retained> {
        let next = self.retained.pop_front()?;
        self.note(Key::Retained(next.number), By::SomeTime);
        Some(next)
    }

    /// A new connection: nothing has been sent over it yet.
    pub(super) fn reconnected(&mut self) {
        self.in_flight.reconnected();
    }

    /// How many more messages may be sent if the client takes `max` at once.
    pub(super) fn vacancy(&self, max: usize) -> usize {
        self.in_flight.vacancy(max)
    }

    /// The oldest message that has to be sent again, and counts as sent with that.
    pub(super) fn send_again(&mut self) -> Option<Flight> {
        self.in_flight.send_again()
    }

    /// Puts a message on its way, under an id that is free.
    pub(super) fn send(
        &mut self,
        stream: StreamName,
        start: Offset,
        quality: Quality,
        retain: bool,
    ) -> PacketId {
        let id = self.in_flight.send(stream, start, quality, retain);
        // Sent again under another id, a message of quality 2 would be another message to the client.
        self.note(
            Key::Flight(id),
            if quality == Quality::ExactlyOnce { By::NextPacket } else { By::SomeTime },
        );
        id
    }

    /// Gives a message up that can not be sent: it is not kept any more, or too large for the client.
    pub(super) fn give_up(&mut self, id: PacketId) {
        self.in_flight.give_up(id);
        self.note(Key::Flight(id), By::SomeTime);
    }

    /// Takes an acknowledgement of the client, and returns what it is to be answered.
    pub(super) fn acknowledged(&mut self, ack: Ack) -> Option<Ack> {
        if self.unsaved.is_some() && self.in_flight.get(ack.id).is_some() {
            // Once the client is told to forget the id, the message must never come under it again.
            self.note(
                Key::Flight(ack.id),
                if ack.kind == AckKind::Pubrec { By::NextPacket } else { By::SomeTime },
            );
        }
        self.in_flight.acknowledged(ack)
    }

    /// Whether a message of quality 2 is in the log and not released yet.
    pub(super) fn has_received(&self, id: PacketId) -> bool {
        self.received.contains(&id)
    }

    /// How many of those there are.
    pub(super) fn received_count(&self) -> usize {
        self.received.len()
    }

    /// A message of quality 2 is in the log, and `receiving` was stored with it.
    pub(super) fn received(&mut self, id: PacketId) {
        self.received.insert(id);
    }

    /// The client will not send that message again. Whether it was received.
    pub(super) fn released(&mut self, id: PacketId) -> bool {
        let known = self.received.remove(&id);
        if known {
            // From the answer on the client may use the id for another message.
            self.note(Key::Received(id), By::NextPacket);
        }
        known
    }

    /// Whether something has changed that is not stored.
    pub(super) fn has_unsaved(&self) -> bool {
        self.unsaved.as_ref().is_some_and(|unsaved| !unsaved.keys.is_empty())
    }

    /// Whether something has to be stored before the client is sent anything more.
    pub(super) fn is_due(&self) -> bool {
        self.unsaved.as_ref().is_some_and(|unsaved| unsaved.is_due)
    }

    /// All that `change` told of is stored.
    pub(super) fn saved(&mut self) {
        if let Some(unsaved) = &mut self.unsaved {
            **unsaved = Unsaved::default();
        }
    }

    /// It is not stored any more.
    pub(super) fn forgotten(&mut self) {
        self.unsaved = None;
    }

    fn note(&mut self, key: Key, by: By) {
        self.note_with(by, || key);
    }

    fn note_with(&mut self, by: By, key: impl FnOnce() -> Key) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.note(key(), by);
        }
    }
}
