//! Packets of MQTT 3.1.1 and 5 as values, whichever of the two the client speaks.
//!
//! The packets of clients are parsed by `mqtt-protocol-core`, which knows the rules of each; what it lets pass
//! though the specification forbids it is checked in `decode`. What we send is written here, so that a message goes
//! from the log to the socket without becoming a packet object first.

mod decode;
mod encode;
mod frame;
#[cfg(test)]
#[path = "../../fuzz/mqtt_packet.rs"]
mod fuzz;
mod packet;
mod properties;
mod reason;

pub(super) use decode::decode;
pub(super) use encode::encode;
pub(super) use frame::{Packet, PacketReader};
pub(super) use packet::{
    Ack, AckKind, Connack, Connect, Delivery, Disconnect, Incoming, OutgoingPacket, PacketId, Publish,
    RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe, Version, Will,
};
pub(super) use properties::MessageProperties;
pub(super) use reason::Reason;

/// Bytes of a client that are no packet, as the reason to tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}")]
pub(super) struct Breach(pub(super) Reason);
