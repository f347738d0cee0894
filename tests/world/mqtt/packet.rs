//! MQTT packets: those of the gateway as values, and the encoding of packets that scenarios send byte by byte.

use mqtt_protocol_core::mqtt::packet::{Property, Qos, SubEntry, SubOpts, v3_1_1, v5_0};

pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBSCRIBE: u8 = 8;
pub const UNSUBSCRIBE: u8 = 10;

/// A packet of the gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    Connack {
        present: bool,
        code: u8,
        properties: Vec<Property>,
    },
    Publish(Box<Message>),
    /// Packet type (4 to 7), packet id, reason.
    Ack(u8, u16, u8),
    Suback(u16, Vec<u8>),
    Unsuback(u16, Vec<u8>),
    Pingresp,
    Disconnect(u8),
    /// The reason.
    Auth(u8),
}

/// A message of the gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub id: u16,
    pub duplicate: bool,
    pub retain: bool,
    pub properties: Vec<Property>,
}

/// Encodes a SUBSCRIBE with QoS 0, or an UNSUBSCRIBE, of version 5.
pub fn filters_bytes(kind: u8, id: u16, filters: &[String]) -> Vec<u8> {
    let mut body = [&id.to_be_bytes()[..], &[0]].concat();
    for filter in filters {
        body.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        if kind == SUBSCRIBE {
            body.push(0);
        }
    }
    let mut bytes = vec![kind << 4 | 2];
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(&body);
    bytes
}

/// Encodes an acknowledgement of a client.
pub fn ack_bytes(kind: u8, id: u16) -> [u8; 4] {
    let flags = if kind == PUBREL { 2 } else { 0 };
    let [high, low] = id.to_be_bytes();
    [kind << 4 | flags, 2, high, low]
}

/// Encodes a PUBLISH of a client.
pub fn publish_bytes(
    version: u8,
    topic: &str,
    payload: &[u8],
    qos: u8,
    id: u16,
    (duplicate, retain): (bool, bool),
    properties: Vec<Property>,
) -> Vec<u8> {
    let id = (qos > 0).then_some(id);
    if version == 4 {
        let publish = v3_1_1::Publish::builder().topic_name(topic).unwrap().qos(to_qos(qos)).dup(duplicate);
        return publish.retain(retain).packet_id(id).payload(payload).build().unwrap().to_continuous_buffer();
    }
    let publish = v5_0::Publish::builder().topic_name(topic).unwrap().qos(to_qos(qos)).dup(duplicate);
    let publish = publish.retain(retain).packet_id(id).payload(payload).props(properties);
    publish.build().unwrap().to_continuous_buffer()
}

pub(super) fn to_qos(qos: u8) -> Qos {
    Qos::try_from(qos).unwrap()
}

/// Parses the first packet of `bytes` if it is complete, and returns its length.
pub(super) fn parse(bytes: &[u8], version: u8) -> Option<(Packet, usize)> {
    let (mut length, mut header) = (0, 1);
    loop {
        let byte = *bytes.get(header)?;
        length |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let body = bytes.get(header..header + length)?;
    let v5 = version == 5;
    let id = || u16::from_be_bytes([body[0], body[1]]);
    let packet = match bytes[0] >> 4 {
        2 if v5 && body.len() > 2 => {
            let connack = v5_0::Connack::parse(body).unwrap().0;
            let (present, code) = (connack.session_present(), connack.reason_code() as u8);
            Packet::Connack { present, code, properties: connack.props().clone() }
        }
        2 => Packet::Connack { present: body[0] == 1, code: body[1], properties: Vec::new() },
        3 if v5 => {
            let message = v5_0::Publish::parse(bytes[0] & 0x0f, body.into()).unwrap().0;
            Packet::Publish(Box::new(Message {
                topic: message.topic_name().to_owned(),
                payload: message.payload().as_slice().to_vec(),
                qos: message.qos() as u8,
                id: message.packet_id().unwrap_or(0),
                duplicate: message.dup(),
                retain: message.retain(),
                properties: message.props().clone(),
            }))
        }
        3 => {
            let message = v3_1_1::Publish::parse(bytes[0] & 0x0f, body.into()).unwrap().0;
            Packet::Publish(Box::new(Message {
                topic: message.topic_name().to_owned(),
                payload: message.payload().as_slice().to_vec(),
                qos: message.qos() as u8,
                id: message.packet_id().unwrap_or(0),
                duplicate: message.dup(),
                retain: message.retain(),
                properties: Vec::new(),
            }))
        }
        kind @ 4..=7 => Packet::Ack(kind, id(), body.get(2).copied().unwrap_or(0)),
        9 => Packet::Suback(id(), body[if v5 { 3 } else { 2 }..].to_vec()),
        11 => Packet::Unsuback(id(), if v5 { body[3..].to_vec() } else { Vec::new() }),
        13 => Packet::Pingresp,
        14 => Packet::Disconnect(body.first().copied().unwrap_or(0)),
        15 => Packet::Auth(body.first().copied().unwrap_or(0)),
        kind => panic!("packet type {kind}"),
    };
    Some((packet, header + length))
}
