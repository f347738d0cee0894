//! The ends of connections, and which of them publish the will.

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::WillDelayInterval;
use tokio::time::Instant;

use crate::world::mqtt::{Hello, Mqtt, PUBACK, Packet, publish_bytes};
use crate::world::{Gateway, PATIENCE, Stopwatch};

fn with_will(id: &str, delay: u32) -> Hello {
    let delay = WillDelayInterval::new(delay).unwrap().into();
    Hello { will: Some((format!("gone/{id}"), "gone".into(), vec![delay])), ..Hello::lasting(id) }
}

#[tokio::test]
async fn a_newer_connection_of_a_client_takes_the_session_over() {
    let gateway = Gateway::start(&[]).await;
    let hello = Hello::lasting("phone");
    let mut first = Mqtt::connect(gateway.mqtt, &hello).await;
    first.subscribe("a", 1).await;
    let mut second = Mqtt::connect(gateway.mqtt, &hello).await;
    assert!(second.connack.0);
    assert_eq!(first.receive().await, Some(Packet::Disconnect(0x8e)));
    assert_eq!(first.receive().await, None);
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish("a", "x", 1).await;
    assert_eq!(second.take().await.payload, b"x");
}

#[tokio::test]
async fn of_a_hundred_connections_of_one_client_one_stays() {
    let gateway = Gateway::start(&[]).await;
    let hello = Hello::lasting("phone");
    Mqtt::connect(gateway.mqtt, &hello).await.subscribe("a", 1).await;
    let mut all = Vec::new();
    for _ in 0..100 {
        let mut client = Mqtt::open(gateway.mqtt, 5).await;
        client.send(&hello.bytes()).await;
        all.push(client);
    }
    let (mut staying, mut present) = (0, 0);
    for mut client in all {
        match client.receive().await {
            Some(Packet::Connack { code: 0, present: true, .. }) => present += 1,
            Some(Packet::Connack { code: 0x88, .. }) => continue,
            other => panic!("{other:?}"),
        }
        client.send(&[0xc0, 0]).await;
        match client.receive().await {
            Some(Packet::Pingresp) => staying += 1,
            Some(Packet::Disconnect(0x8e)) => {}
            other => panic!("{other:?}"),
        }
        drop(client);
    }
    assert!(present >= 1 && staying >= 1, "{present} had the session, {staying} were answered");
    assert!(Mqtt::connect(gateway.mqtt, &hello).await.connack.0);
}

#[tokio::test]
async fn a_silent_client_is_disconnected_after_one_and_a_half_times_its_keep_alive() {
    let gateway = Gateway::start(&[]).await;
    for version in [4, 5] {
        let hello = Hello { keep_alive: 1, version, ..Hello::new("silent") };
        let since = Stopwatch::start();
        let mut client = Mqtt::connect(gateway.mqtt, &hello).await;
        if version == 5 {
            assert_eq!(client.receive().await, Some(Packet::Disconnect(0x8d)));
        }
        assert_eq!(client.receive().await, None);
        let silent = since.took();
        let expected = Duration::from_millis(1400)..Duration::from_millis(2500);
        assert!(silent.is_within(&expected), "{silent:?}");
    }
}

#[tokio::test]
async fn a_will_is_published_when_its_client_is_gone_without_a_disconnect() {
    let gateway = Gateway::start(&[]).await;
    let mut watcher = Mqtt::connect(gateway.mqtt, &Hello::new("watcher")).await;
    watcher.subscribe("gone/+", 1).await;
    // A DISCONNECT: no will. A DISCONNECT with reason 0x04 (with will): a will.
    Mqtt::connect(gateway.mqtt, &with_will("polite", 0)).await.disconnect(0).await;
    Mqtt::connect(gateway.mqtt, &with_will("announced", 0)).await.disconnect(4).await;
    assert_eq!(watcher.take().await.topic, "gone/announced");
    // A broken connection, and a protocol violation.
    drop(Mqtt::connect(gateway.mqtt, &with_will("lost", 0)).await);
    assert_eq!(watcher.take().await.topic, "gone/lost");
    let mut breaking = Mqtt::connect(gateway.mqtt, &with_will("breaking", 0)).await;
    breaking.send(&[0xf0, 0]).await;
    assert_eq!(breaking.receive().await, Some(Packet::Disconnect(0x82)));
    assert_eq!(watcher.take().await.topic, "gone/breaking");
    // A reconnect in time: no will, but the will of the next connection is published.
    drop(Mqtt::connect(gateway.mqtt, &with_will("back", 2)).await);
    let back = Mqtt::connect(gateway.mqtt, &with_will("back", 1)).await;
    let since = Instant::now();
    drop(back);
    assert_eq!(watcher.take().await.topic, "gone/back");
    assert!(since.elapsed() >= Duration::from_secs(1));
    watcher.ping().await;
    assert_eq!(watcher.receive_within(Duration::from_millis(1500)).await, None);
}

#[tokio::test]
async fn a_drain_sends_disconnect_and_loses_no_acknowledged_message() {
    let mut gateway = Gateway::start(&[]).await;
    let hello = with_will("reader", 0);
    let mut reader = Mqtt::connect(gateway.mqtt, &hello).await;
    reader.subscribe("a", 1).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    assert_eq!(publisher.publish("a", "x", 1).await, 0);
    gateway.signal("TERM");
    let since = Stopwatch::start();
    assert_eq!(reader.take().await.payload, b"x");
    // Each message is acknowledged until the DISCONNECT.
    let last = loop {
        let bytes = publish_bytes(5, "a", b"y", 1, 9, (false, false), Vec::new());
        if publisher.try_send(&bytes).await.is_err() {
            break publisher.receive().await;
        }
        match publisher.receive().await {
            Some(Packet::Ack(PUBACK, 9, 0)) => {}
            last => break last,
        }
    };
    assert_eq!(last, Some(Packet::Disconnect(0x8b)));
    let last = loop {
        match reader.receive().await {
            Some(Packet::Publish(_)) => {}
            last => break last,
        }
    };
    assert_eq!(last, Some(Packet::Disconnect(0x8b)));
    assert!(gateway.ended(PATIENCE).await.success());
    assert!(since.took().is_below(Duration::from_secs(10)), "{:?}", since.took());
}
