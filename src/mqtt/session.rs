//! [`Session`]: the state kept for a client, without IO and clock: its subscriptions, an offset for each
//! stream, and the messages in flight in either direction.
//!
//! There is no queue of messages. Messages that the client has not been sent lie in the logs behind its
//! offsets, so a session costs the same whether its client is one message or a million behind. Nor is there a
//! queue of retained messages: a new subscription keeps the name of the stream up to which they have been
//! sent, in the order of names.
//!
//! A session that outlives its connection is also stored, if the store outlives the process. The stored state
//! is the session as it was at one moment, except that offsets may be stored before the subscription that
//! they belong to. Each change has a [`Deadline`], which says whether it must be stored before the client is
//! sent anything more.

mod in_flight;
mod membership;
mod offsets;
mod shared;
mod stored;
mod subscriptions;
#[cfg(test)]
mod tests;
mod unsaved;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::codec::{Ack, AckKind, Breach, PacketId, SubscriptionOptions};
use crate::stream::{Filter, FilterMap, Offset, QoS, Start, StreamName};

use in_flight::InFlight;
use offsets::Offsets;
use shared::{SharedSubscription, SharedSubscriptions};
use unsaved::{Deadline, SessionKey, Unsaved};

pub(super) use in_flight::{DeliveryPhase, InFlightMessage};
pub(super) use shared::GroupReader;
pub(super) use stored::{Presence, RestoredSession};
pub(super) use subscriptions::{Subscriptions, Wanted};

/// A session (MQTT 5, section 4.1).
#[derive(Debug)]
pub(super) struct Session {
    /// The client id.
    pub(super) client: Arc<str>,
    subscriptions: Subscriptions,
    /// `None`: the session has none of it, like most sessions of idle clients.
    seldom: Option<Box<SeldomState>>,
    /// Number of the last message in flight while there is no `seldom`.
    last_number: u64,
    /// Next offset to send, per stream. A stream without an offset was created after its subscription.
    offsets: Offsets,
    /// Bytes of the names in `offsets` beyond [`OFFSET_NAME_BYTES`] each.
    long_name_bytes: usize,
    /// Changes that are not stored yet. `None`: the session is not stored, since it ends with its connection,
    /// or the store does not outlive the process.
    unsaved: Option<Box<Unsaved>>,
}

/// The parts of a session that are empty while its client is idle and has no shared subscription.
#[derive(Debug, Default)]
struct SeldomState {
    shared: SharedSubscriptions,
    /// Messages sent to the client and not yet acknowledged.
    in_flight: InFlight,
    /// Received messages of QoS 2 that are in the log and that the client has not released yet.
    received: HashSet<PacketId>,
    /// New subscriptions that still have to receive retained messages, each with the stream after which this
    /// continues.
    retained: BTreeMap<Filter, Option<StreamName>>,
}

/// Estimated memory of a session without subscriptions, offsets and will, in bytes.
const SESSION_BYTES: usize = 1024;

/// Maximum memory of an offset that is not stored, in bytes.
const OFFSET_BYTES: usize = 80;
/// Maximum memory of a stored offset, in the session and in the table of the store, in bytes.
const STORED_OFFSET_BYTES: usize = 240;

/// Length of the names that the memory of an offset includes, in bytes.
const OFFSET_NAME_BYTES: usize = 64;

/// Bytes of a name that the memory of an offset does not include.
pub(super) fn long_name_bytes(name: &StreamName) -> usize {
    name.as_str().len().saturating_sub(OFFSET_NAME_BYTES)
}

impl Session {
    /// Creates a session of `client` without subscriptions.
    pub(super) fn new(client: Arc<str>, is_stored: bool) -> Self {
        Self {
            client,
            subscriptions: Subscriptions::default(),
            seldom: None,
            last_number: 0,
            offsets: Offsets::default(),
            long_name_bytes: 0,
            unsaved: is_stored.then(|| Box::new(Unsaved { is_new: true, ..Unsaved::default() })),
        }
    }

    fn seldom_mut(&mut self) -> &mut SeldomState {
        let last = self.last_number;
        self.seldom.get_or_insert_with(|| {
            Box::new(SeldomState { in_flight: InFlight::after(last), ..SeldomState::default() })
        })
    }

    /// Frees what is empty. Called before the connection waits.
    pub(super) fn shrink(&mut self) {
        let unused = self.seldom.take_if(|seldom| {
            let SeldomState { shared, in_flight, received, retained } = &**seldom;
            shared.is_empty() && in_flight.is_empty() && received.is_empty() && retained.is_empty()
        });
        if let Some(unused) = unused {
            self.last_number = unused.in_flight.last();
        }
    }

    /// The shared subscriptions.
    pub(super) fn shared(&self) -> &[SharedSubscription] {
        self.seldom.as_ref().map_or(&[], |seldom| &seldom.shared.all)
    }

    fn shared_mut(&mut self) -> &mut [SharedSubscription] {
        self.seldom.as_mut().map_or(&mut [], |seldom| &mut seldom.shared.all)
    }

