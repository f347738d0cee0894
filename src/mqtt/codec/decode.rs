//! Decodes packets from clients: `mqtt-protocol-core` parses them, and the rules that it does not enforce are
//! checked here.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{Property, SubEntry, SubOpts, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::packet::{Qos, RetainHandling as LibraryRetainHandling};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::{
    Ack, AckKind, Breach, Connect, Disconnect, Incoming, MessageProperties, Packet, PacketId, Publish,
    Reason, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe, Version, Will,
};
use crate::stream::{Filter, QoS};

const MALFORMED: Breach = Breach(Reason::MalformedPacket);
const PROTOCOL_ERROR: Breach = Breach(Reason::ProtocolError);

/// Session expiry interval of a session that does not expire (MQTT 5, section 3.1.2.11.2).
const FOR_EVER: u32 = u32::MAX;

/// Bits of the connect flags (MQTT 5, section 3.1.2.3).
const RESERVED_FLAG: u8 = 1;
const WILL_FLAG: u8 = 1 << 2;
const WILL_QOS_FLAGS: u8 = 3 << 3;
const WILL_RETAIN_FLAG: u8 = 1 << 5;

/// Positions of the protocol level and the connect flags in the body of a CONNECT.
const LEVEL_AT: usize = 6;
const FLAGS_AT: usize = 7;

/// Decodes a packet from a client. `version` is `None` before the CONNECT, and then no other packet is
/// accepted.
pub(in crate::mqtt) fn decode(frame: Packet<'_>, version: Option<Version>) -> Result<Incoming, Breach> {
    let Packet { first, body } = frame;
    let (kind, flags) = (first >> 4, first & 0x0f);
    let expected_flags = match kind {
        6 | 8 | 10 => 0b0010,
        3 => flags,
        _ => 0,
    };
    if flags != expected_flags {
        return Err(MALFORMED);
    }
    let Some(version) = version else {
        return if kind == 1 {
            connect(&body).map(Box::new).map(Incoming::Connect)
        } else {
            Err(PROTOCOL_ERROR)
        };
    };
    match (kind, version) {
        (3, Version::V3) => {
            let packet = whole(v3_1_1::Publish::parse(flags, Arc::from(&*body)), &body)?;
            let qos = qos(packet.qos());
            let payload = body.keep_from(body.len() - packet.payload().len());
            publish(packet.topic_name(), payload, packet.packet_id(), qos, packet.retain(), &[])
        }
        (3, Version::V5) => {
            let packet = whole(v5_0::Publish::parse(flags, Arc::from(&*body)), &body)?;
            let qos = qos(packet.qos());
            let payload = body.keep_from(body.len() - packet.payload().len());
            publish(packet.topic_name(), payload, packet.packet_id(), qos, packet.retain(), packet.props())
        }
        (4..=7, _) => ack(kind, &body, version).map(Incoming::Ack),
        (8, Version::V3) => {
            let packet = whole(v3_1_1::Subscribe::parse(&body), &body)?;
            subscribe(packet.packet_id(), packet.entries(), None)
        }
        (8, Version::V5) => {
            let packet = whole(v5_0::Subscribe::parse(&body), &body)?;
            let identifier = packet.props().iter().find_map(|property| match property {
                Property::SubscriptionIdentifier(identifier) => Some(identifier.val()),
                _ => None,
            });
            subscribe(packet.packet_id(), packet.entries(), identifier)
        }
        (10, Version::V3) => {
            let packet = whole(v3_1_1::Unsubscribe::parse(&body), &body)?;
            let filters = packet.entries().iter().map(|entry| filter(entry.as_str())).collect();
            Ok(Incoming::Unsubscribe(Unsubscribe { id: packet_id(packet.packet_id())?, filters }))
        }
        (10, Version::V5) => {
            let packet = whole(v5_0::Unsubscribe::parse(&body), &body)?;
            let filters = packet.entries().iter().map(|entry| filter(entry.as_str())).collect();
            Ok(Incoming::Unsubscribe(Unsubscribe { id: packet_id(packet.packet_id())?, filters }))
        }
        (12, _) if body.is_empty() => Ok(Incoming::Pingreq),
        (14, _) => disconnect(&body, version).map(Incoming::Disconnect),
        (12, _) => Err(MALFORMED),
        _ => Err(PROTOCOL_ERROR),
    }
}

