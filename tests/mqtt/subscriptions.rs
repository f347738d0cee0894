//! Which messages a client gets, with which QoS, identifiers and flags.

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{
    MaximumPacketSize, MessageExpiryInterval, Property, ReceiveMaximum, RetainHandling, SubOpts,
    SubscriptionIdentifier, TopicAliasMaximum,
};

use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Gateway, get, post, put};

#[tokio::test]
async fn overlapping_filters_bring_a_message_once_with_every_identifier() {
    let gateway = Gateway::start(&[]).await;
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("reader")).await;
    for (filter, qos, identifier) in [("a/#", 0, 1), ("a/+", 2, 2), ("a/b", 1, 3), ("+/c", 2, 4)] {
        let options = SubOpts::new().set_qos(qos.try_into().unwrap());
        let identifier = SubscriptionIdentifier::new(identifier).unwrap().into();
        assert_eq!(reader.subscribe_with(filter, options, vec![identifier]).await, qos);
    }
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish("a/b", "x", 2).await;
    let message = reader.take().await;
    let mut identifiers: Vec<_> = message
        .properties
        .iter()
        .filter_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier.val()),
            _ => None,
        })
        .collect();
    identifiers.sort_unstable();
    assert_eq!((message.qos, identifiers), (2, vec![1, 2, 3]));
    reader.ping().await;
    assert_eq!(reader.receive_within(Duration::from_millis(50)).await, None);
    // After the subscription with the highest QoS has ended, the next highest one applies.
    assert_eq!(reader.unsubscribe("a/+").await, 0);
    assert_eq!(reader.unsubscribe("a/+").await, 0x11);
    publisher.publish("a/b", "y", 2).await;
    assert_eq!(reader.take().await.qos, 1);
}

#[tokio::test]
async fn wildcards_match_streams_that_are_created_later_but_none_with_a_dollar() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/old").json("[1]")).await.expect(201);
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("reader")).await;
    reader.subscribe("#", 1).await;
    for name in ["$SYS/x", "new", "deep/er/still", "old"] {
        gateway.send(post(format!("/v1/stream/{name}?create=1")).json("[2,3]")).await;
    }
    let mut seen = Vec::new();
    for _ in 0..6 {
        let message = reader.take().await;
        seen.push((message.topic, String::from_utf8(message.payload).unwrap()));
    }
    for name in ["new", "deep/er/still", "old"] {
        let of_one: Vec<_> =
            seen.iter().filter(|(topic, _)| topic == name).map(|(_, text)| &text[..]).collect();
        assert_eq!(of_one, ["2", "3"], "{name}");
    }
    reader.ping().await;
    assert_eq!(reader.receive_within(Duration::from_millis(50)).await, None);
    reader.subscribe("$SYS/#", 1).await;
    gateway.send(post("/v1/stream/$SYS/x").json("4")).await.expect(204);
    assert_eq!(reader.take().await.topic, "$SYS/x");
}

#[tokio::test]
async fn retained_messages_come_first_according_to_retain_handling_and_never_twice() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    for topic in ["home/a", "home/b"] {
        publisher.publish_with(topic, b"kept", 1, true, Vec::new()).await;
        publisher.publish(topic, "passing", 1).await;
    }
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("reader")).await;
    reader.subscribe("home/+", 1).await;
    for _ in 0..2 {
        let message = reader.take().await;
        assert_eq!((message.retain, &message.payload[..]), (true, &b"kept"[..]));
    }
    // Messages beyond the window also arrive after a reconnect.
    let one = Hello::lasting("one").with(ReceiveMaximum::new(1).unwrap());
    let mut slow = Mqtt::connect(gateway.mqtt, &one).await;
    slow.subscribe("home/+", 1).await;
    let first = slow.message().await;
    drop(slow);
    let mut slow = Mqtt::connect(gateway.mqtt, &one).await;
    assert_eq!(slow.take().await.topic, first.topic);
    let second = slow.take().await;
    assert_eq!((second.retain, second.topic != first.topic), (true, true));
    // A message that is published during the subscription arrives once, with its retain flag only if `retain as published` is set.
    publisher.publish_with("home/a", b"new", 1, true, Vec::new()).await;
    assert!(!reader.take().await.retain);
    let handling = |handling| SubOpts::new().set_rh(handling).set_rap(true);
    reader.subscribe_with("home/+", handling(RetainHandling::SendRetainedIfNotExists), Vec::new()).await;
    reader.subscribe_with("home/b", handling(RetainHandling::DoNotSendRetained), Vec::new()).await;
    publisher.publish_with("home/b", b"newer", 1, true, Vec::new()).await;
    let message = reader.take().await;
    assert_eq!((message.retain, &message.payload[..]), (true, &b"newer"[..]));
    reader.subscribe_with("home/b", handling(RetainHandling::SendRetained), Vec::new()).await;
    assert_eq!(reader.take().await.payload, b"newer");
    // An empty message clears the retained one, and is delivered itself.
    publisher.publish_with("home/b", b"", 1, true, Vec::new()).await;
    assert_eq!(reader.take().await.payload, b"");
    reader.subscribe_with("home/b", handling(RetainHandling::SendRetained), Vec::new()).await;
    reader.ping().await;
    assert_eq!(reader.receive_within(Duration::from_millis(50)).await, None);
}

