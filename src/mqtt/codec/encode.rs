//! Encodes packets to clients (MQTT 5, section 3; for 3.1.1 without properties and reason codes).

use bytes::{BufMut, BytesMut};

use super::{Ack, AckKind, Connack, Delivery, MessageProperties, OutgoingPacket, PacketId, Reason, Version};
use crate::stream::QoS;

/// Maximum remaining length (MQTT 5, section 1.5.5).
const LENGTH_MAX: usize = 268_435_455;

/// Property identifiers (MQTT 5, section 2.2.2.2).
mod property {
    pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(super) const CONTENT_TYPE: u8 = 0x03;
    pub(super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(super) const CORRELATION: u8 = 0x09;
    pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub(super) const SESSION_EXPIRY: u8 = 0x11;
    pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(super) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(super) const TOPIC_ALIAS: u8 = 0x23;
    pub(super) const USER_PROPERTY: u8 = 0x26;
    pub(super) const PACKET_BYTES_MAX: u8 = 0x27;
}

/// Appends `packet` to `out`. Returns false, with `out` unchanged, if the packet would be larger than
/// `packet_bytes_max`.
pub(in crate::mqtt) fn encode(
    packet: &OutgoingPacket<'_>,
    version: Version,
    packet_bytes_max: usize,
    out: &mut BytesMut,
) -> bool {
    let v5 = version == Version::V5;
    let mut body = BytesMut::new();
    let (first, payload): (u8, &[u8]) = match packet {
        OutgoingPacket::Connack(connack) => {
            connack_body(connack, v5, &mut body);
            (0x20, &[])
        }
        OutgoingPacket::Publish(delivery) => {
            publish_body(delivery, v5, &mut body);
            let flags = u8::from(delivery.duplicate) << 3 | (delivery.qos as u8) << 1;
            (0x30 | flags | u8::from(delivery.retain), delivery.payload)
        }
        OutgoingPacket::Ack(ack) => (ack_body(*ack, v5, &mut body), &[]),
        OutgoingPacket::Suback(id, granted) => {
            put_id(*id, v5, &mut body);
            let code = |granted: &Result<QoS, Reason>| match granted {
                Ok(qos) => *qos as u8,
                Err(reason) if v5 => reason.code(),
                Err(_) => Reason::UnspecifiedError.code(),
            };
            body.extend(granted.iter().map(code));
            (0x90, &[])
        }
        OutgoingPacket::Unsuback(id, reasons) => {
            put_id(*id, v5, &mut body);
            if v5 {
                body.extend(reasons.iter().map(|reason| reason.code()));
            }
            (0xb0, &[])
        }
        OutgoingPacket::Pingresp => (0xd0, &[]),
        OutgoingPacket::Disconnect(reason) => {
            body.put_u8(reason.code());
            (0xe0, &[])
        }
        OutgoingPacket::Auth(method) => {
            let mut properties = BytesMut::new();
            properties.put_u8(property::AUTHENTICATION_METHOD);
            put_text(method, &mut properties);
            body.put_u8(Reason::Success.code());
            put_length(properties.len(), &mut body);
            body.put_slice(&properties);
            (0xf0, &[])
        }
    };
    let length = body.len() + payload.len();
    if length > LENGTH_MAX || 1 + length_bytes(length) + length > packet_bytes_max {
        return false;
    }
    out.reserve(1 + length_bytes(length) + length);
    out.put_u8(first);
    put_length(length, out);
    out.put_slice(&body);
    out.put_slice(payload);
    true
}

fn connack_body(connack: &Connack, v5: bool, body: &mut BytesMut) {
    body.put_u8(u8::from(connack.session_present));
    if !v5 {
        return body.put_u8(connack.reason.connect_return_code().unwrap_or(3));
    }
    body.put_u8(connack.reason.code());
    let mut properties = BytesMut::new();
    if connack.reason == Reason::Success {
        properties.put_u8(property::RECEIVE_MAXIMUM);
        properties.put_u16(connack.receive_maximum);
        properties.put_u8(property::PACKET_BYTES_MAX);
        properties.put_u32(u32::try_from(connack.packet_bytes_max).unwrap_or(u32::MAX));
        properties.put_u8(property::TOPIC_ALIAS_MAXIMUM);
        properties.put_u16(connack.topic_alias_maximum);
    }
    if let Some(method) = connack.authentication_method {
        properties.put_u8(property::AUTHENTICATION_METHOD);
        put_text(method, &mut properties);
    }
    if let Some(id) = &connack.assigned_client_id {
        properties.put_u8(property::ASSIGNED_CLIENT_ID);
        put_text(id, &mut properties);
    }
    if let Some(expiry) = connack.session_expiry {
        properties.put_u8(property::SESSION_EXPIRY);
        properties.put_u32(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX));
    }
    if let Some(keep_alive) = connack.keep_alive {
        properties.put_u8(property::SERVER_KEEP_ALIVE);
        properties.put_u16(u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX));
    }
    put_length(properties.len(), body);
    body.put_slice(&properties);
}