/// Returns the packet that the library parsed, if the packet takes the whole body.
fn whole<P>(parsed: Result<(P, usize), MqttError>, body: &[u8]) -> Result<P, Breach> {
    let (packet, length) = parsed.map_err(|error| Breach(error.into()))?;
    if length == body.len() { Ok(packet) } else { Err(MALFORMED) }
}

fn packet_id(id: u16) -> Result<PacketId, Breach> {
    NonZeroU16::new(id).map(PacketId).ok_or(PROTOCOL_ERROR)
}

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// Rejects a text with U+0000 (MQTT 5, section 1.5.4).
fn text(text: &str) -> Result<String, Breach> {
    if text.contains('\0') { Err(MALFORMED) } else { Ok(text.to_owned()) }
}

fn connect(body: &[u8]) -> Result<Connect, Breach> {
    let (Some(&level), Some(&flags)) = (body.get(LEVEL_AT), body.get(FLAGS_AT)) else {
        return Err(MALFORMED);
    };
    // MQTT 3.1 has a longer protocol name, so its level is at another position.
    if !body.starts_with(b"\0\x04MQTT") || !matches!(level, 4 | 5) {
        return Err(Breach(Reason::UnsupportedProtocolVersion));
    }
    let will_flags = flags & (WILL_QOS_FLAGS | WILL_RETAIN_FLAG);
    if flags & RESERVED_FLAG != 0
        || (flags & WILL_FLAG == 0 && will_flags != 0)
        || flags & WILL_QOS_FLAGS == WILL_QOS_FLAGS
    {
        return Err(MALFORMED);
    }
    if level == 4 { connect_v3(body) } else { connect_v5(body) }
}

