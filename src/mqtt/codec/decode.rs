//! Decodes packets from clients: `mqtt-protocol-core` parses them, and the rules that it does not enforce are
//! checked here.

mod connect;
mod fields;

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::RetainHandling as LibraryRetainHandling;
use mqtt_protocol_core::mqtt::packet::{Property, SubEntry, SubOpts, v3_1_1, v5_0};

use self::fields::{
    MALFORMED, PROTOCOL_ERROR, filter, message_properties, packet_id, qos, seconds, topic, whole,
};
use super::property_rules::{Carrier, check, data};
use super::{
    Ack, AckKind, Breach, Disconnect, Incoming, Packet, Publish, Reason, RetainHandling, Subscribe,
    SubscriptionOptions, Unsubscribe, Version,
};
use crate::mqtt::groups::is_shared;
use crate::stream::{Filter, QoS};

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
            connect::connect(&body).map(Box::new).map(Incoming::Connect)
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
        (15, Version::V5) => connect::auth(&body).map(Box::new).map(Incoming::Auth),
        (12, _) => Err(MALFORMED),
        _ => Err(PROTOCOL_ERROR),
    }
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