fn publish_body(delivery: &Delivery<'_>, v5: bool, body: &mut BytesMut) {
    let known_by_alias = delivery.alias.is_some_and(|(_, known)| known);
    put_text(if known_by_alias { "" } else { delivery.topic }, body);
    if let Some(PacketId(id)) = delivery.id {
        body.put_u16(id.get());
    }
    if !v5 {
        return;
    }
    let mut properties = BytesMut::new();
    put_message_properties(delivery.properties, &mut properties);
    if let Some((alias, _)) = delivery.alias {
        properties.put_u8(property::TOPIC_ALIAS);
        properties.put_u16(alias.get());
    }
    for identifier in delivery.identifiers {
        properties.put_u8(property::SUBSCRIPTION_IDENTIFIER);
        put_length(*identifier as usize, &mut properties);
    }
    put_length(properties.len(), body);
    body.put_slice(&properties);
}

fn put_message_properties(message: &MessageProperties, properties: &mut BytesMut) {
    if message.is_text {
        properties.put_u8(property::PAYLOAD_FORMAT);
        properties.put_u8(1);
    }
    if let Some(expiry) = message.expiry {
        properties.put_u8(property::MESSAGE_EXPIRY);
        properties.put_u32(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX));
    }
    if let Some(content_type) = &message.content_type {
        properties.put_u8(property::CONTENT_TYPE);
        put_text(content_type, properties);
    }
    if let Some(topic) = &message.response_topic {
        properties.put_u8(property::RESPONSE_TOPIC);
        put_text(topic, properties);
    }
    if let Some(correlation) = &message.correlation {
        properties.put_u8(property::CORRELATION);
        put_bytes(correlation, properties);
    }
    for (key, value) in &message.user_properties {
        properties.put_u8(property::USER_PROPERTY);
        put_text(key, properties);
        put_text(value, properties);
    }
}

/// Appends the body and returns the first byte of the packet. A success is encoded without a reason code.
fn ack_body(ack: Ack, v5: bool, body: &mut BytesMut) -> u8 {
    body.put_u16(ack.id.0.get());
    if v5 && ack.reason != Reason::Success {
        body.put_u8(ack.reason.code());
    }
    match ack.kind {
        AckKind::Puback => 0x40,
        AckKind::Pubrec => 0x50,
        AckKind::Pubrel => 0x62,
        AckKind::Pubcomp => 0x70,
    }
}

fn put_id(id: PacketId, v5: bool, body: &mut BytesMut) {
    body.put_u16(id.0.get());
    if v5 {
        put_length(0, body);
    }
}

/// The texts come from packets or are stream names, so their length fits into 16 bits.
fn put_text(text: &str, out: &mut BytesMut) {
    put_bytes(text.as_bytes(), out);
}

fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX), "a string in a packet has at most 65 535 bytes");
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(bytes.get(..usize::from(length)).unwrap_or_default());
}

