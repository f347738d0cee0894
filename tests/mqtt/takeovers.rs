//! Packets of an earlier connection that the gateway has not read yet when the client connects again.

use mqtt_protocol_core::mqtt::packet::Property;

use crate::world::mqtt::{Hello, Mqtt, publish_bytes};
use crate::world::{Gateway, get};

fn packet(topic: &str, qos: u8, id: u16) -> Vec<u8> {
    publish_bytes(4, topic, b"x", qos, id, (false, false), Vec::<Property>::new())
}

fn hello(id: &str) -> Hello {
    Hello { version: 4, ..Hello::new(id) }
}

#[tokio::test]
async fn messages_in_flight_on_the_earlier_connection_are_appended() {
    const MESSAGES: u16 = 3000;
    let gateway = Gateway::start(&[]).await;
    for qos in [0, 1] {
        let stream = format!("qos/{qos}");
        let mut first = Mqtt::connect(gateway.mqtt, &hello("phone")).await;
        let all: Vec<u8> = (1..=MESSAGES).flat_map(|id| packet(&stream, qos, id)).collect();
        first.send(&all).await;
        let _second = Mqtt::connect(gateway.mqtt, &hello("phone")).await;
        let log = gateway.send(get(format!("/v1/stream/{stream}"))).await.expect(200);
        assert_eq!(log.body.len(), usize::from(MESSAGES), "QoS {qos}");
    }
}

/// On disk, the earlier connection still appends when the newer one comes.
#[tokio::test]
async fn messages_in_flight_on_the_earlier_connection_are_appended_on_disk() {
    const MESSAGES: u16 = 10_000;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let gateway = Gateway::start(&["--store", folder.path().to_str().unwrap()]).await;
    let mut first = Mqtt::connect(gateway.mqtt, &hello("phone")).await;
    let all: Vec<u8> = (0..MESSAGES).flat_map(|_| packet("s", 0, 0)).collect();
    first.send(&all).await;
    let _second = Mqtt::connect(gateway.mqtt, &hello("phone")).await;
    let log = gateway.send(get("/v1/stream/s")).await.expect(200);
    assert_eq!(log.body.len(), usize::from(MESSAGES));
}

#[tokio::test]
async fn a_disconnect_that_is_still_unread_prevents_the_will() {
    let gateway = Gateway::start(&["--limit", "takeover_delay=0s"]).await;
    let mut watcher = Mqtt::connect(gateway.mqtt, &Hello::new("watcher")).await;
    watcher.subscribe("gone", 1).await;
    let with_will = Hello { will: Some(("gone".into(), "gone".into(), Vec::new())), ..hello("phone") };
    for reset in [false, true] {
        for _ in 0..30 {
            let mut client = Mqtt::connect(gateway.mqtt, &with_will).await;
            let messages = (1..=20).flat_map(|id| packet("a", 1, id));
            client.send(&messages.chain([0xe0, 0]).collect::<Vec<_>>()).await;
            // Closing a socket with unread bytes resets it, so that the gateway cannot write any more.
            if reset {
                drop(client);
            }
        }
        let last = Mqtt::connect(gateway.mqtt, &with_will).await;
        last.disconnect(0).await;
    }
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish("gone", "no will", 1).await;
    assert_eq!(watcher.take().await.payload, b"no will");
}
