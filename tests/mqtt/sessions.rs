//! Session state: the offset of a client in each stream, and its messages in flight.

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{ReceiveMaximum, SessionExpiryInterval};

use crate::world::mqtt::{Hello, Mqtt, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, publish_bytes};
use crate::world::{Gateway, delete, post, put, until};

async fn publish_numbers(client: &mut Mqtt, topic: &str, numbers: std::ops::Range<u32>, qos: u8) {
    for number in numbers {
        assert_eq!(client.publish(topic, number.to_string(), qos).await, 0);
    }
}

#[tokio::test]
async fn a_client_that_reconnects_gets_the_messages_in_flight_and_then_those_that_it_missed() {
    let gateway = Gateway::start(&[]).await;
    for version in [4, 5] {
        let hello = Hello { version, ..Hello::lasting(&format!("phone-{version}")) };
        let topic = format!("orders/{version}");
        let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
        let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
        assert!(!reader.connack.0);
        assert_eq!(reader.subscribe("orders/+", 2).await, 2);
        // 1. Two messages with QoS 1 and two with QoS 2; one of each is acknowledged, the other one with QoS 2 only received (PUBREC).
        publish_numbers(&mut publisher, &topic, 0..2, 1).await;
        publish_numbers(&mut publisher, &topic, 2..5, 2).await;
        let mut sent = Vec::new();
        for _ in 0..5 {
            sent.push(reader.message().await);
        }
        assert_eq!(sent.iter().map(|m| m.qos).collect::<Vec<_>>(), [1, 1, 2, 2, 2]);
        assert!(sent.iter().all(|message| !message.duplicate));
        reader.acknowledge(PUBACK, sent[0].id).await;
        reader.acknowledge(PUBREC, sent[2].id).await;
        reader.receive_ack(PUBREL, sent[2].id).await;
        reader.acknowledge(PUBCOMP, sent[2].id).await;
        reader.acknowledge(PUBREC, sent[3].id).await;
        reader.receive_ack(PUBREL, sent[3].id).await;
        // 2. The client's connection breaks, and more is published.
        drop(reader);
        gateway.until_mqtt_clients(1).await;
        publish_numbers(&mut publisher, &topic, 5..8, 1).await;
        // 3. The client reconnects: unacknowledged messages are sent again with their ids, in order, and then the others.
        let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
        assert!(reader.connack.0, "the session is present");
        let again = reader.message().await;
        assert_eq!((again.id, again.duplicate, &again.payload[..]), (sent[1].id, true, &b"1"[..]));
        reader.acknowledge(PUBACK, again.id).await;
        assert_eq!(reader.receive().await, Some(Packet::Ack(PUBREL, sent[3].id, 0)));
        reader.acknowledge(PUBCOMP, sent[3].id).await;
        let again = reader.message().await;
        assert_eq!((again.id, again.duplicate, &again.payload[..]), (sent[4].id, true, &b"4"[..]));
        reader.acknowledge(PUBREC, again.id).await;
        reader.receive_ack(PUBREL, again.id).await;
        reader.acknowledge(PUBCOMP, again.id).await;
        for number in 5..8 {
            let new = reader.take().await;
            assert_eq!((new.duplicate, new.payload), (false, number.to_string().into_bytes()));
        }
        reader.ping().await;
        assert_eq!(reader.receive_within(Duration::from_millis(50)).await, None);
    }
    assert_eq!(gateway.metric("pollgate_mqtt_sent_again_total").await, 4.0);
}

#[tokio::test]
async fn the_receive_maximum_of_a_client_is_respected() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    for (hello, window) in
        [(Hello::lasting("small").with(ReceiveMaximum::new(3).unwrap()), 3), (Hello::lasting("large"), 100)]
    {
        let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
        reader.subscribe(&hello.id, 1).await;
        publish_numbers(&mut publisher, &hello.id, 0..120, 1).await;
        let mut ids = Vec::new();
        for _ in 0..window {
            ids.push(reader.message().await.id);
        }
        // A further message would arrive before the response to a ping.
        reader.ping().await;
        assert_eq!(reader.receive_within(Duration::from_millis(50)).await, None);
        reader.acknowledge(PUBACK, ids[0]).await;
        assert_eq!(reader.message().await.payload, window.to_string().into_bytes());
        // And again after a reconnect.
        drop(reader);
        let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
        for number in 1..120 {
            assert_eq!(reader.take().await.payload, number.to_string().into_bytes());
        }
    }
}