fn length_bytes(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends a variable byte integer (MQTT 5, section 1.5.5).
fn put_length(mut length: usize, out: &mut BytesMut) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::time::Duration;

    use bytes::Bytes;
    use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};

    use super::*;

    const ID: PacketId = PacketId(NonZeroU16::MAX);

    fn encoded(packet: &OutgoingPacket<'_>, version: Version) -> Vec<u8> {
        let mut out = BytesMut::new();
        assert!(encode(packet, version, usize::MAX, &mut out));
        out.to_vec()
    }

    fn delivery<'a>(topic: &'a str, properties: &'a MessageProperties) -> Delivery<'a> {
        Delivery {
            topic,
            alias: None,
            payload: b"text",
            id: Some(ID),
            qos: QoS::ExactlyOnce,
            duplicate: true,
            retain: true,
            properties,
            identifiers: &[1, 300_000],
        }
    }

    #[test]
    fn the_library_parses_an_encoded_publish() {
        let topic = "a/b";
        let properties = MessageProperties {
            expiry: Some(Duration::from_secs(9)),
            is_text: true,
            content_type: Some("text/plain".into()),
            response_topic: Some("answers".into()),
            correlation: Some(Bytes::from_static(b"\0\xff")),
            user_properties: vec![("key".into(), "value".into()), ("key".into(), "".into())],
        };
        let packet = OutgoingPacket::Publish(delivery(topic, &properties));
        let bytes = encoded(&packet, Version::V5);
        let (read, _) = v5_0::Publish::parse(bytes[0] & 0x0f, bytes[2..].into()).unwrap();
        assert_eq!(
            (read.topic_name(), read.payload().as_slice(), read.packet_id()),
            ("a/b", &b"text"[..], Some(u16::MAX))
        );
        assert!(read.dup() && read.retain() && read.qos() as u8 == 2);
        let names: Vec<_> = read.props().iter().map(|property| property.id() as u8).collect();
        assert_eq!(names, [1, 2, 3, 8, 9, 0x26, 0x26, 0x0b, 0x0b]);
        assert!(matches!(&read.props()[8], Property::SubscriptionIdentifier(id) if id.val() == 300_000));
        let bytes = encoded(&packet, Version::V3);
        let (read, _) = v3_1_1::Publish::parse(bytes[0] & 0x0f, bytes[2..].into()).unwrap();
        assert_eq!((read.topic_name(), read.payload().as_slice()), ("a/b", &b"text"[..]));
    }

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        let topic = "a";
        let properties = MessageProperties::default();
        for size in [0, 120, 125, 16_380, 2_097_150] {
            let payload = vec![7; size];
            let packet =
                Delivery { payload: &payload, id: None, identifiers: &[], ..delivery(topic, &properties) };
            let packet = Delivery { qos: QoS::AtMostOnce, ..packet };
            let mut frames = super::super::PacketReader::default();
            frames.put(&encoded(&OutgoingPacket::Publish(packet), Version::V3));
            let frame = frames.next(usize::MAX).unwrap().unwrap();
            assert_eq!(frame.body.len(), 3 + size);
        }
    }

    #[test]
    fn a_packet_that_is_too_large_leaves_the_output_unchanged() {
        let topic = "a";
        let properties = MessageProperties::default();
        let packet = OutgoingPacket::Publish(delivery(topic, &properties));
        let size = encoded(&packet, Version::V5).len();
        let mut out = BytesMut::new();
        assert!(!encode(&packet, Version::V5, size - 1, &mut out));
        assert!(out.is_empty());
        assert!(encode(&packet, Version::V5, size, &mut out));
    }

    #[test]
    fn the_library_parses_the_other_encoded_packets() {
        let connack = || {
            OutgoingPacket::Connack(Connack {
                reason: Reason::Success,
                session_present: true,
                receive_maximum: 100,
                packet_bytes_max: 1 << 20,
                topic_alias_maximum: 16,
                assigned_client_id: Some("id".into()),
                session_expiry: Some(Duration::MAX),
                keep_alive: Some(Duration::from_secs(60)),
                authentication_method: Some("jwt"),
            })
        };
        let read = v5_0::Connack::parse(&encoded(&connack(), Version::V5)[2..]).unwrap().0;
        assert!(read.session_present() && read.props().len() == 7);
        assert!(v3_1_1::Connack::parse(&encoded(&connack(), Version::V3)[2..]).unwrap().0.session_present());
        let ack = |kind| OutgoingPacket::Ack(Ack { kind, id: ID, reason: Reason::PacketIdentifierNotFound });
        let read = v5_0::Pubrel::parse(&encoded(&ack(AckKind::Pubrel), Version::V5)[2..]).unwrap().0;
        assert_eq!((read.packet_id(), read.reason_code().unwrap() as u8), (u16::MAX, 0x92));
        assert_eq!(encoded(&ack(AckKind::Pubcomp), Version::V3), [0x70, 2, 0xff, 0xff]);
        let granted = vec![Ok(QoS::ExactlyOnce), Err(Reason::QuotaExceeded)];
        let suback = OutgoingPacket::Suback(ID, granted);
        let codes = v5_0::Suback::parse(&encoded(&suback, Version::V5)[2..]).unwrap().0.reason_codes();
        assert_eq!(codes.iter().map(|code| *code as u8).collect::<Vec<_>>(), [2, 0x97]);
        assert_eq!(encoded(&suback, Version::V3), [0x90, 4, 0xff, 0xff, 2, 0x80]);
        assert_eq!(encoded(&OutgoingPacket::Pingresp, Version::V5), [0xd0, 0]);
        let bytes = encoded(&OutgoingPacket::Auth("jwt"), Version::V5);
        let read = v5_0::Auth::parse(&bytes[2..]).unwrap().0;
        assert_eq!(read.reason_code().unwrap() as u8, 0);
        assert!(
            matches!(&read.props().as_ref().unwrap()[..], [Property::AuthenticationMethod(method)] if method.val() == "jwt")
        );
        let bytes = encoded(&OutgoingPacket::Disconnect(Reason::ServerShuttingDown), Version::V5);
        assert_eq!(v5_0::Disconnect::parse(&bytes[2..]).unwrap().0.reason_code().unwrap() as u8, 0x8b);
    }
}
