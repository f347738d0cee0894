//! What is remembered of a client, without IO and without a clock: its subscriptions, how far it has been sent each
//! stream, and what is on its way in either direction.
//!
//! There is no queue of messages. What a client has not been sent lies in the logs behind its offsets, so a session
//! costs the same whether its client is a message or a million behind. Nor is there a queue of retained messages: a new
//! subscription is a place in the order of the streams, up to which the client was sent what is retained.
//!
//! A session that outlives its connection is also stored, if the store outlives the process. What is stored is the session as
//! it was at one moment, except that offsets may be stored before the subscription that they belong to; each change says
//! whether that moment must come before the client is sent anything more.

mod in_flight;
mod stored;
mod subscriptions;
#[cfg(test)]
mod tests;
mod unsaved;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::codec::{Ack, AckKind, PacketId, SubscriptionOptions};
use crate::stream::{Filter, FilterMap, Offset, QoS, Start, StreamName};

use in_flight::InFlight;
use unsaved::{Deadline, SessionKey, Unsaved};

pub(super) use in_flight::{DeliveryPhase, Flight};
pub(super) use stored::{Presence, RestoredSession};
pub(super) use subscriptions::{Subscriptions, Wanted};

/// A session of MQTT 5, section 4.1.
#[derive(Debug)]
pub(super) struct Session {
    /// The id of its client.
    pub(super) client: Arc<str>,
    subscriptions: Subscriptions,
    /// What the client was sent and has not acknowledged.
    in_flight: InFlight,
    /// Messages of QoS 2 that are in the log, and that the client has not released yet.
    received: HashSet<PacketId>,
    /// New subscriptions that are still to be sent what is retained: each with the stream behind which it goes on.
    retained: BTreeMap<Filter, Option<StreamName>>,
    /// Behind what each stream was sent. A stream without one has come after its subscription.
    offsets: HashMap<StreamName, Offset>,
    /// What the store does not have yet. `None`: the session is not stored, since it ends with its connection or the
    /// store with the process.
    unsaved: Option<Box<Unsaved>>,
}

/// What a session takes besides its subscriptions and offsets, and besides a will, in bytes.
const SESSION_BYTES: usize = 1024;

/// What an offset takes at the most, in bytes: in the session, and in the table of the store if it is stored.
const OFFSET_BYTES: usize = 80;
const STORED_OFFSET_BYTES: usize = 240;

impl Session {
    /// A new session of `client`.
    pub(super) fn new(client: Arc<str>, is_stored: bool) -> Self {
        Self {
            client,
            subscriptions: Subscriptions::default(),
            in_flight: InFlight::default(),
            received: HashSet::new(),
            retained: BTreeMap::new(),
            offsets: HashMap::new(),
            unsaved: is_stored.then(|| Box::new(Unsaved { is_new: true, ..Unsaved::default() })),
        }
    }

    /// Which streams the client wants.
    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Adds a subscription or replaces the one of the same filter. Whether it is new.
    pub(super) fn subscribe(&mut self, filter: Filter, options: SubscriptionOptions) -> bool {
        self.note(SessionKey::Subscription(filter.clone()), Deadline::NextPacket);
        self.subscriptions.put(filter, options)
    }

    /// The streams that were there before a subscription have offsets.
    pub(super) fn begin(&mut self, filter: &Filter) {
        self.subscriptions.begin(filter);
    }

    /// Ends a subscription. Whether there was one. What is on its way still arrives. The offsets that only this subscription
    /// needed are [`over`](Self::is_over).
    pub(super) fn unsubscribe(&mut self, filter: &Filter) -> bool {
        let existed = self.subscriptions.remove(filter);
        if existed {
            self.note(SessionKey::Subscription(filter.clone()), Deadline::NextPacket);
            self.end_retained(filter);
        }
        existed
    }

    /// Whether a stream is not wanted any more since the subscriptions `ended` have ended.
    pub(super) fn is_over(&self, name: &StreamName, ended: &FilterMap<()>) -> bool {
        ended.matches(name) && !self.subscriptions.want(name)
    }

    /// The streams with an offset.
    pub(super) fn streams(&self) -> impl Iterator<Item = &StreamName> {
        self.offsets.keys()
    }

    /// How many offsets there are.
    pub(super) fn offset_count(&self) -> usize {
        self.offsets.len()
    }

    /// What the session takes at the most, in bytes, but for the ids of received messages.
    pub(super) fn bytes(&self) -> usize {
        let offset_bytes = if self.unsaved.is_some() { STORED_OFFSET_BYTES } else { OFFSET_BYTES };
        SESSION_BYTES + self.subscriptions.bytes() + offset_bytes * self.offsets.len()
    }

