//! What a client was sent and has not acknowledged: not the messages, but where they lie.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::mqtt::codec::{Ack, AckKind, PacketId, Reason};
use crate::mqtt::forms::{NameForm, OffsetForm, QualityForm};
use crate::stream::{Offset, QoS, StreamName};

/// The messages of QoS 1 and 2 on their way to a client, in the order in which they were sent first.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct InFlight {
    flights: VecDeque<Flight>,
    /// Numbers the messages in their order. The lower half of a number is the id of its message.
    last: u64,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) struct Flight {
    number: u64,
    pub(in crate::mqtt) id: PacketId,
    /// Where it lies.
    #[serde(with = "NameForm")]
    pub(in crate::mqtt) stream: StreamName,
    /// Where in that stream.
    #[serde(with = "OffsetForm")]
    pub(in crate::mqtt) start: Offset,
    #[serde(with = "QualityForm")]
    pub(in crate::mqtt) qos: QoS,
    /// Whether the client is told that it was kept for those who come.
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) phase: DeliveryPhase,
    /// Whether it was sent over the present connection.
    #[serde(skip)]
    sent: bool,
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) enum DeliveryPhase {
    /// The client may not have it.
    Published,
    /// The client has it (PUBREC) and does not know that we know.
    Received,
}

impl InFlight {
    /// Puts back what was on its way when it was stored. In any order, until all is `restored`.
    pub(super) fn restore(&mut self, flight: Flight) {
        self.flights.push_back(flight);
    }

    /// All that was on its way is back.
    pub(super) fn restored(&mut self) {
        self.flights.make_contiguous().sort_by_key(|flight| flight.number);
        self.last = self.flights.back().map_or(0, |flight| flight.number);
    }

    /// A new connection: nothing has been sent over it yet.
    pub(in crate::mqtt) fn reconnected(&mut self) {
        self.flights.iter_mut().for_each(|flight| flight.sent = false);
    }

    /// The oldest that has to be sent again, and counts as sent with that.
    pub(in crate::mqtt) fn send_again(&mut self) -> Option<Flight> {
        let flight = self.flights.iter_mut().find(|flight| !flight.sent)?;
        flight.sent = true;
        Some(flight.clone())
    }

    /// How many more may be sent if the client takes `max` at once.
    pub(in crate::mqtt) fn vacancy(&self, max: usize) -> usize {
        max.saturating_sub(self.flights.iter().filter(|flight| flight.sent).count())
    }

    /// Puts a message on its way, under an id that is free.
    pub(in crate::mqtt) fn send(
        &mut self,
        stream: StreamName,
        start: Offset,
        qos: QoS,
        retain: bool,
    ) -> PacketId {
        let id = self.free_id();
        let (number, phase) = (self.last, DeliveryPhase::Published);
        self.flights.push_back(Flight { number, id, stream, start, qos, retain, phase, sent: true });
        id
    }

    /// There are far fewer messages in flight than ids.
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

    /// The message of an id.
    pub(super) fn get(&self, id: PacketId) -> Option<&Flight> {
        self.flights.iter().find(|flight| flight.id == id)
    }

    /// Gives a message up that can not be sent: it is not kept any more, or too large for the client.
    pub(in crate::mqtt) fn give_up(&mut self, id: PacketId) {
        self.flights.retain(|flight| flight.id != id);
    }

    /// Takes an acknowledgement of the client, and returns what it is to be answered. An acknowledgement of
    /// something that is not known any more is answered so that the client can forget it too.
    pub(in crate::mqtt) fn acknowledged(&mut self, ack: Ack) -> Option<Ack> {
        let flight = self.flights.iter_mut().find(|flight| flight.id == ack.id);
        match (ack.kind, flight) {
            (AckKind::Pubrec, Some(flight)) if flight.qos == QoS::ExactlyOnce && !ack.reason.is_failure() => {
                flight.phase = DeliveryPhase::Received;
                Some(Ack { kind: AckKind::Pubrel, id: ack.id, reason: Reason::Success })
            }
            (AckKind::Pubrec, Some(flight)) if flight.qos == QoS::ExactlyOnce => {
                self.give_up(ack.id);
                None
            }
            (AckKind::Pubrec, _) => {
                Some(Ack { kind: AckKind::Pubrel, id: ack.id, reason: Reason::PacketIdentifierNotFound })
            }
            (AckKind::Puback, Some(flight)) if flight.qos == QoS::AtLeastOnce => {
                self.give_up(ack.id);
                None
            }
            (AckKind::Pubcomp, Some(flight)) if flight.phase == DeliveryPhase::Received => {
                self.give_up(ack.id);
                None
            }
            _ => None,
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
    fn quality_1_ends_with_puback_and_quality_2_with_pubcomp() {
        let mut in_flight = InFlight::default();
        let once = send(&mut in_flight, QoS::AtLeastOnce);
        let exactly = send(&mut in_flight, QoS::ExactlyOnce);
        assert_eq!(in_flight.vacancy(3), 1);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Puback, exactly)), None);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Pubcomp, exactly)), None);
        assert_eq!(in_flight.flights.len(), 2);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Puback, once)), None);
        let released = Some(ack(AckKind::Pubrel, exactly));
        assert_eq!(in_flight.acknowledged(ack(AckKind::Pubrec, exactly)), released);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Pubrec, exactly)), released);
        assert_eq!(in_flight.acknowledged(ack(AckKind::Pubcomp, exactly)), None);
        assert_eq!(in_flight.flights.len(), 0);
        let forgotten = in_flight.acknowledged(ack(AckKind::Pubrec, exactly)).unwrap();
        assert_eq!(forgotten.reason, Reason::PacketIdentifierNotFound);
    }

    #[test]
    fn after_a_reconnect_all_is_sent_again_in_order_and_as_it_was() {
        let mut in_flight = InFlight::default();
        let ids = [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| send(&mut in_flight, qos));
        in_flight.acknowledged(ack(AckKind::Pubrec, ids[1]));
        assert_eq!(in_flight.send_again(), None);
        in_flight.reconnected();
        assert_eq!(in_flight.vacancy(1), 1);
        let again: Vec<_> = std::iter::from_fn(|| in_flight.send_again()).map(|f| (f.id, f.phase)).collect();
        assert_eq!(again, [(ids[0], DeliveryPhase::Published), (ids[1], DeliveryPhase::Received)]);
        assert_eq!(in_flight.vacancy(1), 0);
    }

    #[test]
    fn ids_go_round_and_pass_over_those_in_use() {
        let mut in_flight = InFlight { last: u64::from(u16::MAX) - 1, ..InFlight::default() };
        let ids: Vec<_> = (0..3).map(|_| send(&mut in_flight, QoS::AtLeastOnce).0.get()).collect();
        assert_eq!(ids, [u16::MAX, 1, 2]);
        in_flight.last = (7 << 16) + u64::from(u16::MAX) - 1;
        assert_eq!(send(&mut in_flight, QoS::AtLeastOnce).0.get(), 3);
    }
}
