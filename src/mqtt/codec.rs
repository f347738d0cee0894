//! Packets of MQTT 3.1.1 and 5 as values that are the same for both versions.
//!
//! `mqtt-protocol-core` parses the packets of clients and knows the rules of each; `decode` checks the rules
//! that it does not enforce. Packets to clients are encoded here, so that a message goes from the log to the
//! socket without a packet object in between.

mod decode;
mod encode;
mod frame;
#[cfg(test)]
#[path = "../../fuzz/mqtt_packet.rs"]
mod fuzz;
mod packet;
mod properties;
mod property_rules;
mod reason;

pub(super) use decode::decode;
pub(super) use encode::encode;
pub(super) use frame::{Packet, PacketReader};
pub(super) use packet::{
    Ack, AckKind, Authentication, Connack, Connect, Delivery, Disconnect, Incoming, OutgoingPacket, PacketId,
    Password, Publish, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe, Version, Will,
};
pub(super) use properties::MessageProperties;
pub(super) use reason::Reason;

/// Invalid bytes from a client, as the reason code to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}")]
pub(super) struct Breach(pub(super) Reason);