    /// From where a stream is sent next.
    pub(super) fn offset(&self, name: &StreamName) -> Start {
        self.offsets.get(name).map_or(Start::Earliest, |offset| Start::At(*offset))
    }

    /// Whether a stream was there when it was subscribed to, or has been sent since.
    pub(super) fn has_offset(&self, name: &StreamName) -> bool {
        self.offsets.contains_key(name)
    }

    /// The stream was sent up to there.
    pub(super) fn set_offset(&mut self, name: StreamName, offset: Offset) {
        if self.offsets.get(&name) != Some(&offset) {
            self.note_with(Deadline::SomeTime, || SessionKey::Offset(name.clone()));
            self.offsets.insert(name, offset);
        }
    }

    /// The stream is no more; should one of its name come, it is sent from its beginning.
    pub(super) fn forget_offset(&mut self, name: &StreamName) {
        if self.offsets.remove(name).is_some() {
            self.note_with(Deadline::SomeTime, || SessionKey::Offset(name.clone()));
        }
        if self.offsets.is_empty() {
            self.offsets = HashMap::new();
        }
    }

    /// Has a subscription be sent what is retained, from the first stream on.
    pub(super) fn begin_retained(&mut self, filter: Filter) {
        self.note(SessionKey::Retained(filter.clone()), Deadline::NextPacket);
        self.retained.insert(filter, None);
    }

    /// A subscription that is still to be sent what is retained, and the stream behind which it goes on.
    pub(super) fn next_retained(&self) -> Option<(&Filter, Option<&StreamName>)> {
        self.retained.first_key_value().map(|(filter, after)| (filter, after.as_ref()))
    }

    /// A subscription was sent what is retained, up to that stream.
    pub(super) fn pass_retained(&mut self, filter: &Filter, stream: StreamName) {
        if let Some(after) = self.retained.get_mut(filter) {
            *after = Some(stream);
            self.note_with(Deadline::SomeTime, || SessionKey::Retained(filter.clone()));
        }
    }

    /// A subscription is not to be sent anything more of what is retained.
    pub(super) fn end_retained(&mut self, filter: &Filter) {
        if self.retained.remove(filter).is_some() {
            self.note_with(Deadline::SomeTime, || SessionKey::Retained(filter.clone()));
        }
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
    pub(super) fn send(&mut self, stream: StreamName, start: Offset, qos: QoS, retain: bool) -> PacketId {
        let id = self.in_flight.send(stream, start, qos, retain);
        // Sent again under another id, a message of QoS 2 would be another message to the client.
        self.note(
            SessionKey::Flight(id),
            if qos == QoS::ExactlyOnce { Deadline::NextPacket } else { Deadline::SomeTime },
        );
        id
    }

    /// Gives a message up that can not be sent: it is not kept any more, or too large for the client.
    pub(super) fn give_up(&mut self, id: PacketId) {
        self.in_flight.give_up(id);
        self.note(SessionKey::Flight(id), Deadline::SomeTime);
    }

    /// Takes an acknowledgement of the client, and returns what it is to be answered.
    pub(super) fn acknowledged(&mut self, ack: Ack) -> Option<Ack> {
        if self.unsaved.is_some() && self.in_flight.get(ack.id).is_some() {
            // Once the client is told to forget the id, the message must never come under it again.
            self.note(
                SessionKey::Flight(ack.id),
                if ack.kind == AckKind::Pubrec { Deadline::NextPacket } else { Deadline::SomeTime },
            );
        }
        self.in_flight.acknowledged(ack)
    }

    /// Whether a message of QoS 2 is in the log and not released yet.
    pub(super) fn has_received(&self, id: PacketId) -> bool {
        self.received.contains(&id)
    }

    /// How many of those there are.
    pub(super) fn received_count(&self) -> usize {
        self.received.len()
    }

    /// A message of QoS 2 is in the log, and `receiving` was stored with it.
    pub(super) fn received(&mut self, id: PacketId) {
        self.received.insert(id);
    }

    /// The client will not send that message again. Whether it was received.
    pub(super) fn released(&mut self, id: PacketId) -> bool {
        let known = self.received.remove(&id);
        if known {
            // From the answer on the client may use the id for another message.
            self.note(SessionKey::Received(id), Deadline::NextPacket);
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

    fn note(&mut self, key: SessionKey, by: Deadline) {
        self.note_with(by, || key);
    }

    fn note_with(&mut self, by: Deadline, key: impl FnOnce() -> SessionKey) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.note(key(), by);
        }
    }
}
