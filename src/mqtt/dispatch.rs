//! Handles the packets of a connected client.

use std::num::NonZeroU16;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;

use super::authorization::{check, check_filter, in_hub};
use super::codec::{
    Ack, AckKind, Disconnect, Incoming, OutgoingPacket, PacketId, Publish, Reason, RetainHandling, Subscribe,
    SubscriptionOptions, Unsubscribe, Version,
};
use super::connection::{Connection, Ending};
use super::groups;
use super::publish::{self, Publication, Refusal};
use super::unconfirmed::Confirmed;
use super::walks::CatchUp;
use crate::auth::Action;
use crate::hub::StreamWalk;
use crate::stream::{Filter, FilterMap, QoS, StreamName};

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// Handles a packet, and queues the response.
    pub(super) async fn dispatch(&mut self, packet: Incoming) -> Result<(), Ending> {
        match packet {
            Incoming::Publish(publish) => self.publish(*publish).await?,
            Incoming::Ack(ack) if ack.kind == AckKind::Pubrel => self.released(ack.id)?,
            Incoming::Ack(ack) => {
                if let Some(answer) = self.session.acknowledged(ack)? {
                    self.respond(&OutgoingPacket::Ack(answer))?;
                }
            }
            Incoming::Subscribe(subscribe) => self.subscribe(subscribe).await?,
            Incoming::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe).await?,
            Incoming::Pingreq => self.respond(&OutgoingPacket::Pingresp)?,
            Incoming::Disconnect(disconnect) => return Err(self.left(disconnect)),
            Incoming::Auth(authentication) => self.renew(&authentication).await?,
            Incoming::Connect(_) => return Err(Ending::ByGateway(Reason::ProtocolError)),
        }
        Ok(())
    }

    /// Queues a response. A client that does not accept a packet of its size would wait for it in vain, so its
    /// connection ends.
    pub(super) fn respond(&mut self, packet: &OutgoingPacket<'_>) -> Result<(), Ending> {
        if self.wire.put(packet) { Ok(()) } else { Err(Ending::ByGateway(Reason::PacketTooLarge)) }
    }

    /// Handles SUBSCRIBE. A filter that occurs twice counts once, with its last options. Matching streams are
    /// sent from their current tails on.
    async fn subscribe(&mut self, Subscribe { id, mut filters }: Subscribe) -> Result<(), Ending> {
        self.retained = None;
        for (_, options) in filters.iter_mut().filter(|_| self.negotiated.is_bridge) {
            (options.no_local, options.retain_as_published) = (true, true);
        }
        let (mut granted, mut new) = (Vec::with_capacity(filters.len()), FilterMap::default());
        for (filter, options) in &mut filters {
            consume_budget().await;
            *filter = in_hub(filter, self.grants.tenant());
            if let Err(reason) = check_filter(&self.grants, filter) {
                if let Some(auditor) = &self.auditor {
                    auditor.refused(Some(&self.grants), None, Some(&filter.to_string()), "SUBSCRIBE");
                }
                granted.push(Err(reason));
                continue;
            }
            let shared = groups::stream_filter(filter);
            if self.broker.refused_filters.contains(shared.as_ref().unwrap_or(filter).local()) {
                granted.push(Err(Reason::UnspecifiedError));
                continue;
            }
            granted.push(match shared {
                Some(streams) => self.add_shared(filter, streams, *options).await,
                None => self.add(filter, *options, &mut new),
            });
        }
        if let Err(reason) = self.begin(&new).await {
            self.end_subscriptions(&new).await;
            for ((filter, _), granted) in filters.iter().zip(&mut granted) {
                consume_budget().await;
                if new.get(filter).is_some() {
                    *granted = Err(reason);
                }
            }
        }
        self.respond(&OutgoingPacket::Suback(id, granted))
    }

    /// Adds a subscription, and adds it to `new` if it is new; otherwise replaces its options.
    fn add(
        &mut self,
        filter: &Filter,
        options: SubscriptionOptions,
        new: &mut FilterMap<()>,
    ) -> Result<QoS, Reason> {
        if self.session.subscriptions().get(filter).is_none() {
            self.check_number()?;
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

    /// Checks whether the client may have another subscription.
    fn check_number(&self) -> Result<(), Reason> {
        let subscriptions = self.session.subscriptions().len() + self.session.shared().len();
        if subscriptions < self.broker.limits.mqtt_subscriptions_max {
            Ok(())
        } else {
            Err(Reason::QuotaExceeded)
        }
    }

    /// Adds a shared subscription, or replaces its options. A new group begins at the tails of the existing
    /// streams.
    async fn add_shared(
        &mut self,
        key: &Filter,
        streams: Filter,
        options: SubscriptionOptions,
    ) -> Result<QoS, Reason> {
        if self.session.change_shared(key, options) {
            return Ok(options.qos);
        }
        self.check_number()?;
        self.session.add_shared(key.clone(), streams, options);
        if let Err(reason) = self.enter_group(key).await {
            self.leave_group(key);
            return Err(reason);
        }
        Ok(options.qos)
    }

    /// Makes the connection a member of the group of a shared subscription of its session.
    pub(super) async fn enter_group(&mut self, key: &Filter) -> Result<(), Reason> {
        let Some(streams) = groups::stream_filter(key) else { return Ok(()) };
        let group = self.broker.groups.group(key);
        self.subscriber.add(streams.clone());
        let member = group.enter(self.subscriber.marker(), self.session.is_stored());
        self.session.enter_group(key, group.clone(), member);
        if group.has_begun() {
            self.catch_up = Some(Box::new(CatchUp::of(&self.session)));
            self.charge()?;
            return self.broker.store_group(&group).await;
        }
        let mut walk = StreamWalk::over([&streams]);
        while let Some(found) = self.broker.hub.next_streams(&mut walk).await {
            for (name, tail) in found {
                if streams.matches(&name) {
                    group.begin_stream(name, tail);
                }
            }
            self.charge()?;
        }
        group.begin();
        self.broker.store_group(&group).await
    }

    /// Ends a shared subscription. Returns whether it existed.
    pub(super) fn leave_group(&mut self, key: &Filter) -> bool {
        let existed = self.session.remove_shared(key);
        if let Some(streams) =
            groups::stream_filter(key).filter(|streams| existed && !self.session.has(streams))
        {
            self.subscriber.remove(&streams);
        }
        existed
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
    pub(super) async fn end_subscriptions(&mut self, ended: &FilterMap<()>) {
        for filter in ended.filters() {
            consume_budget().await;
            self.session.unsubscribe(filter);
            if !self.session.has(filter) {
                self.subscriber.remove(filter);
            }
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
                return self.acknowledge(id, qos, Reason::Success);
            }
            if self.session.received_count() >= self.receive_maximum() {
                return Err(Ending::ByGateway(Reason::ReceiveMaximumExceeded));
            }
        }
        let received = id.filter(|_| qos == QoS::ExactlyOnce);
        let name = name.and_then(|name| check(&self.grants, Action::Append, &name).map(|()| name));
        let outcome = match name {
            Ok(name) => {
                let stored_with_it = received.and_then(|id| self.session.receiving(id));
                let principal = self.attached.principal();
                let may_create = check(&self.grants, Action::Create, &name).is_ok();
                let publication =
                    Publication { payload, qos, retain, properties, principal, may_create, stored_with_it };
                let client = self.session.client.clone();
                if qos == QoS::AtMostOnce && self.may_go_on(&publication) {
                    return self.begin_append(client, name, topic.into(), publication).await;
                }
                let appended = self.broker.append(&client, &name, publication).await;
                if let (Ok(true), Some(auditor)) = (&appended, &self.auditor) {
                    auditor.created(&self.grants, name.as_str());
                }
                appended
            }
            Err(Reason::TopicAliasInvalid) => return Err(Ending::ByGateway(Reason::TopicAliasInvalid)),
            Err(reason) => {
                if let Some(auditor) = self.auditor.as_ref().filter(|_| reason == Reason::NotAuthorized) {
                    auditor.refused(Some(&self.grants), None, Some(&topic), "PUBLISH");
                }
                Err(Refusal::lasting(reason))
            }
        };
        let reason = match outcome {
            Ok(_) => {
                received.into_iter().for_each(|id| self.session.received(id));
                Reason::Success
            }
            Err(refusal) => self.refused(refusal, &topic, qos)?,
        };
        id.map_or(Ok(()), |id| self.acknowledge(id, qos, reason))
    }

    /// Whether the connection goes on while a message of QoS 0 is appended: only if the store syncs, and unless the message clears
    /// a retained one, which may take a second change after the append.
    fn may_go_on(&self, publication: &Publication) -> bool {
        self.broker.hub.keeps_sessions() && !(publication.retain && publication.payload.is_empty())
    }

    /// Begins to append a message of QoS 0. Waits for earlier ones while there are too many.
    async fn begin_append(
        &mut self,
        client: Arc<str>,
        name: StreamName,
        topic: Box<str>,
        publication: Publication,
    ) -> Result<(), Ending> {
        while !self.unconfirmed.has_room(publication.payload.len())
            && let Some(confirmed) = self.unconfirmed.next().await
        {
            self.confirmed(confirmed)?;
        }
        let begun = self.unconfirmed.begin(self.broker.clone(), client, name, topic, publication);
        begun.map_or(Ok(()), |confirmed| self.confirmed(confirmed))
    }

    /// Handles the end of an append of QoS 0.
    pub(super) fn confirmed(&mut self, confirmed: Confirmed) -> Result<(), Ending> {
        let Confirmed { name, topic, outcome, .. } = confirmed;
        match outcome {
            Ok(created) => {
                if let Some(auditor) = self.auditor.as_ref().filter(|_| created) {
                    auditor.created(&self.grants, name.as_str());
                }
                Ok(())
            }
            Err(refusal) => self.refused(refusal, &topic, QoS::AtMostOnce).map(drop),
        }
    }

    /// Waits until all messages of QoS 0 are appended or refused.
    pub(super) async fn confirm_all(&mut self) -> Result<(), Ending> {
        while let Some(confirmed) = self.unconfirmed.next().await {
            self.confirmed(confirmed)?;
        }
        Ok(())
    }

    /// Decides what becomes of a refused message, and returns the reason code of its acknowledgement.
    ///
    /// A client of MQTT 5 is told the reason. Neither an acknowledgement of 3.1.1 nor a message of QoS 0 can
    /// carry it. If the gateway lacks room, the connection ends, so that the client sends the message again
    /// later. Otherwise it would be refused each time, and the messages behind it would never be sent: it is
    /// dropped, unless the operator prefers the end of the connection.
    fn refused(&mut self, refusal: Refusal, topic: &str, qos: QoS) -> Result<Reason, Ending> {
        let Refusal { reason, is_final } = refusal;
        self.broker.metrics.publishes_refused.inc();
        if self.wire.version == Some(Version::V5) && qos > QoS::AtMostOnce {
            return Ok(reason);
        }
        if !is_final || self.broker.closes_on_refused {
            return Err(Ending::ByGateway(reason));
        }
        if !std::mem::replace(&mut self.has_logged_refusal, true) {
            tracing::warn!(
                client = &*self.session.client,
                topic,
                ?reason,
                "a message was refused and is dropped; further ones of this connection are not logged"
            );
        }
        Ok(Reason::Success)
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
        let tenant = self.grants.tenant();
        let Some(alias) = alias else { return publish::stream(topic, tenant) };
        let index = usize::from(alias.get()) - 1;
        if index >= self.broker.limits.mqtt_topic_aliases_max.into() {
            return Err(Reason::TopicAliasInvalid);
        }
        if topic.is_empty() {
            return self.aliases_received.get(index).cloned().flatten().ok_or(Reason::TopicAliasInvalid);
        }
        let name = publish::stream(topic, tenant)?;
        if self.aliases_received.len() <= index {
            self.aliases_received.resize(index + 1, None);
        }
        if let Some(place) = self.aliases_received.get_mut(index) {
            *place = Some(name.clone());
        }
        Ok(name)
    }

    /// Acknowledges a message, or refuses it.
    fn acknowledge(&mut self, id: PacketId, qos: QoS, reason: Reason) -> Result<(), Ending> {
        let kind = if qos == QoS::ExactlyOnce { AckKind::Pubrec } else { AckKind::Puback };
        self.respond(&OutgoingPacket::Ack(Ack { kind, id, reason }))
    }

    /// Handles PUBREL: the client will not send the message again.
    fn released(&mut self, id: PacketId) -> Result<(), Ending> {
        let reason =
            if self.session.released(id) { Reason::Success } else { Reason::PacketIdentifierNotFound };
        self.respond(&OutgoingPacket::Ack(Ack { kind: AckKind::Pubcomp, id, reason }))
    }

    async fn unsubscribe(&mut self, Unsubscribe { id, filters }: Unsubscribe) -> Result<(), Ending> {
        self.retained = None;
        let (mut reasons, mut ended) = (Vec::with_capacity(filters.len()), FilterMap::default());
        for filter in filters {
            consume_budget().await;
            let filter = in_hub(&filter, self.grants.tenant());
            let existed = if groups::stream_filter(&filter).is_some() {
                self.leave_group(&filter)
            } else {
                let exists = self.session.subscriptions().get(&filter).is_some();
                exists && ended.insert(filter, ()).is_none()
            };
            reasons.push(if existed { Reason::Success } else { Reason::NoSubscriptionExisted });
        }
        if !ended.is_empty() {
            self.end_subscriptions(&ended).await;
        }
        self.respond(&OutgoingPacket::Unsuback(id, reasons))
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
