//! The packets that clients send and receive, as values.

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{MessageProperties, Reason};
use crate::mqtt::forms::QosForm;
use crate::stream::{Filter, QoS};

/// The protocol version of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Version {
    /// MQTT 3.1.1 (level 4).
    V3,
    /// MQTT 5.
    V5,
}

/// Identifies a packet in flight between a client and the gateway (MQTT 5, section 2.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(in crate::mqtt) struct PacketId(pub(in crate::mqtt) NonZeroU16);

/// A packet from a client.
#[derive(Debug)]
pub(in crate::mqtt) enum Incoming {
    Connect(Box<Connect>),
    Publish(Box<Publish>),
    Ack(Ack),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Pingreq,
    Disconnect(Disconnect),
    /// AUTH: the client authenticates again (MQTT 5, section 4.12.1).
    Auth(Box<Authentication>),
}

/// CONNECT, the first packet of a client.
#[derive(Debug)]
pub(in crate::mqtt) struct Connect {
    pub(in crate::mqtt) version: Version,
    /// The client is a bridge: it receives no message that it has published itself, and retain flags as they
    /// were published.
    pub(in crate::mqtt) is_bridge: bool,
    pub(in crate::mqtt) client_id: String,
    pub(in crate::mqtt) clean_start: bool,
    pub(in crate::mqtt) keep_alive: Duration,
    /// How long the session is kept after the connection ends.
    pub(in crate::mqtt) session_expiry: Duration,
    /// Number of messages that the client accepts before it has acknowledged one.
    pub(in crate::mqtt) receive_maximum: u16,
    /// Size of the largest packet that the client accepts, in bytes.
    pub(in crate::mqtt) packet_bytes_max: usize,
    /// Number of topic aliases that the client accepts.
    pub(in crate::mqtt) topic_alias_maximum: u16,
    pub(in crate::mqtt) will: Option<Will>,
    pub(in crate::mqtt) password: Option<Password>,
    /// The client requests enhanced authentication instead of a user name and password.
    pub(in crate::mqtt) authentication: Option<Authentication>,
}

/// The properties of enhanced authentication (MQTT 5, section 4.12).
#[derive(Debug)]
pub(in crate::mqtt) struct Authentication {
    pub(in crate::mqtt) method: String,
    pub(in crate::mqtt) data: Option<Password>,
}

/// The password or the authentication data of a client, which debug output does not show.
pub(in crate::mqtt) struct Password(pub(super) Bytes);

impl Password {
    pub(in crate::mqtt) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A message that is published if the client disappears without DISCONNECT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::mqtt) struct Will {
    pub(in crate::mqtt) topic: String,
    pub(in crate::mqtt) payload: Bytes,
    #[serde(with = "QosForm")]
    pub(in crate::mqtt) qos: QoS,
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) properties: MessageProperties,
    /// Delay after the connection ends.
    pub(in crate::mqtt) delay: Duration,
}

impl Will {
    /// Memory that the will takes, in bytes.
    pub(in crate::mqtt) fn bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.len() + self.properties.bytes()
    }
}

/// PUBLISH from a client.
#[derive(Debug)]
pub(in crate::mqtt) struct Publish {
    /// Empty if the packet has only an alias.
    pub(in crate::mqtt) topic: String,
    pub(in crate::mqtt) alias: Option<NonZeroU16>,
    pub(in crate::mqtt) payload: Bytes,
    /// Set for QoS 1 and 2.
    pub(in crate::mqtt) id: Option<PacketId>,
    pub(in crate::mqtt) qos: QoS,
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) properties: MessageProperties,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct Ack {
    pub(in crate::mqtt) kind: AckKind,
    pub(in crate::mqtt) id: PacketId,
    pub(in crate::mqtt) reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum AckKind {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

/// SUBSCRIBE from a client.
#[derive(Debug)]
pub(in crate::mqtt) struct Subscribe {
    pub(in crate::mqtt) id: PacketId,
    /// Each filter with its options.
    pub(in crate::mqtt) filters: Vec<(Filter, SubscriptionOptions)>,
}

/// Options of a subscription (MQTT 5, section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) struct SubscriptionOptions {
    #[serde(with = "QosForm")]
    pub(in crate::mqtt) qos: QoS,
    pub(in crate::mqtt) no_local: bool,
    pub(in crate::mqtt) retain_as_published: bool,
    pub(in crate::mqtt) retain_handling: RetainHandling,
    /// The subscription identifier, sent back with each message.
    pub(in crate::mqtt) identifier: Option<u32>,
}

/// Whether a new subscription receives retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) enum RetainHandling {
    Send,
    SendIfNew,
    DoNotSend,
}

#[derive(Debug)]
pub(in crate::mqtt) struct Unsubscribe {
    pub(in crate::mqtt) id: PacketId,
    pub(in crate::mqtt) filters: Vec<Filter>,
}

/// DISCONNECT from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct Disconnect {
    /// The will is published nevertheless.
    pub(in crate::mqtt) with_will: bool,
    /// A new session expiry, if the packet has one.
    pub(in crate::mqtt) session_expiry: Option<Duration>,
}

/// A packet to a client.
#[derive(Debug)]
pub(in crate::mqtt) enum OutgoingPacket<'a> {
    Connack(Connack),
    Publish(Delivery<'a>),
    Ack(Ack),
    /// For each filter the granted QoS, or the reason for refusing it.
    Suback(PacketId, Vec<Result<QoS, Reason>>),
    Unsuback(PacketId, Vec<Reason>),
    Pingresp,
    Disconnect(Reason),
    /// The client has authenticated again, by this method.
    Auth(&'static str),
}

/// CONNACK. An `Option` is `None` where the value is the one that the client requested.
#[derive(Debug, Clone)]
pub(in crate::mqtt) struct Connack {
    pub(in crate::mqtt) reason: Reason,
    pub(in crate::mqtt) session_present: bool,
    pub(in crate::mqtt) receive_maximum: u16,
    pub(in crate::mqtt) packet_bytes_max: usize,
    pub(in crate::mqtt) topic_alias_maximum: u16,
    pub(in crate::mqtt) assigned_client_id: Option<String>,
    pub(in crate::mqtt) session_expiry: Option<Duration>,
    pub(in crate::mqtt) keep_alive: Option<Duration>,
    /// The method of enhanced authentication, if the client has used it.
    pub(in crate::mqtt) authentication_method: Option<&'static str>,
}

/// PUBLISH to a client.
#[derive(Debug)]
pub(in crate::mqtt) struct Delivery<'a> {
    pub(in crate::mqtt) topic: &'a str,
    /// The alias of the topic, and whether the client knows it already, so that only the alias is sent.
    pub(in crate::mqtt) alias: Option<(NonZeroU16, bool)>,
    pub(in crate::mqtt) payload: &'a [u8],
    /// Set for QoS 1 and 2.
    pub(in crate::mqtt) id: Option<PacketId>,
    pub(in crate::mqtt) qos: QoS,
    pub(in crate::mqtt) duplicate: bool,
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) properties: &'a MessageProperties,
    pub(in crate::mqtt) identifiers: &'a [u32],
}