    /// The messages sent to the client and not yet acknowledged, oldest first.
    fn flights(&self) -> impl Iterator<Item = &InFlightMessage> {
        self.seldom.iter().flat_map(|seldom| seldom.in_flight.iter())
    }

    fn flight(&self, id: PacketId) -> Option<&InFlightMessage> {
        self.seldom.as_ref()?.in_flight.get(id)
    }

    /// Returns the subscriptions.
    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Adds a subscription, or replaces the options of the same filter. Returns whether it is new.
    pub(super) fn subscribe(&mut self, filter: Filter, options: SubscriptionOptions) -> bool {
        self.note(SessionKey::Subscription(filter.clone()), Deadline::NextPacket);
        self.subscriptions.put(filter, options)
    }

    /// Marks a subscription as begun: all streams that existed before it have offsets now.
    pub(super) fn begin(&mut self, filter: &Filter) {
        self.subscriptions.begin(filter);
    }

    /// Ends a subscription. Returns whether it existed. Messages in flight are still delivered. The caller
    /// forgets the offsets that no other subscription needs (see [`is_over`](Self::is_over)).
    pub(super) fn unsubscribe(&mut self, filter: &Filter) -> bool {
        let existed = self.subscriptions.remove(filter);
        if existed {
            self.note(SessionKey::Subscription(filter.clone()), Deadline::NextPacket);
            self.end_retained(filter);
        }
        existed
    }

    /// Whether no subscription matches a stream any more since the subscriptions `ended` have ended.
    pub(super) fn is_over(&self, name: &StreamName, ended: &FilterMap<()>) -> bool {
        ended.matches(name) && !self.subscriptions.want(name)
    }

    /// Returns the streams with an offset.
    pub(super) fn streams(&self) -> impl Iterator<Item = &StreamName> {
        self.offsets.streams()
    }

    /// Returns the number of offsets.
    pub(super) fn offset_count(&self) -> usize {
        self.offsets.len()
    }

    /// Returns the maximum memory of the session in bytes, without the ids of received messages.
    pub(super) fn bytes(&self) -> usize {
        let offset_bytes = if self.unsaved.is_some() { STORED_OFFSET_BYTES } else { OFFSET_BYTES };
        let offsets = offset_bytes * self.offsets.len() + self.long_name_bytes;
        let shared = self
            .seldom
            .as_ref()
            .map_or(0, |seldom| seldom.shared.bytes() + offset_bytes * seldom.shared.offset_count());
        SESSION_BYTES + self.client.len() + self.subscriptions.bytes() + shared + offsets
    }

    /// Returns the start of the next read of a stream.
    pub(super) fn offset(&self, name: &StreamName) -> Start {
        self.offsets.get(name).map_or(Start::Earliest, |offset| Start::At(*offset))
    }

    /// Returns the position before the first message of a stream that the client has not been sent, or has not acknowledged.
    /// `None`: the client has not subscribed to it.
    pub(super) fn read_up_to(&self, name: &StreamName) -> Option<Start> {
        let mut flights = self.flights().filter(|flight| flight.stream == *name);
        let unacknowledged = flights.next().map(|flight| Start::At(flight.start));
        unacknowledged.or_else(|| self.subscriptions.want(name).then(|| self.offset(name)))
    }

    /// Whether a stream has an offset: it existed when it was subscribed to, or has been sent since.
    pub(super) fn has_offset(&self, name: &StreamName) -> bool {
        self.offsets.get(name).is_some()
    }

    /// Sets the offset up to which a stream has been sent.
    pub(super) fn set_offset(&mut self, name: StreamName, offset: Offset) {
        if self.offsets.get(&name) != Some(&offset) {
            self.note_with(Deadline::SomeTime, || SessionKey::Offset(name.clone()));
            let excess = long_name_bytes(&name);
            if self.offsets.insert(name, offset).is_none() {
                self.long_name_bytes += excess;
            }
        }
    }

    /// Forgets the offset of a stream that no longer exists. A new stream of that name is sent from its
    /// start.
    pub(super) fn forget_offset(&mut self, name: &StreamName) {
        if self.offsets.remove(name).is_some() {
            self.long_name_bytes -= long_name_bytes(name);
            self.note_with(Deadline::SomeTime, || SessionKey::Offset(name.clone()));
        }
    }

    /// Starts to send retained messages to a subscription, from the first stream on.
    pub(super) fn begin_retained(&mut self, filter: Filter) {
        self.note(SessionKey::Retained(filter.clone()), Deadline::NextPacket);
        self.seldom_mut().retained.insert(filter, None);
    }

    /// Returns a subscription that still has to receive retained messages, and the stream after which this
    /// continues.
    pub(super) fn next_retained(&self) -> Option<(&Filter, Option<&StreamName>)> {
        let (filter, after) = self.seldom.as_ref()?.retained.first_key_value()?;
        Some((filter, after.as_ref()))
    }

    /// Records that a subscription has received retained messages up to `stream`.
    pub(super) fn pass_retained(&mut self, filter: &Filter, stream: StreamName) {
        let seldom = self.seldom.as_mut();
        if let Some(after) = seldom.and_then(|seldom| seldom.retained.get_mut(filter)) {
            *after = Some(stream);
            self.note_with(Deadline::SomeTime, || SessionKey::Retained(filter.clone()));
        }
    }

