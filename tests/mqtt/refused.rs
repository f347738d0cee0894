//! Refused messages of clients that cannot be told the reason.

use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Gateway, get, put};

fn old(id: &str) -> Hello {
    Hello { version: 4, ..Hello::new(id) }
}

#[tokio::test]
async fn a_refused_message_does_not_block_those_behind_it() {
    let gateway = Gateway::start(&["--limit", "body_bytes_max=100"]).await;
    gateway.send(put("/v1/stream/json").json("")).await.expect(201);
    gateway.send(put("/v1/stream/closed").json("").header("stream-closed", "true")).await.expect(201);
    let large = "x".repeat(101);
    let mut client = Mqtt::connect(gateway.mqtt, &old("device")).await;
    for (topic, payload) in
        [("json", "no json"), ("json", ""), ("closed", "1"), ("a", &large), ("$SYS/a", "x")]
    {
        for qos in 0..=2 {
            assert_eq!(client.publish(topic, payload, qos).await, 0, "{topic}");
            assert_eq!(client.publish("ok", "x", qos).await, 0);
        }
    }
    client.ping().await;
    assert_eq!(gateway.send(get("/v1/stream/ok")).await.expect(200).body.len(), 15);
    assert_eq!(gateway.metric("pollgate_mqtt_publishes_refused_total").await, 15.0);
    let log = gateway.log();
    assert_eq!(log.lines().filter(|line| line.contains("was refused and is dropped")).count(), 1, "{log}");
    // A mosquitto bridge has such a will, which is dropped.
    let will = Some(("$SYS/broker/connection/site/state".into(), "0".into(), Vec::new()));
    let mut watcher = Mqtt::connect(gateway.mqtt, &old("watcher")).await;
    watcher.subscribe("$SYS/#", 1).await;
    drop(Mqtt::connect(gateway.mqtt, &Hello { will, ..old("bridge") }).await);
    gateway.until_mqtt_clients(2).await;
    watcher.ping().await;
    assert_eq!(watcher.receive_within(std::time::Duration::from_millis(50)).await, None);
    // A client of MQTT 5 is told the reason, except for QoS 0.
    let mut new = Mqtt::connect(gateway.mqtt, &Hello::new("new")).await;
    assert_eq!(new.publish("json", "no json", 1).await, 0x99);
    assert_eq!(new.publish("$SYS/a", "x", 2).await, 0x87);
    new.publish("json", "no json", 0).await;
    new.ping().await;
}

#[tokio::test]
async fn an_operator_may_refuse_filters() {
    let gateway = Gateway::start(&["--mqtt-refuse-filter", "#", "--mqtt-refuse-filter", "a//b"]).await;
    for hello in [old("old"), Hello::new("new")] {
        let mut client = Mqtt::connect(gateway.mqtt, &hello).await;
        for (filter, granted) in [("#", 0x80), ("a//b", 0x80), ("$share/g/#", 0x80), ("+/#", 1), ("a/+/b", 1)]
        {
            assert_eq!(client.subscribe(filter, 1).await, granted, "{filter}");
        }
    }
}

#[tokio::test]
async fn an_operator_may_prefer_the_end_of_the_connection() {
    let gateway = Gateway::start(&["--mqtt-refused", "close"]).await;
    gateway.send(put("/v1/stream/json").json("")).await.expect(201);
    for (hello, qos) in [(old("a"), 0), (old("b"), 1), (Hello::new("c"), 0)] {
        let mut client = Mqtt::connect(gateway.mqtt, &hello).await;
        let bytes = crate::world::mqtt::publish_bytes(
            hello.version,
            "json",
            b"no json",
            qos,
            1,
            (false, false),
            Vec::new(),
        );
        client.send(&bytes).await;
        if hello.version == 5 {
            assert_eq!(client.receive().await, Some(Packet::Disconnect(0x99)));
        }
        assert_eq!(client.receive().await, None);
    }
}
