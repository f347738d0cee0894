//! Session state survives a kill of the gateway.

mod durable_gateway;
mod load;
mod publisher;
mod subscriber;

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{SessionExpiryInterval, WillDelayInterval};
use tokio::time::sleep;

use crate::world::mqtt::{Hello, Mqtt, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, publish_bytes};
use crate::world::{Gateway, PATIENCE, get, until};
use durable_gateway::DurableGateway;

const VERSIONS: [u8; 2] = [4, 5];

fn lasting_client(id: &str, version: u8) -> Hello {
    Hello { version, ..Hello::lasting(id) }
}

async fn expect_nothing_more(client: &mut Mqtt) {
    // A further message would arrive before the response to a ping.
    client.ping().await;
    assert_eq!(client.receive_within(Duration::from_millis(50)).await, None);
}

#[tokio::test]
async fn subscriptions_survive_a_kill_and_ended_ones_stay_ended() {
    let mut durable = DurableGateway::start().await;
    for version in VERSIONS {
        let hello = lasting_client(&format!("reader-{version}"), version);
        let mut reader = durable.connect(&hello).await;
        reader.subscribe("a/+", 1).await;
        if version == 5 {
            reader.subscribe("b", 1).await;
            reader.unsubscribe("b").await;
        }
    }
    durable.kill_and_start().await;
    assert_eq!(durable.gateway.metric("pollgate_mqtt_sessions").await, 2.0);
    let mut publisher = durable.connect(&Hello::new("publisher")).await;
    for (topic, text) in [("a/x", "1"), ("b", "2"), ("a/y", "3")] {
        assert_eq!(publisher.publish(topic, text, 1).await, 0);
    }
    for version in VERSIONS {
        let mut reader = durable.connect(&lasting_client(&format!("reader-{version}"), version)).await;
        assert!(reader.connack.0, "the session is present");
        let mut texts = [reader.take().await.payload, reader.take().await.payload];
        texts.sort();
        assert_eq!(texts, [b"1", b"3"]);
        expect_nothing_more(&mut reader).await;
    }
}

