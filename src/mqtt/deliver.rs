//! Sends messages to a client: unacknowledged messages of an earlier connection, retained messages of new
//! subscriptions, and new messages. Each is read from the log when there is room for it on the wire.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;
use tokio::time::Instant;

use super::Broker;
use super::codec::{
    Ack, AckKind, Delivery, MessageProperties, OutgoingPacket, PacketId, Reason, SubscriptionOptions,
};
use super::connection::{Connection, Ending, READY_MAX};
use super::groups::{Group, LEASE_MESSAGES_MAX};
use super::parts::FailedReads;
use super::session::{DeliveryPhase, GroupReader, InFlightMessage, Wanted};
use super::walks::{CatchUp, RetainedWalk, WalkStep};
use crate::stream::{
    ContentType, Gap, GapReason, Message, MessageLimit, Messages, Offset, QoS, ReadError, Start, StreamName,
};

/// Delivery steps between two checks for input. A step sends the messages of one stream, or one page of a
/// walk over many streams.
const STEPS_A_TURN: usize = 64;

/// Delay before streams are read again that could not be read.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// Puts messages for the client on the wire while there is room. Called when everything before has been
    /// written, so that a client that reads slowly costs no more than its offsets. Returns whether there may
    /// be more.
    pub(super) async fn fill(&mut self) -> Result<bool, Ending> {
        for _ in 0..STEPS_A_TURN {
            if !self.has_room() {
                return Ok(false);
            }
            consume_budget().await;
            if let Some(flight) = self.session.send_again() {
                self.send_again(flight).await;
                continue;
            }
            if self.send_next_retained().await {
                continue;
            }
            self.take_marks();
            if let Some(name) = self.next_ready() {
                self.send_new(name).await?;
            } else if !self.continue_catch_up().await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether there may be something to send. Otherwise [`fill`](Self::fill) has nothing to do.
    pub(super) fn may_send(&self) -> bool {
        self.pending.is_some() || self.session.has_to_send() || self.subscriber.has_changes()
    }

    fn next_ready(&mut self) -> Option<StreamName> {
        self.pending.as_mut()?.ready.pop_front()
    }

    fn has_room(&self) -> bool {
        self.wire.unwritten() < self.broker.limits.tail_bytes_max && self.vacancy() > 0
    }

    /// Takes marked streams without waiting, so that busy streams do not delay quiet ones.
    fn take_marks(&mut self) {
        if self.pending.as_ref().is_some_and(|pending| pending.ready.len() >= READY_MAX) {
            return;
        }
        for name in self.subscriber.take_changed(READY_MAX) {
            let ready = &mut self.pending().ready;
            if !ready.contains(&name) {
                ready.push_back(name);
            }
        }
        if self.subscriber.take_overflow() {
            self.pending().catch_up = Some(CatchUp::of(&self.session));
        }
    }

    /// Visits the next page of streams that may have changed without a mark. Returns whether a catch-up is in
    /// progress.
    async fn continue_catch_up(&mut self) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        let Some(catch_up) = &mut pending.catch_up else { return false };
        match catch_up.next(&self.broker.hub, &mut self.session).await {
            Some(changed) => pending.ready.extend(changed),
            None => pending.catch_up = None,
        }
        true
    }

    /// Sends the next messages of a stream.
    async fn send_new(&mut self, name: StreamName) -> Result<(), Ending> {
        if !self.session.shared().is_empty() && name.topic().is_some() {
            self.send_for_groups(&name).await?;
            if self.vacancy() == 0 {
                self.pending().ready.push_back(name);
                return Ok(());
            }
        }
        let Some(wanted) = self.session.subscriptions().wanted(&name) else { return Ok(()) };
        if name.topic().is_none() {
            // No topic has this name, so clients cannot be sent its messages.
            return Ok(());
        }
        let offset = self.session.offset(&name);
        let limit =
            MessageLimit { bytes_max: self.broker.limits.tail_bytes_max, count_max: self.vacancy().max(1) };
        match self.broker.hub.messages(&name, offset, limit).await {
            Ok(batch) => {
                self.trace(&name, &batch);
                for message in &batch.messages {
                    self.send(&name, message, &wanted, (false, None), Some(&batch.content_type));
                }
                self.move_offset(name.clone(), batch.next)?;
                if !batch.up_to_date {
                    self.pending().ready.push_back(name);
                }
            }
            Err(ReadError::Gap(gap)) => {
                self.missed(&gap);
                self.move_offset(name.clone(), gap.earliest)?;
                self.pending().ready.push_back(name);
            }
            Err(ReadError::BehindTail) => {
                self.session.forget_offset(&name);
                self.pending().ready.push_back(name);
            }
            Err(ReadError::Missing(_)) => self.session.forget_offset(&name),
            // Skipping what cannot be read would lose it silently.
            Err(ReadError::Failed(error)) => {
                tracing::error!(stream = %name, %error, "cannot read a stream for an MQTT client; will retry");
                self.retry_later(name);
            }
        }
        Ok(())
    }

    /// Sends the next messages of a stream that the groups of the session may send to this client.
    async fn send_for_groups(&mut self, name: &StreamName) -> Result<(), Ending> {
        for GroupReader { group, member, options } in self.session.groups_of(name) {
            let vacancy = self.vacancy();
            if vacancy == 0 {
                return Ok(());
            }
            let streams = group.len();
            let Some(start) = group.lease(name, member) else { continue };
            let limit = MessageLimit {
                bytes_max: self.broker.limits.tail_bytes_max,
                count_max: vacancy.min(LEASE_MESSAGES_MAX),
            };
            match self.broker.hub.messages(name, start, limit).await {
                Ok(batch) => {
                    self.trace(name, &batch);
                    let (wanted, mut unacknowledged) = (Wanted::by(options), Vec::new());
                    for message in &batch.messages {
                        if group.passes_over(name, message.start) {
                            continue;
                        }
                        let shared = (false, Some(&group));
                        if self.send(name, message, &wanted, shared, Some(&batch.content_type)) {
                            unacknowledged.push(message.start);
                        }
                    }
                    group.sent(name, batch.next, unacknowledged, batch.up_to_date);
                }
                Err(ReadError::Gap(gap)) => {
                    self.missed(&gap);
                    group.not_sent(name, Some(Start::At(gap.earliest)));
                    self.pending().ready.push_back(name.clone());
                }
                Err(ReadError::BehindTail) => {
                    group.not_sent(name, None);
                    self.pending().ready.push_back(name.clone());
                }
                Err(ReadError::Missing(_)) => group.not_sent(name, None),
                Err(ReadError::Failed(error)) => {
                    group.not_sent(name, Some(start));
                    tracing::error!(stream = %name, %error, "cannot read a stream for an MQTT client; will retry");
                    self.retry_later(name.clone());
                }
            }
            if group.len() > streams {
                self.charge().map_err(Ending::ByGateway)?;
            }
        }
        Ok(())
    }

    /// Records the deliveries of traced messages.
    fn trace(&self, name: &StreamName, batch: &Messages) {
        if let Some(first) = batch.messages.first() {
            let (from, to) = (first.start.position, batch.next.position);
            self.broker.hub.trace_delivery("mqtt", name, from, to);
        }
    }

    /// Reads a stream again after a while, because it could not be read.
    fn retry_later(&mut self, name: StreamName) {
        let failed = self.pending().failed.get_or_insert_with(|| FailedReads {
            streams: BTreeSet::new(),
            retry_at: Instant::now() + RETRY_DELAY,
        });
        failed.streams.insert(name);
    }

    fn move_offset(&mut self, name: StreamName, offset: Offset) -> Result<(), Ending> {
        let count = self.session.offset_count();
        self.session.set_offset(name, offset);
        if self.session.offset_count() > count { self.charge().map_err(Ending::ByGateway) } else { Ok(()) }
    }

    fn missed(&self, gap: &Gap) {
        match gap.reason {
            GapReason::Trimmed { missed } | GapReason::Damaged { missed } => {
                self.broker.metrics.missed.inc_by(missed)
            }
            GapReason::Epoch => self.broker.metrics.epochs_changed.inc(),
        };
    }

    /// Sends the next retained message of a new subscription, or visits the next page of streams for it.
    /// Returns whether there was anything to do.
    async fn send_next_retained(&mut self) -> bool {
        let begun = self.pending.as_mut().and_then(|pending| pending.retained.take());
        let Some(mut walk) = begun.or_else(|| RetainedWalk::of(&self.session)) else { return false };
        match walk.next(&self.broker.hub).await {
            WalkStep::Stream(stream) => {
                self.send_retained(&stream, walk.options).await;
                self.session.pass_retained(&walk.filter, stream);
            }
            WalkStep::Searched => {}
            WalkStep::Over => {
                self.session.end_retained(&walk.filter);
                return true;
            }
        }
        self.pending().retained = Some(walk);
        true
    }

    /// Begins the walk for retained messages anew, since subscriptions have changed.
    pub(super) fn restart_retained(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.retained = None);
    }

    async fn send_retained(&mut self, stream: &StreamName, options: SubscriptionOptions) {
        if stream.topic().is_none() {
            return;
        }
        let Ok(Some(message)) = self.broker.hub.retained(stream).await else { return };
        // No new messages are sent before this, so the offset is at the start of the subscription or before
        // it.
        let comes_anyway = match self.session.offset(stream) {
            Start::At(offset) => offset <= message.start,
            Start::Earliest => true,
            Start::Tail => false,
        };
        if !comes_anyway {
            self.send(stream, &message, &Wanted::by(options), (true, None), None);
        }
    }

    /// Sends an unacknowledged message again, or the PUBREL that the client may not have received.
    async fn send_again(&mut self, flight: InFlightMessage) {
        if flight.phase == DeliveryPhase::Received {
            let ack = Ack { kind: AckKind::Pubrel, id: flight.id, reason: Reason::Success };
            self.wire.put(&OutgoingPacket::Ack(ack));
            return;
        }
        let Some((message, content_type)) = self.broker.find(&flight).await else {
            self.broker.metrics.missed.inc();
            return self.session.give_up(flight.id);
        };
        let wanted = self.session.subscriptions().wanted(&flight.stream);
        let identifiers =
            wanted.and_then(|wanted| wanted.delivery_options(false)).map(|options| options.identifiers);
        let properties = self.properties(&message, content_type.as_ref());
        let taken = self.put(
            &flight.stream,
            &message,
            (flight.qos, Some(flight.id)),
            (true, flight.retain),
            &properties,
            &identifiers.unwrap_or_default(),
        );
        if taken {
            self.broker.metrics.sent_again.inc();
        } else {
            self.session.give_up(flight.id);
        }
    }

    /// Sends a message with the options of its subscriptions. A message that has expired, or is too large for
    /// the client, counts as sent (MQTT 5, sections 3.3.2.3.3 and 3.1.2.11.4). Returns whether the client will
    /// acknowledge it, to the group that it belongs to, if there is one.
    fn send(
        &mut self,
        name: &StreamName,
        message: &Message,
        wanted: &Wanted,
        (retained, group): (bool, Option<&Arc<Group>>),
        content_type: Option<&ContentType>,
    ) -> bool {
        let annotation = message.annotation.as_deref();
        let own = annotation.is_some_and(|annotation| *annotation.publisher == *self.session.client);
        let Some(options) = wanted.delivery_options(own) else { return false };
        let expires_at = annotation.and_then(|annotation| annotation.expires_at);
        if expires_at.is_some_and(|at| at <= self.broker.clock.now()) {
            self.broker.metrics.expired.inc();
            return false;
        }
        // An HTTP append has no QoS; it counts as exactly once, since it is in the log.
        let published = annotation.map_or(QoS::ExactlyOnce, |annotation| annotation.qos);
        let qos = published.min(options.qos);
        let retain = retained
            || (options.retain_as_published && annotation.is_some_and(|annotation| annotation.retain));
        let id = (qos > QoS::AtMostOnce).then(|| self.session.send(name.clone(), message.start, qos, retain));
        let properties = self.properties(message, content_type);
        if self.put(name, message, (qos, id), (false, retain), &properties, &options.identifiers) {
            self.broker.metrics.delivered(qos as u8);
            self.subscriber.delivered(1);
            if let (Some(id), Some(group)) = (id, group) {
                self.session.sent_for(group, id, name, message.start);
            }
            return id.is_some();
        }
        id.into_iter().for_each(|id| self.session.give_up(id));
        false
    }

    /// Returns the properties of a message. The content type of the stream is used if the message has none.
    fn properties(&self, message: &Message, content_type: Option<&ContentType>) -> MessageProperties {
        let mut properties = match &message.annotation {
            Some(annotation) => MessageProperties::from_annotation(annotation, self.broker.clock.now()),
            None => MessageProperties::default(),
        };
        if properties.content_type.is_none() {
            let known = content_type.filter(|known| **known != ContentType::octet_stream());
            properties.content_type = known.map(|known| known.as_str().into());
        }
        properties
    }

    /// Puts a message on the wire. Returns false if the client does not accept a packet of that size.
    fn put(
        &mut self,
        topic: &StreamName,
        message: &Message,
        (qos, id): (QoS, Option<PacketId>),
        (duplicate, retain): (bool, bool),
        properties: &MessageProperties,
        identifiers: &[u32],
    ) -> bool {
        let Some(text) = topic.topic() else { return false };
        let alias = self.alias(topic);
        let delivery = Delivery {
            topic: &text,
            alias,
            payload: &message.bytes,
            id,
            qos,
            duplicate,
            retain,
            properties,
            identifiers,
        };
        let taken = self.wire.put(&OutgoingPacket::Publish(delivery));
        if !taken {
            self.broker.metrics.too_large.inc();
        } else if let Some((alias, false)) = alias {
            self.extras.get_or_insert_default().aliases.sent.insert(topic.clone(), alias);
        }
        taken
    }

    /// Returns the alias of a topic, and whether the client knows it. The first topics get the available
    /// aliases.
    fn alias(&self, topic: &StreamName) -> Option<(NonZeroU16, bool)> {
        let last = self.negotiated.last_alias?;
        let sent = self.extras.as_ref().map(|extras| &extras.aliases.sent);
        if let Some(alias) = sent.and_then(|sent| sent.get(topic)) {
            return Some((*alias, true));
        }
        let next = u16::try_from(sent.map_or(0, HashMap::len) + 1).ok().and_then(NonZeroU16::new)?;
        (next <= last).then_some((next, false))
    }
}

impl Broker {
    /// Reads an unacknowledged message again from the log, or the retained message if the log no longer has
    /// it.
    async fn find(&self, flight: &InFlightMessage) -> Option<(Message, Option<ContentType>)> {
        let limit = MessageLimit { bytes_max: 0, count_max: 1 };
        let read = self.hub.messages(&flight.stream, Start::At(flight.start), limit).await;
        if let Ok(batch) = read {
            let content_type = Some(batch.content_type);
            return batch.messages.into_iter().next().map(|message| (message, content_type));
        }
        let retained = self.hub.retained(&flight.stream).await.ok().flatten();
        retained.filter(|message| message.start == flight.start).map(|message| (message, None))
    }
}
