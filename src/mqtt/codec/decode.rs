//! Decodes packets from clients: `mqtt-protocol-core` parses them, and the rules that it does not enforce are
//! checked here.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{Property, SubEntry, SubOpts, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::packet::{Qos, RetainHandling as LibraryRetainHandling};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::property_rules::{Carrier, check, data};
use super::{
    Ack, AckKind, Authentication, Breach, Connect, Disconnect, Incoming, MessageProperties, Packet, PacketId,
    Password, Publish, Reason, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe, Version, Will,
};
use crate::mqtt::groups::is_shared;
use crate::stream::{Filter, LEVELS_MAX, QoS};

const MALFORMED: Breach = Breach(Reason::MalformedPacket);
const PROTOCOL_ERROR: Breach = Breach(Reason::ProtocolError);

/// Reason code of an AUTH that renews an authentication (MQTT 5, section 3.15.2.1).
const RE_AUTHENTICATE: u8 = 0x19;

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
/// Position of the properties in the body of a CONNECT of MQTT 5.
const PROPERTIES_AT: usize = 10;

/// The protocol name, behind its length.
const PROTOCOL_NAME: &[u8] = b"\0\x04MQTT";
/// The protocol name of MQTT 3.1, which is not supported.
const PROTOCOL_NAME_3_1: &[u8] = b"\0\x06MQIsdp";

/// Protocol level of a bridge that speaks 3.1.1: bit 7 asks for the options No Local and Retain As Published, which
/// 3.1.1 does not have. Bridges of mosquitto and others send it, so that messages do not come back to them.
const BRIDGE_LEVEL: u8 = 0x84;
/// Start of the topic of the will of mosquitto's bridges, which tells one that does not set the bit.
const BRIDGE_WILL: &str = "$SYS/broker/connection/";

/// Bits of the first byte of a PUBLISH.
const DUPLICATE_FLAG: u8 = 1 << 3;
const QOS_FLAGS: u8 = 3 << 1;