#[tokio::test]
async fn messages_in_flight_are_redelivered_unchanged_before_the_others() {
    for version in VERSIONS {
        let mut durable = DurableGateway::start().await;
        let hello = lasting_client("reader", version);
        let mut reader = durable.connect(&hello).await;
        reader.subscribe("s", 2).await;
        let mut publisher = durable.connect(&Hello::new("publisher")).await;
        for number in 0..4 {
            assert_eq!(publisher.publish("s", number.to_string(), 2).await, 0);
        }
        // 1. The first message is acknowledged completely, the second one with PUBREC only, the others not at all.
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(reader.message().await.id);
        }
        for id in &ids[..2] {
            reader.acknowledge(PUBREC, *id).await;
            reader.receive_ack(PUBREL, *id).await;
        }
        reader.acknowledge(PUBCOMP, ids[0]).await;
        // 2. The gateway is killed, and more is published.
        durable.kill_and_start().await;
        let mut publisher = durable.connect(&Hello::new("publisher")).await;
        for number in 4..6 {
            assert_eq!(publisher.publish("s", number.to_string(), 2).await, 0);
        }
        // 3. The second message is released, the others are sent again with their ids, in order, followed by the new ones.
        let mut reader = durable.connect(&hello).await;
        assert!(reader.connack.0);
        let mut released = Vec::new();
        let mut numbers = Vec::new();
        while numbers.len() < 4 {
            match reader.receive().await.expect("no end before its time") {
                Packet::Ack(PUBREL, id, 0) => released.push(id),
                Packet::Publish(message) => {
                    let again = ids.get(numbers.len() + 2);
                    assert_eq!(message.duplicate, again.is_some());
                    assert!(again.is_none_or(|id| *id == message.id) && !ids[..2].contains(&message.id));
                    numbers.push(String::from_utf8(message.payload.clone()).unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(numbers, ["2", "3", "4", "5"]);
        // The completion of the first message need not have been stored: a PUBREL for an unknown id is harmless.
        released.retain(|id| *id != ids[0]);
        assert_eq!(released, [ids[1]]);
    }
}

#[tokio::test]
async fn a_message_of_qos_2_is_in_the_log_once_over_kills_and_its_id_is_free_after_that() {
    let mut durable = DurableGateway::start().await;
    let hello = Hello::lasting("publisher");
    let publish = |text: &str, duplicate| {
        publish_bytes(5, "once", text.as_bytes(), 2, 7, (duplicate, false), Vec::new())
    };
    let mut publisher = durable.connect(&hello).await;
    publisher.send(&publish("a", false)).await;
    assert_eq!(publisher.receive_ack(PUBREC, 7).await, 0);
    // Killed after PUBREC: the gateway remembers the message.
    durable.kill_and_start().await;
    let mut publisher = durable.connect(&hello).await;
    assert!(publisher.connack.0);
    publisher.send(&publish("a", true)).await;
    assert_eq!(publisher.receive_ack(PUBREC, 7).await, 0);
    publisher.acknowledge(PUBREL, 7).await;
    assert_eq!(publisher.receive_ack(PUBCOMP, 7).await, 0);
    // Killed after PUBCOMP: the id is free for another message.
    durable.kill_and_start().await;
    let mut publisher = durable.connect(&hello).await;
    publisher.send(&publish("b", false)).await;
    assert_eq!(publisher.receive_ack(PUBREC, 7).await, 0);
    let log = durable.gateway.send(get("/v1/stream/once")).await.expect(200);
    assert_eq!(&log.body[..], b"ab");
}

#[tokio::test]
async fn acknowledgements_are_stored_soon_and_at_the_disconnect() {
    let mut durable = DurableGateway::start().await;
    let mut publisher = durable.connect(&Hello::new("publisher")).await;
    let stored =
        async |durable: &DurableGateway| durable.gateway.metric("pollgate_mqtt_sessions_stored_total").await;
    let mut readers = Vec::new();
    for id in ["stays", "leaves"] {
        let mut reader = durable.connect(&Hello::lasting(id)).await;
        reader.subscribe("s", 1).await;
        readers.push(reader);
    }
    for number in 0..200 {
        publisher.publish("s", number.to_string(), 1).await;
        for reader in &mut readers {
            reader.take().await;
        }
    }
    readers.pop().unwrap().disconnect(0).await;
    // 200 messages caused fewer than 200 writes, and the last one is stored within a second.
    let before = stored(&durable).await;
    assert!(before < 40.0, "{before} writes");
    until("the rest is stored", async || stored(&durable).await > before).await;
    durable.kill_and_start().await;
    for id in ["stays", "leaves"] {
        let mut reader = durable.connect(&Hello::lasting(id)).await;
        assert!(reader.connack.0);
        expect_nothing_more(&mut reader).await;
    }
}

#[tokio::test]
async fn nothing_is_stored_of_a_client_without_a_session_or_in_a_store_that_ends_with_the_process() {
    let durable = DurableGateway::start().await;
    let memory = Gateway::start(&[]).await;
    for (gateway, hello, stored) in [
        (&durable.gateway, Hello::new("passing"), false),
        (&memory, Hello::lasting("staying"), false),
        // Control: other state was stored.
        (&durable.gateway, Hello::lasting("staying"), true),
    ] {
        let mut client = Mqtt::connect(gateway.mqtt, &hello).await;
        client.subscribe("s", 2).await;
        client.publish("s", "x", 2).await;
        client.take().await;
        client.disconnect(0).await;
        let count = gateway.metric("pollgate_mqtt_sessions_stored_total").await;
        assert_eq!(count > 0.0, stored, "{hello:?}");
    }
}

fn with_will(id: &str, delay: u32) -> Hello {
    let delay = WillDelayInterval::new(delay).unwrap().into();
    Hello { will: Some((format!("gone/{id}"), id.into(), vec![delay])), ..Hello::lasting(id) }
}

#[tokio::test]
async fn a_will_is_published_once_after_a_kill_unless_its_client_reconnects_in_time() {
    let mut durable = DurableGateway::start().await;
    let mut watcher = durable.connect(&Hello::lasting("watcher")).await;
    watcher.subscribe("gone/+", 2).await;
    // 1. One client with a clean DISCONNECT, one with an immediate will, one with a delayed will.
    durable.connect(&with_will("polite", 0)).await.disconnect(0).await;
    let _lost = durable.connect(&with_will("lost", 0)).await;
    let _back = durable.connect(&with_will("back", 3600)).await;
    durable.kill_and_start().await;
    // 2. The client with the delayed will reconnects in time; the immediate will is published.
    let back = durable.connect(&with_will("back", 0)).await;
    let mut watcher = durable.connect(&Hello::lasting("watcher")).await;
    assert_eq!(watcher.take().await.payload, b"lost");
    watcher.disconnect(0).await;
    back.disconnect(0).await;
    // 3. After another kill, none of these messages is sent again.
    durable.kill_and_start().await;
    let mut watcher = durable.connect(&Hello::lasting("watcher")).await;
    drop(durable.connect(&with_will("later", 0)).await);
    assert_eq!(watcher.take().await.payload, b"later");
    expect_nothing_more(&mut watcher).await;
    let log = durable.gateway.send(get("/v1/stream/gone/lost")).await.expect(200);
    assert_eq!(&log.body[..], b"lost");
}

#[tokio::test]
async fn a_drain_leaves_wills_to_the_next_start() {
    let mut durable = DurableGateway::start().await;
    let mut client = durable.connect(&with_will("waits", 0)).await;
    durable.gateway.signal("TERM");
    assert_eq!(client.receive().await, Some(Packet::Disconnect(0x8b)));
    assert!(durable.gateway.ended(PATIENCE).await.success());
    durable.start_again().await;
    let mut watcher = durable.connect(&Hello::lasting("watcher")).await;
    watcher.subscribe("gone/+", 1).await;
    until("the will is there", async || {
        durable.gateway.send(get("/v1/stream/gone/waits")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn sessions_that_have_ended_stay_so_and_time_goes_on_while_the_gateway_is_down() {
    let mut durable = DurableGateway::start().await;
    let short =
        Hello { properties: vec![SessionExpiryInterval::new(1).unwrap().into()], ..Hello::lasting("short") };
    let subscribed = async |durable: &DurableGateway, hello: &Hello| {
        let mut client = durable.connect(hello).await;
        client.subscribe("s", 1).await;
        client
    };
    subscribed(&durable, &Hello::lasting("clean")).await.disconnect(0).await;
    durable.connect(&Hello::new("clean")).await.disconnect(0).await;
    let mut ended = subscribed(&durable, &Hello::lasting("ended")).await;
    ended.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    assert_eq!(ended.receive().await, None);
    // A client whose session ends with its connection.
    let _passing = subscribed(&durable, &Hello { properties: Vec::new(), ..Hello::lasting("passing") }).await;
    subscribed(&durable, &short).await.disconnect(0).await;
    subscribed(&durable, &Hello::lasting("lasting")).await.disconnect(0).await;
    durable.kill().await;
    sleep(Duration::from_secs(1)).await;
    durable.start_again().await;
    for id in ["clean", "ended", "passing"] {
        assert!(!durable.connect(&Hello::lasting(id)).await.connack.0, "{id}");
    }
    until("the short one has ended", async || durable.gateway.metric("pollgate_mqtt_sessions").await == 4.0)
        .await;
    assert!(!durable.connect(&short).await.connack.0);
    assert!(durable.connect(&Hello::lasting("lasting")).await.connack.0);
}

#[tokio::test]
async fn a_client_that_starts_clean_after_a_kill_has_nothing_left() {
    let mut durable = DurableGateway::start().await;
    let mut reader = durable.connect(&Hello::lasting("reader")).await;
    reader.subscribe("s", 1).await;
    let mut publisher = durable.connect(&Hello::new("publisher")).await;
    publisher.publish("s", "on its way", 1).await;
    reader.message().await;
    durable.kill_and_start().await;
    let clean = Hello { clean: true, ..Hello::lasting("reader") };
    let mut reader = durable.connect(&clean).await;
    assert!(!reader.connack.0);
    expect_nothing_more(&mut reader).await;
    // After the next kill, none of the state is restored.
    durable.kill_and_start().await;
    let mut reader = durable.connect(&Hello::lasting("reader")).await;
    assert!(reader.connack.0);
    let mut publisher = durable.connect(&Hello::new("publisher")).await;
    publisher.publish("s", "for nobody", 1).await;
    expect_nothing_more(&mut reader).await;
    assert_eq!(reader.subscribe("s", 1).await, 1);
    publisher.publish("s", "for it", 1).await;
    let message = reader.message().await;
    assert_eq!(message.payload, b"for it");
    reader.acknowledge(PUBACK, message.id).await;
}

#[tokio::test]
async fn a_group_continues_after_a_kill_or_restart_where_its_members_have_acknowledged() {
    const GROUP: &str = "$share/workers/jobs/+";
    let mut durable = DurableGateway::start().await;
    let hello = lasting_client("worker", 5);
    for (round, qos) in [(0, 1), (1, 2)] {
        let mut worker = durable.connect(&hello).await;
        if round == 0 {
            let mut publisher = durable.connect(&Hello::new("publisher")).await;
            publisher.publish("jobs/old", "before the group", qos).await;
            worker.subscribe(GROUP, 2).await;
            publisher.publish("jobs/old", "0-acknowledged", qos).await;
            worker.take().await;
            worker.ping().await;
            drop(worker);
            durable.gateway.until_mqtt_clients(1).await;
        } else {
            worker.ping().await;
            drop(worker);
        }
        let mut publisher = durable.connect(&Hello::new("publisher")).await;
        publisher.publish("jobs/old", format!("{round}-away"), qos).await;
        publisher.publish(&format!("jobs/new-{round}"), format!("{round}-new stream"), qos).await;
        if round == 0 {
            durable.kill_and_start().await;
        } else {
            durable.restart().await;
        }
        let mut worker = durable.connect(&hello).await;
        assert!(worker.connack.0, "the session is present");
        let mut texts = [worker.take().await.payload, worker.take().await.payload];
        texts.sort();
        assert_eq!(texts, [format!("{round}-away"), format!("{round}-new stream")].map(String::into_bytes));
        expect_nothing_more(&mut worker).await;
        drop(worker);
    }
    // The store forgets a group whose last member has gone.
    let mut worker = durable.connect(&hello).await;
    worker.unsubscribe(GROUP).await;
    durable.kill_and_start().await;
    let mut publisher = durable.connect(&Hello::new("publisher")).await;
    publisher.publish("jobs/old", "while there was no group", 1).await;
    let mut worker = durable.connect(&hello).await;
    worker.subscribe(GROUP, 1).await;
    publisher.publish("jobs/old", "after that", 1).await;
    assert_eq!(worker.take().await.payload, b"after that");
}
