//! The disk is full, and MQTT clients receive error codes: no message is acknowledged that cannot be stored.

use mqtt_protocol_core::mqtt::packet::v5_0::Subscribe;
use mqtt_protocol_core::mqtt::packet::{SubEntry, SubOpts};

use crate::image::Image;
use crate::stored;
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Gateway, alone, delete, post, put, until};

const MEBIBYTES: u64 = 64;
const QUOTA_EXCEEDED: u8 = 0x97;
const BULK: &str = "/v1/stream/bulk";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_acknowledges_nothing_to_mqtt_clients_and_keeps_their_sessions() {
    let _turn = alone().await;
    let image = Image::create(MEBIBYTES);
    let gateway = Gateway::start(&stored(&image.path().join("store"), "always")).await;
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::lasting("reader")).await;
    reader.subscribe("s", 2).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::lasting("publisher")).await;
    assert_eq!(publisher.publish("s", "before", 2).await, 0);
    assert_eq!(reader.take().await.payload, b"before");

    fill(&gateway).await;
    for qos in [1, 2] {
        assert_eq!(publisher.publish("s", "refused", qos).await, QUOTA_EXCEEDED);
    }
    let mut new = Mqtt::open(gateway.mqtt, 5).await;
    new.send(&Hello::lasting("new").bytes()).await;
    let refused = Packet::Connack { present: false, code: QUOTA_EXCEEDED, properties: Vec::new() };
    assert_eq!(new.receive().await, Some(refused));
    // A client that stores nothing is served.
    Mqtt::connect(gateway.mqtt, &Hello::new("passing")).await.ping().await;
    // A subscription that cannot be stored is not granted.
    let entries = vec![SubEntry::new("x", SubOpts::new()).unwrap()];
    let subscribe = Subscribe::builder().packet_id(publisher.next_id()).entries(entries).build().unwrap();
    publisher.send(&subscribe.to_continuous_buffer()).await;
    assert_eq!(publisher.receive().await, Some(Packet::Disconnect(QUOTA_EXCEEDED)));
    assert_eq!(publisher.receive().await, None);

    gateway.send(delete(BULK)).await.expect(204);
    until("there is room again", async || {
        Mqtt::connect(gateway.mqtt, &Hello::new("probe")).await.publish("probe", "x", 1).await == 0
    })
    .await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::lasting("publisher")).await;
    assert!(publisher.connack.0, "the session is present");
    assert_eq!(publisher.publish("s", "after", 2).await, 0);
    assert_eq!(reader.take().await.payload, b"after");
}

/// Appends until even a small message is refused.
async fn fill(gateway: &Gateway) {
    gateway.send(put(BULK).json("")).await.expect(201);
    for digits in [500_000, 10_000, 100, 1] {
        let mut refused = 0;
        while refused < 3 {
            let answer = gateway.send(post(BULK).json("1".repeat(digits))).await;
            match answer.status.as_u16() {
                204 => {}
                507 => refused += 1,
                _ => panic!("{answer:?}"),
            }
        }
    }
}