/// Decodes a packet from a client. `version` is `None` before the CONNECT, and then no other packet is
/// accepted.
pub(in crate::mqtt) fn decode(frame: Packet<'_>, version: Option<Version>) -> Result<Incoming, Breach> {
    let Packet { first, body } = frame;
    let (kind, flags) = (first >> 4, first & 0x0f);
    // Types that are reserved, or that only a server sends.
    if matches!(kind, 0 | 2 | 13) {
        return Err(PROTOCOL_ERROR);
    }
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
    if kind == 3 && flags & (DUPLICATE_FLAG | QOS_FLAGS) == DUPLICATE_FLAG {
        return Err(MALFORMED);
    }
    match (kind, version) {
        (3, Version::V3) => {
            let packet = whole(v3_1_1::Publish::parse(flags, Arc::from(&*body)), &body)?;
            let qos = qos(packet.qos());
            let payload = body.keep_from(body.len() - packet.payload().len());
            publish(packet.topic_name(), payload, packet.packet_id(), qos, packet.retain(), &[])
        }
        (3, Version::V5) => {
            let (_, behind) = data(&body)?;
            let id_bytes = if flags & QOS_FLAGS == 0 { 0 } else { 2 };
            check(behind.get(id_bytes..).ok_or(MALFORMED)?, Carrier::Publish)?;
            let packet = whole(v5_0::Publish::parse(flags, Arc::from(&*body)), &body)?;
            let qos = qos(packet.qos());
            let payload = body.keep_from(body.len() - packet.payload().len());
            publish(packet.topic_name(), payload, packet.packet_id(), qos, packet.retain(), packet.props())
        }
        (4..=7, _) => ack(kind, &body, version).map(Incoming::Ack),
        (8, Version::V3) => {
            let packet = whole(v3_1_1::Subscribe::parse(&body), &body)?;
            check_options_v3(body.get(2..).unwrap_or_default())?;
            subscribe(packet.packet_id(), packet.entries(), None)
        }
        (8, Version::V5) => {
            check(body.get(2..).ok_or(MALFORMED)?, Carrier::Subscribe)?;
            let packet = whole(v5_0::Subscribe::parse(&body), &body)?;
            let identifier = packet.props().iter().find_map(|property| match property {
                Property::SubscriptionIdentifier(identifier) => Some(identifier.val()),
                _ => None,
            });
            subscribe(packet.packet_id(), packet.entries(), identifier)
        }
        (10, Version::V3) => {
            let packet = whole(v3_1_1::Unsubscribe::parse(&body), &body)?;
            let filters =
                packet.entries().iter().map(|entry| filter(entry.as_str())).collect::<Result<_, _>>()?;
            Ok(Incoming::Unsubscribe(Unsubscribe { id: packet_id(packet.packet_id())?, filters }))
        }
        (10, Version::V5) => {
            check(body.get(2..).ok_or(MALFORMED)?, Carrier::Unsubscribe)?;
            let packet = whole(v5_0::Unsubscribe::parse(&body), &body)?;
            let filters =
                packet.entries().iter().map(|entry| filter(entry.as_str())).collect::<Result<_, _>>()?;
            Ok(Incoming::Unsubscribe(Unsubscribe { id: packet_id(packet.packet_id())?, filters }))
        }
        (12, _) if body.is_empty() => Ok(Incoming::Pingreq),
        (14, _) => disconnect(&body, version).map(Incoming::Disconnect),
        (15, Version::V5) => auth(&body).map(Box::new).map(Incoming::Auth),
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

/// Rejects a text with U+0000, and with other control characters, which a server may reject (MQTT 5, section
/// 1.5.4). They could end a line of a log or of an event.
fn text(text: &str) -> Result<&str, Breach> {
    if text.chars().any(char::is_control) { Err(MALFORMED) } else { Ok(text) }
}

/// Rejects a topic with wildcards (MQTT 5, section 3.3.2.1), and one with too many levels. An empty one stands for an alias.
fn topic(topic: &str) -> Result<&str, Breach> {
    let has_too_many = topic.split('/').count() > LEVELS_MAX;
    if has_too_many || topic.contains(['+', '#']) { Err(MALFORMED) } else { text(topic) }
}

/// Rejects the topic of a will, which must not be empty either.
fn will_topic(will: &str) -> Result<String, Breach> {
    if will.is_empty() { Err(MALFORMED) } else { topic(will).map(ToOwned::to_owned) }
}

/// Rejects a response topic with wildcards (MQTT 5, section 3.3.2.3.5).
fn message_properties(properties: &[Property]) -> Result<MessageProperties, Breach> {
    let found = MessageProperties::of(properties);
    let is_invalid = |topic: &str| topic.contains(['+', '#']);
    if found.response_topic.as_deref().is_some_and(is_invalid) { Err(PROTOCOL_ERROR) } else { Ok(found) }
}

/// Rejects options of a SUBSCRIBE of 3.1.1 with reserved bits (section 3.8.3). `entries` have been parsed.
fn check_options_v3(mut entries: &[u8]) -> Result<(), Breach> {
    while !entries.is_empty() {
        let (_filter, behind) = data(entries)?;
        let (options, rest) = behind.split_first().ok_or(MALFORMED)?;
        if *options > 2 {
            return Err(MALFORMED);
        }
        entries = rest;
    }
    Ok(())
}

fn connect(body: &[u8]) -> Result<Connect, Breach> {
    let (Some(&level), Some(&flags)) = (body.get(LEVEL_AT), body.get(FLAGS_AT)) else {
        return Err(MALFORMED);
    };
    let unsupported = Breach(Reason::UnsupportedProtocolVersion);
    if !body.starts_with(PROTOCOL_NAME) {
        return Err(if body.starts_with(PROTOCOL_NAME_3_1) { unsupported } else { MALFORMED });
    }
    if !matches!(level, 4 | 5 | BRIDGE_LEVEL) {
        return Err(unsupported);
    }
    let will_flags = flags & (WILL_QOS_FLAGS | WILL_RETAIN_FLAG);
    if flags & RESERVED_FLAG != 0
        || (flags & WILL_FLAG == 0 && will_flags != 0)
        || flags & WILL_QOS_FLAGS == WILL_QOS_FLAGS
    {
        return Err(MALFORMED);
    }
    match level {
        5 => connect_v5(body),
        BRIDGE_LEVEL => {
            // The library does not know the flag of bridges.
            let mut body = body.to_vec();
            body.iter_mut().skip(LEVEL_AT).take(1).for_each(|level| *level = 4);
            Ok(Connect { is_bridge: true, ..connect_v3(&body)? })
        }
        _ => connect_v3(body),
    }
}

fn password(bytes: Option<&[u8]>) -> Option<Password> {
    bytes.map(|bytes| Password(Bytes::copy_from_slice(bytes)))
}

fn connect_v3(body: &[u8]) -> Result<Connect, Breach> {
    let packet = whole(v3_1_1::Connect::parse(body), body)?;
    let will = match (packet.will_topic(), packet.will_payload()) {
        (Some(topic), Some(payload)) => Some(Will {
            topic: will_topic(topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            properties: MessageProperties::default(),
            delay: Duration::ZERO,
        }),
        _ => None,
    };
    packet.user_name().map_or(Ok(""), text)?;
    Ok(Connect {
        version: Version::V3,
        is_bridge: will.as_ref().is_some_and(|will| will.topic.starts_with(BRIDGE_WILL)),
        client_id: text(packet.client_id())?.to_owned(),
        clean_start: packet.clean_session(),
        keep_alive: seconds(packet.keep_alive().into()),
        session_expiry: if packet.clean_session() { Duration::ZERO } else { seconds(FOR_EVER) },
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        will,
        password: password(packet.password()),
        authentication: None,
    })
}

fn connect_v5(body: &[u8]) -> Result<Connect, Breach> {
    let behind = check(body.get(PROPERTIES_AT..).ok_or(MALFORMED)?, Carrier::Connect)?;
    if body.get(FLAGS_AT).is_some_and(|flags| flags & WILL_FLAG != 0) {
        let (_client_id, behind) = data(behind)?;
        check(behind, Carrier::Will)?;
    }
    let packet = whole(v5_0::Connect::parse(body), body)?;
    let will = match (packet.will_topic(), packet.will_payload()) {
        (Some(topic), Some(payload)) => Some(Will {
            topic: will_topic(topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            properties: message_properties(packet.will_props())?,
            delay: will_delay(packet.will_props()),
        }),
        _ => None,
    };
    packet.user_name().map_or(Ok(""), text)?;
    let mut connect = Connect {
        version: Version::V5,
        is_bridge: false,
        client_id: text(packet.client_id())?.to_owned(),
        clean_start: packet.clean_start(),
        keep_alive: seconds(packet.keep_alive().into()),
        session_expiry: Duration::ZERO,
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        will,
        password: password(packet.password()),
        authentication: authentication(packet.props())?,
    };
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(p) => connect.session_expiry = seconds(p.val()),
            Property::ReceiveMaximum(p) => connect.receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => connect.packet_bytes_max = p.val() as usize,
            Property::TopicAliasMaximum(p) => connect.topic_alias_maximum = p.val(),
            _ => {}
        }
    }
    if connect.receive_maximum == 0 || connect.packet_bytes_max == 0 {
        Err(PROTOCOL_ERROR)
    } else {
        Ok(connect)
    }
}

/// Returns the properties of enhanced authentication. Data needs a method (MQTT 5, section 3.1.2.11.10).
fn authentication(properties: &[Property]) -> Result<Option<Authentication>, Breach> {
    let (mut method, mut data) = (None, None);
    for property in properties {
        match property {
            Property::AuthenticationMethod(p) => method = Some(text(p.val())?.to_owned()),
            Property::AuthenticationData(p) => data = password(Some(p.val())),
            _ => {}
        }
    }
    match method {
        Some(method) => Ok(Some(Authentication { method, data })),
        None if data.is_some() => Err(PROTOCOL_ERROR),
        None => Ok(None),
    }
}

/// Parses AUTH. A client sends it to authenticate again; the gateway never asks it to continue.
fn auth(body: &[u8]) -> Result<Authentication, Breach> {
    let [RE_AUTHENTICATE, properties @ ..] = body else { return Err(PROTOCOL_ERROR) };
    if !check(properties, Carrier::Auth)?.is_empty() {
        return Err(MALFORMED);
    }
    let packet = whole(v5_0::Auth::parse(body), body)?;
    authentication(packet.props().as_deref().unwrap_or_default())?.ok_or(PROTOCOL_ERROR)
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
    name: &str,
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
    let properties = message_properties(properties)?;
    let topic = topic(name)?.to_owned();
    if topic.is_empty() && alias.is_none() {
        return Err(PROTOCOL_ERROR);
    }
    Ok(Incoming::Publish(Box::new(Publish { topic, alias, payload, id, qos, retain, properties })))
}

fn ack(kind: u8, body: &[u8], version: Version) -> Result<Ack, Breach> {
    let kind = match kind {
        4 => AckKind::Puback,
        5 => AckKind::Pubrec,
        6 => AckKind::Pubrel,
        _ => AckKind::Pubcomp,
    };
    let (id, behind) = body.split_first_chunk().ok_or(MALFORMED)?;
    let id = packet_id(u16::from_be_bytes(*id))?;
    let code = match (version, behind) {
        (_, []) => 0,
        (Version::V3, _) => return Err(MALFORMED),
        (Version::V5, [code]) => *code,
        (Version::V5, [code, properties @ ..]) => {
            if !check(properties, Carrier::Ack)?.is_empty() {
                return Err(MALFORMED);
            }
            *code
        }
    };
    let is_known = match kind {
        AckKind::Puback | AckKind::Pubrec => {
            matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        AckKind::Pubrel | AckKind::Pubcomp => matches!(code, 0x00 | 0x92),
    };
    if !is_known {
        return Err(PROTOCOL_ERROR);
    }
    let reason = if code >= 0x80 { Reason::UnspecifiedError } else { Reason::Success };
    Ok(Ack { kind, id, reason })
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
    let filters = entries
        .iter()
        .map(|entry| Ok((filter(entry.topic_filter())?, options(entry.sub_opts()))))
        .collect::<Result<Vec<(Filter, SubscriptionOptions)>, Breach>>()?;
    // MQTT-3.8.3-4.
    if filters.iter().any(|(filter, options)| options.no_local && is_shared(filter.as_str())) {
        return Err(PROTOCOL_ERROR);
    }
    Ok(Incoming::Subscribe(Subscribe { id: packet_id(id)?, filters }))
}

fn filter(text: &str) -> Result<Filter, Breach> {
    let parsed = Filter::of_topics(text).map_err(|_| MALFORMED)?;
    if is_shared(text) {
        // `$share/GROUP/FILTER`; the name of a group has no wildcard (MQTT 5, section 4.8.2).
        let mut levels = text.splitn(3, '/').skip(1);
        let is_name = levels.next().is_some_and(|name| !name.is_empty() && !name.contains(['+', '#']));
        if !is_name || levels.next().is_none_or(str::is_empty) {
            return Err(PROTOCOL_ERROR);
        }
    }
    Ok(parsed)
}

fn disconnect(body: &[u8], version: Version) -> Result<Disconnect, Breach> {
    if version == Version::V3 {
        return if body.is_empty() {
            Ok(Disconnect { with_will: false, session_expiry: None })
        } else {
            Err(MALFORMED)
        };
    }
    if let [_, properties @ ..] = body
        && !properties.is_empty()
    {
        check(properties, Carrier::Disconnect)?;
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