#[tokio::test]
async fn a_message_of_qos_2_is_in_the_log_once_however_often_it_is_sent() {
    let gateway = Gateway::start(&[]).await;
    let hello = Hello::lasting("publisher");
    let mut publisher = Mqtt::connect(gateway.mqtt, &hello).await;
    let publish = |duplicate| publish_bytes(5, "once", b"x", 2, 7, (duplicate, false), Vec::new());
    publisher.send(&publish(false)).await;
    assert_eq!(publisher.receive_ack(PUBREC, 7).await, 0);
    publisher.send(&publish(true)).await;
    assert_eq!(publisher.receive_ack(PUBREC, 7).await, 0);
    drop(publisher);
    let mut publisher = Mqtt::connect(gateway.mqtt, &hello).await;
    publisher.send(&publish(true)).await;
    assert_eq!(publisher.receive_ack(PUBREC, 7).await, 0);
    publisher.acknowledge(PUBREL, 7).await;
    assert_eq!(publisher.receive_ack(PUBCOMP, 7).await, 0);
    publisher.acknowledge(PUBREL, 7).await;
    assert_eq!(publisher.receive_ack(PUBCOMP, 7).await, 0x92);
    // The id is free for another message.
    publisher.send(&publish(false)).await;
    assert_eq!(publisher.receive_ack(PUBREC, 7).await, 0);
    let log = gateway.send(crate::world::get("/v1/stream/once")).await.expect(200);
    assert_eq!(&log.body[..], b"xx");
}

#[tokio::test]
async fn sessions_end_by_expiry_or_a_clean_start() {
    let gateway = Gateway::start(&[]).await;
    let short = Hello::lasting("short").with(SessionExpiryInterval::new(1).unwrap());
    let short = Hello { properties: vec![SessionExpiryInterval::new(1).unwrap().into()], ..short };
    let mut reader = Mqtt::connect(gateway.mqtt, &short).await;
    reader.subscribe("a", 1).await;
    drop(reader);
    until("the session ended", async || gateway.metric("pollgate_mqtt_sessions").await == 0.0).await;
    assert!(!Mqtt::connect(gateway.mqtt, &short).await.connack.0);

    let lasting = Hello::lasting("lasting");
    let mut reader = Mqtt::connect(gateway.mqtt, &lasting).await;
    reader.subscribe("a", 1).await;
    drop(reader);
    let clean = Hello { clean: true, ..lasting.clone() };
    let mut reader = Mqtt::connect(gateway.mqtt, &clean).await;
    assert!(!reader.connack.0);
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish("a", "for nobody", 1).await;
    reader.ping().await;
    assert_eq!(reader.receive_within(Duration::from_millis(50)).await, None);
    // A DISCONNECT may shorten it.
    reader.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    while reader.receive().await.is_some() {}
    assert!(!Mqtt::connect(gateway.mqtt, &lasting).await.connack.0);
}

#[tokio::test]
async fn messages_trimmed_meanwhile_are_counted_and_the_others_are_delivered() {
    let gateway = Gateway::start(&[]).await;
    let keep = put("/v1/stream/ticker").header("stream-max-messages", 2).json("");
    gateway.send(keep).await.expect(201);
    let hello = Hello::lasting("reader");
    let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
    reader.subscribe("ticker", 1).await;
    gateway.send(post("/v1/stream/ticker").json("0")).await.expect(204);
    reader.message().await;
    drop(reader);
    gateway.until_mqtt_clients(0).await;
    gateway.send(post("/v1/stream/ticker").json("[1,2,3,4,5]")).await.expect(204);
    let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
    for payload in ["4", "5"] {
        assert_eq!(reader.take().await.payload, payload.as_bytes());
    }
    // The message in flight and three after it.
    assert_eq!(gateway.metric("pollgate_mqtt_missed_total").await, 4.0);
}

#[tokio::test]
async fn a_recreated_stream_is_sent_from_its_beginning() {
    let gateway = Gateway::start(&[]).await;
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::lasting("reader")).await;
    reader.subscribe("life", 1).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    for life in 0..3 {
        for number in 0..3 {
            publisher.publish("life", format!("{life}-{number}"), 1).await;
            assert_eq!(reader.take().await.payload, format!("{life}-{number}").into_bytes());
        }
        gateway.send(delete("/v1/stream/life")).await.expect(204);
    }
}
