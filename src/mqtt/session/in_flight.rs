//! [`InFlight`]: messages sent to a client and not yet acknowledged, as their places in the log.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::mqtt::codec::{Ack, AckKind, Breach, PacketId, Reason};
use crate::mqtt::forms::{NameForm, OffsetForm, QosForm};
use crate::stream::{Offset, QoS, StreamName};

/// The messages of QoS 1 and 2 in flight to a client, in the order in which they were first sent.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct InFlight {
    messages: VecDeque<InFlightMessage>,
    /// Number of the last message. The low 16 bits of a number are the packet id of its message.
    last: u64,
}

/// A message in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) struct InFlightMessage {
    number: u64,
    pub(in crate::mqtt) id: PacketId,
    #[serde(with = "NameForm")]
    pub(in crate::mqtt) stream: StreamName,
    /// Offset of the message in the stream.
    #[serde(with = "OffsetForm")]
    pub(in crate::mqtt) start: Offset,
    #[serde(with = "QosForm")]
    pub(in crate::mqtt) qos: QoS,
    /// Retain flag of the PUBLISH packet.
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) phase: DeliveryPhase,
    /// The message was sent on the current connection.
    #[serde(skip)]
    sent: bool,
}

/// Delivery state of a message in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) enum DeliveryPhase {
    /// The message was sent; the client may not have received it.
    Published,
    /// The client has received the message (PUBREC) and may not have received the PUBREL.
    Received,
}

impl InFlight {
    /// Has no messages; the next one gets the number behind `last`.
    pub(super) fn after(last: u64) -> Self {
        Self { messages: VecDeque::new(), last }
    }

    /// The number of the last message.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether there are no messages.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds a stored message, in any order, until [`restored`](Self::restored) is called.
    pub(super) fn restore(&mut self, message: InFlightMessage) {
        self.messages.push_back(message);
    }

    /// Finishes the restore: all stored messages are added.
    pub(super) fn restored(&mut self) {
        self.messages.make_contiguous().sort_by_key(|message| message.number);
        self.last = self.messages.back().map_or(0, |message| message.number);
    }

    /// Starts a new connection: no message has been sent on it yet.
    pub(in crate::mqtt) fn reconnected(&mut self) {
        self.messages.iter_mut().for_each(|message| message.sent = false);
    }

    /// Whether a message must be sent again.
    pub(super) fn has_unsent(&self) -> bool {
        self.messages.iter().any(|message| !message.sent)
    }

    /// Returns the oldest message that must be sent again, and counts it as sent.
    pub(in crate::mqtt) fn send_again(&mut self) -> Option<InFlightMessage> {
        let message = self.messages.iter_mut().find(|message| !message.sent)?;
        message.sent = true;
        Some(message.clone())
    }

    /// Returns the number of further messages that may be sent if the client accepts `max` in flight.
    pub(in crate::mqtt) fn vacancy(&self, max: usize) -> usize {
        max.saturating_sub(self.messages.iter().filter(|message| message.sent).count())
    }

    /// Adds a message, and returns its new packet id.
    pub(in crate::mqtt) fn send(
        &mut self,
        stream: StreamName,
        start: Offset,
        qos: QoS,
        retain: bool,
    ) -> PacketId {
        let id = self.free_id();
        let (number, phase) = (self.last, DeliveryPhase::Published);
        self.messages.push_back(InFlightMessage {
            number,
            id,
            stream,
            start,
            qos,
            retain,
            phase,
            sent: true,
        });
        id
    }

