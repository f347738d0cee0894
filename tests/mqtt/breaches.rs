//! Protocol violations: each ends the connection, with a reason code in MQTT 5.

use mqtt_protocol_core::mqtt::packet::TopicAlias;

use crate::world::Gateway;
use crate::world::mqtt::{Hello, Mqtt, PUBACK, PUBCOMP, PUBREC, Packet, ack_bytes, publish_bytes};

#[tokio::test]
async fn breaches_of_the_protocol_end_the_connection_with_their_reason() {
    let gateway = Gateway::start(&["--limit", "mqtt_in_flight_max=2"]).await;
    let publish =
        |topic: &str, qos, id, properties| publish_bytes(5, topic, b"x", qos, id, (false, false), properties);
    let alias = |alias: u16| vec![TopicAlias::new(alias).unwrap().into()];
    let two_received = [publish("a", 2, 1, vec![]), publish("a", 2, 2, vec![])].concat();
    for (bytes, reason) in [
        (Hello::new("again").bytes(), 0x82),
        (vec![0x36, 5, 0, 1, b'a', 0, 1], 0x81),
        (vec![0x32, 6, 0, 1, b'a', 0, 0, 0], 0x82),
        (vec![0x30, 4, 0, 9, b'a', 0], 0x81),
        (vec![0x30, 5, 0, 2, b'a', 0, 0], 0x81),
        (vec![0x80, 3, 0, 1, 0], 0x81),
        (vec![0x82, 3, 0, 1, 0], 0x82),
        (vec![0xc0, 1, 0], 0x81),
        (vec![0x20, 2, 0, 0], 0x82),
        (vec![0xf0, 0], 0x82),
        (vec![0x30, 0xff, 0xff, 0xff, 0x7f], 0x95),
        (vec![0x30, 0xff, 0xff, 0xff, 0xff], 0x81),
        (publish("a", 0, 0, alias(17)), 0x94),
        // Section 3.3.2.3.4: an alias without a topic that was not set before.
        (b"\x30\x06\0\0\x03\x23\0\x05".to_vec(), 0x82),
        ([two_received, publish("a", 2, 3, vec![])].concat(), 0x93),
    ] {
        let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client")).await;
        client.send(&bytes).await;
        let last = loop {
            match client.receive().await {
                Some(Packet::Ack(PUBREC, ..)) => {}
                last => break last,
            }
        };
        assert_eq!(last, Some(Packet::Disconnect(reason)), "{bytes:02x?}");
        assert_eq!(client.receive().await, None);
        // A client of 3.1.1 gets no reason.
        if bytes[0] != 0x30 && bytes[0] != 0x10 && bytes[0] != 0x34 {
            let hello = Hello { version: 4, ..Hello::new("client") };
            let mut client = Mqtt::connect(gateway.mqtt, &hello).await;
            client.send(&bytes).await;
            assert_eq!(client.receive().await, None, "{bytes:02x?}");
        }
    }
}

/// Bytes after the CONNACK, and the reason in the DISCONNECT of MQTT 5.
async fn ends_with(gateway: &Gateway, version: u8, bytes: &[u8], reason: u8) {
    let mut client = Mqtt::connect(gateway.mqtt, &Hello { version, ..Hello::new("client") }).await;
    client.send(bytes).await;
    if version == 5 {
        assert_eq!(client.receive().await, Some(Packet::Disconnect(reason)), "{bytes:02x?}");
    }
    assert_eq!(client.receive().await, None, "{bytes:02x?}");
}