#[tokio::test]
async fn own_messages_are_not_delivered_with_no_local() {
    let gateway = Gateway::start(&[]).await;
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("both")).await;
    client.subscribe_with("echo", SubOpts::new().set_nl(true), Vec::new()).await;
    client.publish("echo", "own", 1).await;
    gateway
        .send(post("/v1/stream/echo").header("content-type", "application/octet-stream").body("other"))
        .await
        .expect(204);
    assert_eq!(client.take().await.payload, b"other");
}

#[tokio::test]
async fn expired_and_oversized_messages_are_passed_over() {
    let gateway = Gateway::start(&[]).await;
    let small = Hello::lasting("small").with(MaximumPacketSize::new(60).unwrap());
    let mut reader = Mqtt::connect(gateway.mqtt, &small).await;
    reader.subscribe("a", 1).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish("a", vec![7; 100], 1).await;
    let hour = MessageExpiryInterval::new(3600).unwrap();
    publisher.publish_with("a", b"fits", 1, false, vec![hour.into()]).await;
    let message = reader.take().await;
    assert_eq!(message.payload, b"fits");
    assert!(message.properties.iter().any(
        |property| matches!(property, Property::MessageExpiryInterval(left) if (3590..=3600).contains(&left.val()))
    ));
    drop(reader);
    gateway.until_mqtt_clients(1).await;
    let second = MessageExpiryInterval::new(1).unwrap();
    publisher.publish_with("a", b"short", 1, false, vec![second.into()]).await;
    publisher.publish("a", "after", 1).await;
    // The gateway runs on real time, and a second is the shortest expiry.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut reader = Mqtt::connect(gateway.mqtt, &small).await;
    assert_eq!(reader.take().await.payload, b"after");
    let counted = |name| gateway.metric(name);
    assert_eq!(counted("pollgate_mqtt_too_large_total").await, 1.0);
    assert_eq!(counted("pollgate_mqtt_expired_total").await, 1.0);
}

#[tokio::test]
async fn a_topic_is_spelled_once_to_a_client_that_takes_aliases() {
    let gateway = Gateway::start(&[]).await;
    let hello = Hello::new("reader").with(TopicAliasMaximum::new(1).unwrap());
    let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
    reader.subscribe("#", 0).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    let mut topics = Vec::new();
    for topic in ["a", "a", "b", "a"] {
        publisher.publish(topic, "x", 1).await;
        let message = reader.take().await;
        let alias = message.properties.iter().any(|property| matches!(property, Property::TopicAlias(_)));
        topics.push((message.topic, alias));
    }
    let expected = [("a", true), ("", true), ("b", false), ("", true)];
    assert_eq!(topics, expected.map(|(topic, alias)| (topic.to_owned(), alias)));
}

#[tokio::test]
async fn json_streams_take_json_alone_and_are_sent_value_by_value() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/numbers").json("")).await.expect(201);
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("reader")).await;
    reader.subscribe("numbers", 2).await;
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client")).await;
    for qos in [1, 2] {
        assert_eq!(client.publish("numbers", "no json", qos).await, 0x99);
        assert_eq!(client.publish("numbers", "[1, {\"a\":2}]", qos).await, 0);
    }
    assert_eq!(client.publish("numbers", "", 1).await, 0x99);
    for payload in ["1", "{\"a\":2}", "1", "{\"a\":2}"] {
        assert_eq!(reader.take().await.payload, payload.as_bytes());
    }
    let log = gateway.send(get("/v1/stream/numbers")).await.expect(200);
    assert_eq!(&log.body[..], b"[1,{\"a\":2},1,{\"a\":2}]");
}