    /// Returns a free packet id. The loop ends, since there are far fewer messages in flight than ids.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last += 1;
            let [.., high, low] = self.last.to_be_bytes();
            if let Some(id) = NonZeroU16::new(u16::from_be_bytes([high, low])).map(PacketId)
                && self.get(id).is_none()
            {
                return id;
            }
        }
    }

    /// Returns all messages, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &InFlightMessage> {
        self.messages.iter()
    }

    /// Returns the message with this packet id.
    pub(super) fn get(&self, id: PacketId) -> Option<&InFlightMessage> {
        self.messages.iter().find(|message| message.id == id)
    }

    /// Drops a message that cannot be sent: it is no longer kept, or too large for the client.
    pub(in crate::mqtt) fn give_up(&mut self, id: PacketId) {
        self.messages.retain(|message| message.id != id);
    }

    /// Handles an acknowledgement of the client, and returns the response to it. A PUBREC of an unknown id is
    /// answered so that the client can forget it too. Fails if the acknowledgement is not one that the message
    /// can have (MQTT 5, section 4.3).
    pub(in crate::mqtt) fn acknowledged(&mut self, ack: Ack) -> Result<Option<Ack>, Breach> {
        let pubrel = |reason| Ack { kind: AckKind::Pubrel, id: ack.id, reason };
        let Some(message) = self.messages.iter_mut().find(|message| message.id == ack.id) else {
            let is_answered = ack.kind == AckKind::Pubrec && !ack.reason.is_failure();
            return Ok(is_answered.then(|| pubrel(Reason::PacketIdentifierNotFound)));
        };
        match (ack.kind, message.qos, message.phase) {
            (AckKind::Pubrec, QoS::ExactlyOnce, _) if !ack.reason.is_failure() => {
                message.phase = DeliveryPhase::Received;
                Ok(Some(pubrel(Reason::Success)))
            }
            // The client has refused the message, so no PUBREL follows.
            (AckKind::Pubrec, QoS::ExactlyOnce, _)
            | (AckKind::Puback, QoS::AtLeastOnce, _)
            | (AckKind::Pubcomp, QoS::ExactlyOnce, DeliveryPhase::Received) => {
                self.give_up(ack.id);
                Ok(None)
            }
            _ => Err(Breach(Reason::ProtocolError)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Offset;

    fn send(in_flight: &mut InFlight, qos: QoS) -> PacketId {
        in_flight.send(StreamName::parse("s").unwrap(), Offset::ZERO, qos, false)
    }

    fn ack(kind: AckKind, id: PacketId) -> Ack {
        Ack { kind, id, reason: Reason::Success }
    }

    #[test]
    fn qos_1_ends_with_puback_and_qos_2_with_pubcomp() {
        let mut in_flight = InFlight::default();
        let once = send(&mut in_flight, QoS::AtLeastOnce);
        let exactly = send(&mut in_flight, QoS::ExactlyOnce);
        assert_eq!(in_flight.vacancy(3), 1);
        let wrong = Err(Breach(Reason::ProtocolError));
        for (kind, id) in [
            (AckKind::Puback, exactly),
            (AckKind::Pubcomp, exactly),
            (AckKind::Pubrec, once),
            (AckKind::Pubcomp, once),
        ] {
            assert_eq!(in_flight.acknowledged(ack(kind, id)), wrong, "{kind:?}");
        }
        assert_eq!(in_flight.messages.len(), 2);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Puback, once)), Ok(None));
        let released = Ok(Some(ack(AckKind::Pubrel, exactly)));
        assert_eq!(in_flight.acknowledged(ack(AckKind::Pubrec, exactly)), released);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Pubrec, exactly)), released);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Pubcomp, exactly)), Ok(None));
        assert_eq!(in_flight.messages.len(), 0);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Pubcomp, exactly)), Ok(None));
        let forgotten = in_flight.acknowledged(ack(AckKind::Pubrec, exactly)).unwrap().unwrap();
        assert_eq!(forgotten.reason, Reason::PacketIdentifierNotFound);
    }

    #[test]
    fn a_refused_message_is_not_released() {
        let mut in_flight = InFlight::default();
        let id = send(&mut in_flight, QoS::ExactlyOnce);
        let refused = Ack { reason: Reason::UnspecifiedError, ..ack(AckKind::Pubrec, id) };
        assert_eq!(in_flight.acknowledged(refused), Ok(None));
        assert_eq!(in_flight.acknowledged(refused), Ok(None), "it is unknown by now");
    }

    #[test]
    fn after_a_reconnect_all_is_sent_again_in_order_and_as_it_was() {
        let mut in_flight = InFlight::default();
        let ids = [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| send(&mut in_flight, qos));
        in_flight.acknowledged(ack(AckKind::Pubrec, ids[1])).unwrap();
        assert_eq!(in_flight.send_again(), None);
        in_flight.reconnected();
        assert_eq!(in_flight.vacancy(1), 1);
        let again: Vec<_> = std::iter::from_fn(|| in_flight.send_again()).map(|f| (f.id, f.phase)).collect();
        assert_eq!(again, [(ids[0], DeliveryPhase::Published), (ids[1], DeliveryPhase::Received)]);
        assert_eq!(in_flight.vacancy(1), 0);
    }

    #[test]
    fn ids_wrap_around_and_skip_those_in_use() {
        let mut in_flight = InFlight { last: u64::from(u16::MAX) - 1, ..InFlight::default() };
        let ids: Vec<_> = (0..3).map(|_| send(&mut in_flight, QoS::AtLeastOnce).0.get()).collect();
        assert_eq!(ids, [u16::MAX, 1, 2]);
        in_flight.last = (7 << 16) + u64::from(u16::MAX) - 1;
        assert_eq!(send(&mut in_flight, QoS::AtLeastOnce).0.get(), 3);
    }
}