#[tokio::test]
async fn packets_that_are_malformed_in_a_detail_are_not_let_through() {
    let gateway = Gateway::start(&["--limit", "takeover_delay=0s"]).await;
    for (version, bytes, reason) in [
        // Reserved bits of the options of 3.1.1.
        (4, &b"\x82\x06\0\x01\0\x01a\x04"[..], 0),
        (4, b"\x82\x06\0\x01\0\x01a\x80", 0),
        // U+0000 and malformed filters.
        (4, b"\x82\x07\0\x01\0\x02a\0\0", 0),
        (5, b"\x82\x08\0\x01\0\0\x02a\0\0", 0x81),
        (5, b"\x82\x08\0\x01\0\0\x02a#\0", 0x81),
        (5, b"\x82\x06\0\x01\0\0\0\0", 0x81),
        (4, b"\xa2\x06\0\x01\0\x02+a", 0),
        (5, b"\x30\x05\0\x02a+\0", 0x81),
        (4, b"\x30\x04\0\x02#a", 0),
        // DUP on a QoS 0 message, which is never sent again.
        (4, b"\x38\x04\0\x01ax", 0),
        // A response topic with a wildcard, and U+0000 in a property.
        (5, b"\x30\x08\0\x01a\x04\x08\0\x01#", 0x82),
        (5, b"\x30\x08\0\x01a\x04\x03\0\x01\0", 0x81),
        // Two subscription identifiers, and properties of other packets.
        (5, b"\x82\x0b\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0", 0x82),
        (5, b"\x82\x0b\0\x01\x04\x03\0\x01a\0\x01a\0", 0x81),
        // Acknowledgements of a wrong length, with an unknown reason, and without an id.
        (4, b"\x40\x03\0\x01\0", 0),
        (4, b"\x62\x03\0\x01\0", 0),
        (5, b"\x40\x03\0\x01\xff", 0x82),
        (5, b"\x50\x02\0\0", 0x82),
        // Packets that only a server sends, and reserved ones.
        (5, b"\xd1\0", 0x82),
        (5, b"\x01\0", 0x82),
        // More levels than the trees of filters may have.
        (4, &[&[0x82, 0xcd, 1, 0, 1, 0, 200][..], &[b'/'; 200], &[0]].concat(), 0),
        (5, &[&[0x30, 0xcb, 1, 0, 200][..], &[b'/'; 200], &[0]].concat(), 0x81),
    ] {
        ends_with(&gateway, version, bytes, reason).await;
    }
    let will = Some((String::new(), String::new(), Vec::new()));
    let mut client = Mqtt::open(gateway.mqtt, 5).await;
    client.send(&Hello { will, ..Hello::new("client") }.bytes()).await;
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
async fn an_acknowledgement_that_a_message_cannot_have_ends_the_connection() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    for (qos, kind) in [(1, PUBREC), (1, PUBCOMP), (2, PUBACK), (2, PUBCOMP)] {
        let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("")).await;
        reader.subscribe("a", qos).await;
        publisher.publish("a", "x", 2).await;
        let message = reader.message().await;
        reader.acknowledge(kind, message.id).await;
        assert_eq!(reader.receive().await, Some(Packet::Disconnect(0x82)), "{kind} for QoS {qos}");
    }
    // A message that its receiver refuses is not released.
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("")).await;
    reader.subscribe("a", 2).await;
    publisher.publish("a", "x", 2).await;
    let message = reader.message().await;
    let [first, _, high, low] = ack_bytes(PUBREC, message.id);
    reader.send(&[first, 3, high, low, 0x80, 0xc0, 0]).await;
    assert_eq!(reader.receive().await, Some(Packet::Pingresp));
}

/// A mosquitto bridge that speaks 3.1.1 sets bit 7 of its protocol level, or is told by its will.
#[tokio::test]
async fn a_bridge_does_not_receive_its_own_messages_and_sees_retain_flags() {
    let gateway = Gateway::start(&[]).await;
    let plain = Hello { version: 4, ..Hello::new("bridge") };
    let mut private = plain.bytes();
    private[8] = 0x84;
    let will = Some(("$SYS/broker/connection/site/state".into(), "0".into(), Vec::new()));
    for (index, bytes) in [private, Hello { will, ..plain }.bytes()].into_iter().enumerate() {
        let mut bridge = Mqtt::open(gateway.mqtt, 4).await;
        bridge.send(&bytes).await;
        assert!(matches!(bridge.receive().await, Some(Packet::Connack { code: 0, .. })));
        bridge.subscribe(&format!("{index}/+"), 1).await;
        bridge.publish(&format!("{index}/own"), "x", 1).await;
        let mut other = Mqtt::connect(gateway.mqtt, &Hello::new("other")).await;
        let topic = format!("{index}/other");
        other.publish_with(&topic, b"x", 1, true, Vec::new()).await;
        let message = bridge.take().await;
        assert_eq!((message.topic, message.retain), (topic, true));
    }
}
