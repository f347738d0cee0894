//! Handles the packets of a connected client, except SUBSCRIBE and UNSUBSCRIBE.

use std::num::NonZeroU16;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::authorization::check;
use super::codec::{Ack, AckKind, Disconnect, Incoming, OutgoingPacket, PacketId, Publish, Reason, Version};
use super::connection::{Connection, Ending};
use super::publish::{self, Publication, Refusal};
use super::unconfirmed::Confirmed;
use crate::auth::Action;
use crate::stream::{QoS, StreamName};

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
                if let (Ok(true), Some(auditor)) = (&appended, self.auditor()) {
                    auditor.created(&self.grants, name.as_str());
                }
                appended
            }
            Err(reason @ (Reason::TopicAliasInvalid | Reason::ProtocolError)) => {
                return Err(Ending::ByGateway(reason));
            }
            Err(reason) => {
                if let Some(auditor) = self.auditor().filter(|_| reason == Reason::NotAuthorized) {
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
                if let Some(auditor) = self.auditor().filter(|_| created) {
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
        if matches!(reason, Reason::NotAuthorized | Reason::QuotaExceeded) {
            self.broker.hub.count_refusal(self.grants.tenant());
        }
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
            let known = self.extras.as_ref().and_then(|extras| extras.aliases.received.get(index)?.clone());
            return known.ok_or(Reason::ProtocolError);
        }
        let name = publish::stream(topic, tenant)?;
        let received = &mut self.extras.get_or_insert_default().aliases.received;
        if received.len() <= index {
            received.resize(index + 1, None);
        }
        if let Some(place) = received.get_mut(index) {
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