    /// Stops sending retained messages to a subscription.
    pub(super) fn end_retained(&mut self, filter: &Filter) {
        let Some(seldom) = &mut self.seldom else { return };
        if seldom.retained.remove(filter).is_some() {
            if seldom.retained.is_empty() {
                // An emptied tree keeps its root, which has room for eleven filters.
                seldom.retained = BTreeMap::new();
            }
            self.note_with(Deadline::SomeTime, || SessionKey::Retained(filter.clone()));
        }
    }

    /// Starts a new connection: no message in flight has been sent on it yet.
    pub(super) fn reconnected(&mut self) {
        self.seldom.iter_mut().for_each(|seldom| seldom.in_flight.reconnected());
    }

    /// Whether retained messages, or unacknowledged ones of an earlier connection, are to be sent.
    pub(super) fn has_to_send(&self) -> bool {
        let has_to_send = |seldom: &SeldomState| !seldom.retained.is_empty() || seldom.in_flight.has_unsent();
        self.seldom.as_deref().is_some_and(has_to_send)
    }

    /// Returns the number of further messages that may be sent if the client accepts `max` in flight.
    pub(super) fn vacancy(&self, max: usize) -> usize {
        self.seldom.as_ref().map_or(max, |seldom| seldom.in_flight.vacancy(max))
    }

    /// Returns the oldest message that must be sent again, and counts it as sent.
    pub(super) fn send_again(&mut self) -> Option<InFlightMessage> {
        self.seldom.as_mut()?.in_flight.send_again()
    }

    /// Adds a message to those in flight, and returns its new packet id.
    pub(super) fn send(&mut self, stream: StreamName, start: Offset, qos: QoS, retain: bool) -> PacketId {
        let id = self.seldom_mut().in_flight.send(stream, start, qos, retain);
        // Resent with another id, a message of QoS 2 would be a new message for the client.
        self.note(
            SessionKey::InFlightMessage(id),
            if qos == QoS::ExactlyOnce { Deadline::NextPacket } else { Deadline::SomeTime },
        );
        id
    }

    /// Drops a message that cannot be sent: it is no longer kept, or too large for the client.
    pub(super) fn give_up(&mut self, id: PacketId) {
        if let Some(seldom) = &mut self.seldom {
            seldom.in_flight.give_up(id);
            seldom.shared.is_done(id);
        }
        self.note(SessionKey::InFlightMessage(id), Deadline::SomeTime);
    }

    /// Handles an acknowledgement of the client, and returns the response to it.
    pub(super) fn acknowledged(&mut self, ack: Ack) -> Result<Option<Ack>, Breach> {
        if self.unsaved.is_some() && self.flight(ack.id).is_some() {
            // After PUBREL the client forgets the id, so the message must never be sent with it again.
            self.note(
                SessionKey::InFlightMessage(ack.id),
                if ack.kind == AckKind::Pubrec { Deadline::NextPacket } else { Deadline::SomeTime },
            );
        }
        let SeldomState { in_flight, shared, .. } = self.seldom_mut();
        let response = in_flight.acknowledged(ack)?;
        if in_flight.get(ack.id).is_none() {
            shared.is_done(ack.id);
        }
        Ok(response)
    }

    /// Whether a received message of QoS 2 is in the log and not released yet.
    pub(super) fn has_received(&self, id: PacketId) -> bool {
        self.seldom.as_ref().is_some_and(|seldom| seldom.received.contains(&id))
    }

    /// Returns the number of received messages of QoS 2 that are not released yet.
    pub(super) fn received_count(&self) -> usize {
        self.seldom.as_ref().map_or(0, |seldom| seldom.received.len())
    }

    /// Records a received message of QoS 2 that is in the log. The change [`receiving`](Self::receiving) was
    /// stored with it.
    pub(super) fn received(&mut self, id: PacketId) {
        self.seldom_mut().received.insert(id);
    }

    /// Releases a received message of QoS 2, which the client will not send again. Returns whether it was
    /// known.
    pub(super) fn released(&mut self, id: PacketId) -> bool {
        let known = self.seldom.as_mut().is_some_and(|seldom| seldom.received.remove(&id));
        if known {
            // After the response the client may use the id for another message.
            self.note(SessionKey::Received(id), Deadline::NextPacket);
        }
        known
    }

    /// Whether the session is stored.
    pub(super) fn is_stored(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Whether there are changes that are not stored.
    pub(super) fn has_unsaved(&self) -> bool {
        self.unsaved.as_ref().is_some_and(|unsaved| !unsaved.keys.is_empty())
    }

    /// Whether a change must be stored before the client is sent anything more.
    pub(super) fn is_due(&self) -> bool {
        self.unsaved.as_ref().is_some_and(|unsaved| unsaved.is_due)
    }

    /// Records that everything that [`change`](Self::change) returned is stored.
    pub(super) fn saved(&mut self) {
        if let Some(unsaved) = &mut self.unsaved {
            **unsaved = Unsaved::default();
        }
    }

    /// Records that the session is no longer stored.
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
