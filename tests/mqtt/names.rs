//! MQTT topics that are not valid stream names, and stream names that are not valid topics.

use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Gateway, get, post};

#[tokio::test]
async fn a_topic_with_empty_levels_is_a_stream_with_an_escaped_name() {
    let gateway = Gateway::start(&[]).await;
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("reader")).await;
    reader.subscribe("#", 1).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello { version: 4, ..Hello::new("publisher") }).await;
    for (topic, target) in [
        ("/home/lamp", "%2500/home/lamp"),
        ("home/", "home/%2500"),
        ("a//b", "a/%2500/b"),
        ("a/../b", "a/%252E%252E/b"),
        ("50%", "50%25"),
        ("%2F", "%25252F"),
    ] {
        assert_eq!(publisher.publish(topic, "x", 1).await, 0);
        assert_eq!(reader.take().await.topic, topic);
        let log = gateway.send(get(format!("/v1/stream/{target}"))).await.expect(200);
        assert_eq!(&log.body[..], b"x", "{topic}");
        gateway
            .send(
                post(format!("/v1/stream/{target}"))
                    .header("content-type", "application/octet-stream")
                    .body("y"),
            )
            .await
            .expect(204);
        assert_eq!(reader.take().await.topic, topic);
    }
}

#[tokio::test]
async fn long_topics_and_client_ids_are_taken_and_survive_a_restart() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = ["--store", directory.path().to_str().unwrap()];
    let topic = format!("/{}", "x".repeat(65_534));
    let hello = Hello::lasting(&"c".repeat(1024));
    let gateway = Gateway::start(&store).await;
    let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
    assert_eq!(reader.subscribe("/#", 1).await, 1);
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish(&topic, "first", 1).await;
    assert_eq!(reader.take().await.topic, topic);
    drop(reader);
    gateway.until_mqtt_clients(1).await;
    publisher.publish(&topic, "second", 1).await;
    gateway.kill().await;
    let gateway = Gateway::start(&store).await;
    let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
    assert!(reader.connack.0);
    let mut message = reader.take().await;
    if message.payload == b"first" {
        message = reader.take().await;
    }
    assert_eq!((message.topic, &message.payload[..]), (topic, &b"second"[..]));
}

#[tokio::test]
async fn a_stream_whose_name_has_wildcards_is_never_sent_as_a_topic() {
    let gateway = Gateway::start(&[]).await;
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("reader")).await;
    reader.subscribe("#", 1).await;
    reader.subscribe("a/+", 1).await;
    for target in ["a/%2B", "%23", "a%2Bb", "a/%252F"] {
        gateway.send(post(format!("/v1/stream/{target}?create=1")).json("1")).await.expect(204);
    }
    gateway.send(post("/v1/stream/a/b?create=1").json("2")).await.expect(204);
    assert_eq!(reader.take().await.topic, "a/b");
    let mut late = Mqtt::connect(gateway.mqtt, &Hello::lasting("late")).await;
    late.subscribe("#", 1).await;
    gateway.send(post("/v1/stream/%23").json("3")).await.expect(204);
    gateway.send(post("/v1/stream/a/b").json("4")).await.expect(204);
    assert_eq!(late.take().await.payload, b"4");
}
