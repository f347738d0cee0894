//! Handles the packets of a connected client.

use std::num::NonZeroU16;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;

use super::codec::{
    Ack, AckKind, Disconnect, Incoming, OutgoingPacket, PacketId, Publish, Reason, RetainHandling, Subscribe,
    SubscriptionOptions, Unsubscribe, Version,
};
use super::connection::{Connection, Ending};
use super::publish::{self, Publication};
use crate::hub::StreamWalk;
use crate::stream::{Filter, FilterMap, QoS, StreamName};

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// Handles a packet, and queues the response.
    pub(super) async fn dispatch(&mut self, packet: Incoming) -> Result<(), Ending> {
        match packet {
            Incoming::Publish(publish) => self.publish(*publish).await?,
            Incoming::Ack(ack) if ack.kind == AckKind::Pubrel => self.released(ack.id),
            Incoming::Ack(ack) => {
                if let Some(answer) = self.session.acknowledged(ack) {
                    self.wire.put(&OutgoingPacket::Ack(answer));
                }
            }
            Incoming::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Incoming::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe).await,
            Incoming::Pingreq => {
                self.wire.put(&OutgoingPacket::Pingresp);
            }
            Incoming::Disconnect(disconnect) => return Err(self.left(disconnect)),
            Incoming::Connect(_) => return Err(Ending::ByGateway(Reason::ProtocolError)),
        }
        Ok(())
    }

    /// Handles SUBSCRIBE. A filter that occurs twice counts once, with its last options. Matching streams are
    /// sent from their current tails on.
    pub(super) async fn subscribe(&mut self, Subscribe { id, filters }: Subscribe) {
        self.retained = None;
        let (mut granted, mut new) = (Vec::with_capacity(filters.len()), FilterMap::default());
        for (filter, options) in &filters {
            consume_budget().await;
            granted.push(match filter {
                Ok(filter) => self.add(filter, *options, &mut new),
                Err(reason) => Err(*reason),
            });
        }
        if let Err(reason) = self.begin(&new).await {
            self.end_subscriptions(&new).await;
            for ((filter, _), granted) in filters.iter().zip(&mut granted) {
                consume_budget().await;
                if filter.as_ref().is_ok_and(|filter| new.get(filter).is_some()) {
                    *granted = Err(reason);
                }
            }
        }
        self.wire.put(&OutgoingPacket::Suback(id, granted));
    }

    /// Adds a subscription, and adds it to `new` if it is new; otherwise replaces its options.
    fn add(
        &mut self,
        filter: &Filter,
        options: SubscriptionOptions,
        new: &mut FilterMap<()>,
    ) -> Result<QoS, Reason> {
        let subscriptions = self.session.subscriptions();
        let max = self.broker.limits.mqtt_subscriptions_max;
        if subscriptions.len() >= max && subscriptions.get(filter).is_none() {
            return Err(Reason::QuotaExceeded);
        }
        if self.session.subscribe(filter.clone(), options) {
            // Streams are marked from now on and read afterwards: a message in between is seen twice rather
            // than never.
            self.subscriber.add(filter.clone());
            new.insert(filter.clone(), ());
        }
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => new.get(filter).is_some(),
            RetainHandling::DoNotSend => false,
        };
        if wants_retained {
            self.session.begin_retained(filter.clone());
        }
        Ok(options.qos)
    }

    /// Starts new subscriptions at the tails of the existing streams. Fails if the session would become too
    /// large.
    async fn begin(&mut self, new: &FilterMap<()>) -> Result<(), Reason> {
        self.charge()?;
        let mut walk = StreamWalk::over(new.filters());
        while let Some(streams) = self.broker.hub.next_streams(&mut walk).await {
            for (name, tail) in streams {
                if !self.session.has_offset(&name) && self.session.subscriptions().begin_to_want(&name) {
                    self.session.set_offset(name, tail);
                }
            }
            self.charge()?;
        }
        new.filters().for_each(|filter| self.session.begin(filter));
        Ok(())
    }

    /// Ends subscriptions, some of which may not exist, and forgets the offsets that no other subscription
    /// needs.
    async fn end_subscriptions(&mut self, ended: &FilterMap<()>) {
        for filter in ended.filters() {
            consume_budget().await;
            self.session.unsubscribe(filter);
            self.subscriber.remove(filter);
        }
        let mut over = Vec::new();
        for name in self.session.streams() {
            consume_budget().await;
            if self.session.is_over(name, ended) {
                over.push(name.clone());
            }
        }
        for name in &over {
            consume_budget().await;
            self.session.forget_offset(name);
        }
        self.attached.charge(self.bytes());
    }

    /// Handles PUBLISH: appends the message, and acknowledges it once it is as durable as the store promises.
    async fn publish(&mut self, publish: Publish) -> Result<(), Ending> {
        let Publish { topic, alias, payload, id, qos, retain, properties } = publish;
        let name = self.topic(&topic, alias);
        if let (QoS::ExactlyOnce, Some(id)) = (qos, id) {
            if self.session.has_received(id) {
                // The message is in the log; only the acknowledgement was lost.
                return self.answer(id, qos, Ok(()));
            }
            if self.session.received_count() >= self.receive_maximum() {
                return Err(Ending::ByGateway(Reason::ReceiveMaximumExceeded));
            }
        }
        let received = id.filter(|_| qos == QoS::ExactlyOnce);
        let outcome = match name {
            Ok(name) => {
                let stored_with_it = received.and_then(|id| self.session.receiving(id));
                let principal = self.attached.principal();
                let publication = Publication { payload, qos, retain, properties, principal, stored_with_it };
                let client = self.session.client.clone();
                self.broker.append(&client, &name, publication).await
            }
            Err(Reason::TopicAliasInvalid) => return Err(Ending::ByGateway(Reason::TopicAliasInvalid)),
            Err(reason) => Err(reason),
        };
        if let (Ok(()), Some(id)) = (outcome, received) {
            self.session.received(id);
        }
        match (outcome, id) {
            (outcome, Some(id)) => self.answer(id, qos, outcome),
            (Ok(()), None) => Ok(()),
            // A QoS 0 publish has no response that could carry the reason, and no message is dropped
            // silently.
            (Err(reason), None) => Err(Ending::ByGateway(reason)),
        }
    }

    /// Maximum number of unreleased messages of QoS 2 from the client. For a client of 3.1.1, which cannot be
    /// told a limit, it is the number of packet ids.
    fn receive_maximum(&self) -> usize {
        match self.wire.version {
            Some(Version::V5) => self.broker.limits.mqtt_in_flight_max.into(),
            _ => usize::from(u16::MAX),
        }
    }

    /// Resolves a topic or its alias to a stream (MQTT 5, section 3.3.2.3.4).
    fn topic(&mut self, topic: &str, alias: Option<NonZeroU16>) -> Result<StreamName, Reason> {
        let Some(alias) = alias else { return publish::stream(topic) };
        let index = usize::from(alias.get()) - 1;
        if index >= self.broker.limits.mqtt_topic_aliases_max.into() {
            return Err(Reason::TopicAliasInvalid);
        }
        if topic.is_empty() {
            return self.aliases_received.get(index).cloned().flatten().ok_or(Reason::TopicAliasInvalid);
        }
        let name = publish::stream(topic)?;
        if self.aliases_received.len() <= index {
            self.aliases_received.resize(index + 1, None);
        }
        if let Some(place) = self.aliases_received.get_mut(index) {
            *place = Some(name.clone());
        }
        Ok(name)
    }

    /// Acknowledges or refuses a message. A client of 3.1.1 cannot be sent a reason, so its connection ends.
    fn answer(&mut self, id: PacketId, qos: QoS, outcome: Result<(), Reason>) -> Result<(), Ending> {
        let reason = outcome.err().unwrap_or(Reason::Success);
        if reason.is_failure() {
            self.broker.metrics.publishes_refused.inc();
            if self.wire.version == Some(Version::V3) {
                return Err(Ending::ByGateway(reason));
            }
        }
        let kind = if qos == QoS::ExactlyOnce { AckKind::Pubrec } else { AckKind::Puback };
        self.wire.put(&OutgoingPacket::Ack(Ack { kind, id, reason }));
        Ok(())
    }

    /// Handles PUBREL: the client will not send the message again.
    fn released(&mut self, id: PacketId) {
        let reason =
            if self.session.released(id) { Reason::Success } else { Reason::PacketIdentifierNotFound };
        self.wire.put(&OutgoingPacket::Ack(Ack { kind: AckKind::Pubcomp, id, reason }));
    }

    async fn unsubscribe(&mut self, Unsubscribe { id, filters }: Unsubscribe) {
        self.retained = None;
        let (mut reasons, mut ended) = (Vec::with_capacity(filters.len()), FilterMap::default());
        for filter in filters {
            consume_budget().await;
            reasons.push(match filter {
                Ok(filter) if ended.get(&filter).is_some() => Reason::NoSubscriptionExisted,
                Ok(filter) if self.session.subscriptions().get(&filter).is_some() => {
                    ended.insert(filter, ());
                    Reason::Success
                }
                Ok(_) => Reason::NoSubscriptionExisted,
                Err(reason) => reason,
            });
        }
        if !ended.is_empty() {
            self.end_subscriptions(&ended).await;
        }
        self.wire.put(&OutgoingPacket::Unsuback(id, reasons));
    }

    fn left(&mut self, disconnect: Disconnect) -> Ending {
        if let Some(expiry) = disconnect.session_expiry {
            // A session that was not to be kept cannot be kept now (MQTT 5, section 3.14.2.2.2).
            if self.negotiated.session_expiry.is_zero() && !expiry.is_zero() {
                return Ending::ByGateway(Reason::ProtocolError);
            }
            self.negotiated.session_expiry = expiry.min(self.broker.limits.mqtt_session_expiry_max.get());
        }
        if disconnect.with_will { Ending::LeftWithWill } else { Ending::Left }
    }
}
