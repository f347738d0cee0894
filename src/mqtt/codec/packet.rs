//! The packets as values: what clients send, and what they are sent.

use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{MessageProperties, Reason};
use crate::mqtt::forms::QualityForm;
use crate::stream::{Filter, QoS, StreamName};

/// Which of the two protocols a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Version {
    /// MQTT 3.1.1 (level 4).
    V3,
    /// MQTT 5.
    V5,
}

/// Tells apart what is on its way between a client and the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(in crate::mqtt) struct PacketId(pub(in crate::mqtt) NonZeroU16);

/// What clients send.
#[derive(Debug)]
pub(in crate::mqtt) enum Incoming {
    Connect(Box<Connect>),
    Publish(Box<Publish>),
    Ack(Ack),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Pingreq,
    Disconnect(Disconnect),
}

/// The first packet of a client.
#[derive(Debug)]
pub(in crate::mqtt) struct Connect {
    pub(in crate::mqtt) version: Version,
    pub(in crate::mqtt) client_id: String,
    pub(in crate::mqtt) clean_start: bool,
    pub(in crate::mqtt) keep_alive: Duration,
    /// How long the session is kept after the connection.
    pub(in crate::mqtt) session_expiry: Duration,
    /// How many messages the client takes before it has acknowledged one.
    pub(in crate::mqtt) receive_maximum: u16,
    /// The largest packet that the client takes.
    pub(in crate::mqtt) packet_bytes_max: usize,
    /// How many topic aliases the client takes.
    pub(in crate::mqtt) topic_alias_maximum: u16,
    pub(in crate::mqtt) will: Option<Will>,
    /// Whether it wants another authentication than a name and a password.
    pub(in crate::mqtt) authenticates: bool,
}

/// A message that is published when the client is gone without a good-bye.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::mqtt) struct Will {
    pub(in crate::mqtt) topic: String,
    pub(in crate::mqtt) payload: Bytes,
    #[serde(with = "QualityForm")]
    pub(in crate::mqtt) qos: QoS,
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) properties: MessageProperties,
    /// How long after the client is gone.
    pub(in crate::mqtt) delay: Duration,
}

impl Will {
    /// What it takes, in bytes.
    pub(in crate::mqtt) fn bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.len() + self.properties.bytes()
    }
}

/// A message from a client.
#[derive(Debug)]
pub(in crate::mqtt) struct Publish {
    /// Empty if there is only an alias.
    pub(in crate::mqtt) topic: String,
    pub(in crate::mqtt) alias: Option<NonZeroU16>,
    pub(in crate::mqtt) payload: Bytes,
    /// With QoS 1 and 2.
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

/// A request for messages.
#[derive(Debug)]
pub(in crate::mqtt) struct Subscribe {
    pub(in crate::mqtt) id: PacketId,
    /// Each filter as far as it is one, with what is asked for.
    pub(in crate::mqtt) filters: Vec<(Result<Filter, Reason>, SubscriptionOptions)>,
}

/// How messages of a subscription are wanted (MQTT 5, section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) struct SubscriptionOptions {
    #[serde(with = "QualityForm")]
    pub(in crate::mqtt) qos: QoS,
    pub(in crate::mqtt) no_local: bool,
    pub(in crate::mqtt) retain_as_published: bool,
    pub(in crate::mqtt) retain_handling: RetainHandling,
    /// Said back with each message.
    pub(in crate::mqtt) identifier: Option<u32>,
}

/// Whether a new subscription is sent retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) enum RetainHandling {
    Send,
    SendIfNew,
    DoNotSend,
}

#[derive(Debug)]
pub(in crate::mqtt) struct Unsubscribe {
    pub(in crate::mqtt) id: PacketId,
    pub(in crate::mqtt) filters: Vec<Result<Filter, Reason>>,
}

/// A client's good-bye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct Disconnect {
    /// Whether the will is to be published nevertheless.
    pub(in crate::mqtt) with_will: bool,
    /// A new session expiry, if it says one.
    pub(in crate::mqtt) session_expiry: Option<Duration>,
}

/// What clients are sent.
#[derive(Debug)]
pub(in crate::mqtt) enum OutgoingPacket<'a> {
    Connack(Connack),
    Publish(Delivery<'a>),
    Ack(Ack),
    /// For each filter the granted QoS, or why not.
    Suback(PacketId, Vec<Result<QoS, Reason>>),
    Unsuback(PacketId, Vec<Reason>),
    Pingresp,
    Disconnect(Reason),
}

/// The answer to CONNECT. The `Option`s are left out where the client asked for the same.
#[derive(Debug)]
pub(in crate::mqtt) struct Connack {
    pub(in crate::mqtt) reason: Reason,
    pub(in crate::mqtt) session_present: bool,
    pub(in crate::mqtt) receive_maximum: u16,
    pub(in crate::mqtt) packet_bytes_max: usize,
    pub(in crate::mqtt) topic_alias_maximum: u16,
    pub(in crate::mqtt) assigned_client_id: Option<String>,
    pub(in crate::mqtt) session_expiry: Option<Duration>,
    pub(in crate::mqtt) keep_alive: Option<Duration>,
}

/// A message to a client.
#[derive(Debug)]
pub(in crate::mqtt) struct Delivery<'a> {
    pub(in crate::mqtt) topic: &'a StreamName,
    /// Whether only the alias is sent, because the client knows it by now.
    pub(in crate::mqtt) alias: Option<(NonZeroU16, bool)>,
    pub(in crate::mqtt) payload: &'a [u8],
    /// With QoS 1 and 2.
    pub(in crate::mqtt) id: Option<PacketId>,
    pub(in crate::mqtt) qos: QoS,
    pub(in crate::mqtt) duplicate: bool,
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) properties: &'a MessageProperties,
    pub(in crate::mqtt) identifiers: &'a [u32],
}