fn connect_v3(body: &[u8]) -> Result<Connect, Breach> {
    let packet = whole(v3_1_1::Connect::parse(body), body)?;
    let will = match (packet.will_topic(), packet.will_payload()) {
        (Some(topic), Some(payload)) => Some(Will {
            topic: text(topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            properties: MessageProperties::default(),
            delay: Duration::ZERO,
        }),
        _ => None,
    };
    Ok(Connect {
        version: Version::V3,
        client_id: text(packet.client_id())?,
        clean_start: packet.clean_session(),
        keep_alive: seconds(packet.keep_alive().into()),
        session_expiry: if packet.clean_session() { Duration::ZERO } else { seconds(FOR_EVER) },
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        will,
        authenticates: false,
    })
}

fn connect_v5(body: &[u8]) -> Result<Connect, Breach> {
    let packet = whole(v5_0::Connect::parse(body), body)?;
    let will = match (packet.will_topic(), packet.will_payload()) {
        (Some(topic), Some(payload)) => Some(Will {
            topic: text(topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            properties: MessageProperties::of(packet.will_props()),
            delay: will_delay(packet.will_props()),
        }),
        _ => None,
    };
    let mut connect = Connect {
        version: Version::V5,
        client_id: text(packet.client_id())?,
        clean_start: packet.clean_start(),
        keep_alive: seconds(packet.keep_alive().into()),
        session_expiry: Duration::ZERO,
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        will,
        authenticates: false,
    };
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(p) => connect.session_expiry = seconds(p.val()),
            Property::ReceiveMaximum(p) => connect.receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => connect.packet_bytes_max = p.val() as usize,
            Property::TopicAliasMaximum(p) => connect.topic_alias_maximum = p.val(),
            Property::AuthenticationMethod(_) => connect.authenticates = true,
            _ => {}
        }
    }
    if connect.receive_maximum == 0 || connect.packet_bytes_max == 0 {
        Err(PROTOCOL_ERROR)
    } else {
        Ok(connect)
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

fn will_delay(properties: &[Property]) -> Duration {
    let delay = properties.iter().find_map(|property| match property {
        Property::WillDelayInterval(delay) => Some(delay.val()),
        _ => None,
    });
    seconds(delay.unwrap_or(0))
}

fn publish(
    topic: &str,
    payload: Bytes,
    id: Option<u16>,
    qos: QoS,
    retain: bool,
    properties: &[Property],
) -> Result<Incoming, Breach> {
    let mut alias = None;
    for property in properties {
        match property {
            Property::TopicAlias(p) => {
                alias = Some(NonZeroU16::new(p.val()).ok_or(Breach(Reason::TopicAliasInvalid))?);
            }
            // Only a server may send this property.
            Property::SubscriptionIdentifier(_) => return Err(PROTOCOL_ERROR),
            _ => {}
        }
    }
    let id = id.map(packet_id).transpose()?;
    let properties = MessageProperties::of(properties);
    let topic = text(topic)?;
    Ok(Incoming::Publish(Box::new(Publish { topic, alias, payload, id, qos, retain, properties })))
}

fn ack(kind: u8, body: &[u8], version: Version) -> Result<Ack, Breach> {
    let (id, failed) = match (kind, version) {
        (4, Version::V3) => (whole(v3_1_1::Puback::parse(body), body)?.packet_id(), false),
        (5, Version::V3) => (whole(v3_1_1::Pubrec::parse(body), body)?.packet_id(), false),
        (6, Version::V3) => (whole(v3_1_1::Pubrel::parse(body), body)?.packet_id(), false),
        (_, Version::V3) => (whole(v3_1_1::Pubcomp::parse(body), body)?.packet_id(), false),
        (4, Version::V5) => (whole(v5_0::Puback::parse(body), body)?.packet_id(), false),
        (5, Version::V5) => {
            let packet = whole(v5_0::Pubrec::parse(body), body)?;
            (packet.packet_id(), packet.reason_code().is_some_and(|reason| reason.is_failure()))
        }
        (6, Version::V5) => (whole(v5_0::Pubrel::parse(body), body)?.packet_id(), false),
        (_, Version::V5) => (whole(v5_0::Pubcomp::parse(body), body)?.packet_id(), false),
    };
    let kind = match kind {
        4 => AckKind::Puback,
        5 => AckKind::Pubrec,
        6 => AckKind::Pubrel,
        _ => AckKind::Pubcomp,
    };
    let reason = if failed { Reason::UnspecifiedError } else { Reason::Success };
    Ok(Ack { kind, id: packet_id(id)?, reason })
}

fn subscribe(id: u16, entries: &[SubEntry], identifier: Option<u32>) -> Result<Incoming, Breach> {
    let options = |options: &SubOpts| SubscriptionOptions {
        qos: qos(options.qos()),
        no_local: options.nl(),
        retain_as_published: options.rap(),
        retain_handling: match options.rh() {
            LibraryRetainHandling::SendRetained => RetainHandling::Send,
            LibraryRetainHandling::SendRetainedIfNotExists => RetainHandling::SendIfNew,
            LibraryRetainHandling::DoNotSendRetained => RetainHandling::DoNotSend,
        },
        identifier,
    };
    let filters =
        entries.iter().map(|entry| (filter(entry.topic_filter()), options(entry.sub_opts()))).collect();
    Ok(Incoming::Subscribe(Subscribe { id: packet_id(id)?, filters }))
}

fn filter(text: &str) -> Result<Filter, Reason> {
    if text.starts_with("$share/") {
        return Err(Reason::SharedSubscriptionsNotSupported);
    }
    Filter::parse(text).map_err(|_| Reason::TopicFilterInvalid)
}

fn disconnect(body: &[u8], version: Version) -> Result<Disconnect, Breach> {
    if version == Version::V3 {
        return if body.is_empty() {
            Ok(Disconnect { with_will: false, session_expiry: None })
        } else {
            Err(MALFORMED)
        };
    }
    let packet = whole(v5_0::Disconnect::parse(body), body)?;
    let session_expiry = packet.props().as_ref().and_then(|properties| {
        properties.iter().find_map(|property| match property {
            Property::SessionExpiryInterval(expiry) => Some(seconds(expiry.val())),
            _ => None,
        })
    });
    let with_will = packet.reason_code().is_some_and(|reason| reason as u8 != 0);
    Ok(Disconnect { with_will, session_expiry })
}
