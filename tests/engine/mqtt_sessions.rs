//! An MQTT client may connect to any gateway, and finds its session there.

use std::collections::HashSet;
use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{SessionExpiryInterval, WillDelayInterval};
use rustix::process::Signal;

use crate::server::Engine;
use crate::world::mqtt::{Hello, Mqtt, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, publish_bytes};
use crate::world::{Gateway, get, until};

/// The reason of a DISCONNECT for a client that has connected elsewhere (MQTT 5, section 3.14.2.1).
const SESSION_TAKEN_OVER: u8 = 0x8e;

async fn pair(engine: &Engine) -> [Gateway; 2] {
    let arguments = ["--limit", "takeover_delay=0s"];
    [engine.gateway_with("one", &arguments).await, engine.gateway_with("other", &arguments).await]
}

/// Waits for the DISCONNECT of a client, and returns its reason.
async fn ended(client: &mut Mqtt) -> u8 {
    loop {
        match client.receive().await {
            Some(Packet::Disconnect(reason)) => return reason,
            Some(_) => {}
            None => panic!("the connection ended without a reason"),
        }
    }
}

#[tokio::test]
async fn a_subscriber_that_changes_the_gateway_at_each_connect_gets_all_messages_once_and_in_order() {
    let engine = Engine::volatile().await;
    let gateways = pair(&engine).await;
    for qos in [1, 2] {
        let hello = Hello::lasting(&format!("reader-{qos}"));
        let topic = format!("room/{qos}");
        Mqtt::connect(gateways[0].mqtt, &hello).await.subscribe(&topic, qos).await;
        let mut publisher = Mqtt::connect(gateways[1].mqtt, &Hello::new("publisher")).await;
        let (mut next, mut unreleased) = (0, HashSet::new());
        for round in 0..12_u32 {
            for number in 5 * round..5 * (round + 1) {
                assert_eq!(publisher.publish(&topic, number.to_string(), qos).await, 0);
            }
            let mut client = Mqtt::connect(gateways[round as usize % 2].mqtt, &hello).await;
            assert!(client.connack.0, "round {round}: the session is present");
            // Some messages are left unacknowledged, in each phase of their delivery.
            while next < 5 * round + 3 {
                match client.receive().await.expect("the connection lasts") {
                    Packet::Publish(message) => {
                        if qos == 1 || unreleased.insert(message.id) {
                            assert_eq!(
                                String::from_utf8_lossy(&message.payload),
                                next.to_string(),
                                "round {round}"
                            );
                            next += 1;
                        }
                        client.acknowledge(if qos == 2 { PUBREC } else { PUBACK }, message.id).await;
                    }
                    Packet::Ack(PUBREL, id, _) => {
                        unreleased.remove(&id);
                        client.acknowledge(PUBCOMP, id).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
            client.ping().await;
            client.disconnect(0).await;
        }
    }
}

#[tokio::test]
async fn a_publisher_that_sends_its_message_of_qos_2_again_at_the_other_gateway_appends_it_once() {
    let engine = Engine::volatile().await;
    let gateways = pair(&engine).await;
    let hello = Hello::lasting("publisher");
    for number in 1..=20_u16 {
        let mut client = Mqtt::connect(gateways[usize::from(number) % 2].mqtt, &hello).await;
        let message = |again| {
            publish_bytes(5, "log", number.to_string().as_bytes(), 2, number, (again, false), Vec::new())
        };
        client.send(&message(false)).await;
        if number % 3 == 0 {
            client.receive_ack(PUBREC, number).await;
        }
        drop(client);
        let mut client = Mqtt::connect(gateways[usize::from(number + 1) % 2].mqtt, &hello).await;
        client.send(&message(true)).await;
        assert_eq!(client.receive_ack(PUBREC, number).await, 0);
        client.acknowledge(PUBREL, number).await;
        client.receive_ack(PUBCOMP, number).await;
        client.disconnect(0).await;
    }
    let log = gateways[0].send(get("/v1/stream/log")).await.expect(200);
    let expected: String = (1..=20).map(|number| number.to_string()).collect();
    assert_eq!(log.text(), expected);
}

#[tokio::test]
async fn a_client_that_connects_to_the_other_gateway_ends_its_older_connection() {
    let engine = Engine::volatile().await;
    let gateways = pair(&engine).await;
    for hello in [Hello::new("phone"), Hello::lasting("tablet")] {
        let mut client = Mqtt::connect(gateways[0].mqtt, &hello).await;
        for round in 1..6 {
            let next = Mqtt::connect(gateways[round % 2].mqtt, &hello).await;
            assert_eq!(ended(&mut client).await, SESSION_TAKEN_OVER);
            client = next;
        }
    }
}

#[tokio::test]
async fn two_programs_with_one_client_id_at_two_gateways_are_slowed_down() {
    let engine = Engine::volatile().await;
    let gateways = [engine.gateway("one").await, engine.gateway("other").await];
    let hello = Hello::new("phone");
    let mut client = Mqtt::connect(gateways[0].mqtt, &hello).await;
    for round in 1..=8 {
        let next = Mqtt::connect(gateways[round % 2].mqtt, &hello).await;
        assert_eq!(ended(&mut client).await, SESSION_TAKEN_OVER);
        client = next;
    }
    let delayed = r#"pollgate_takeovers_delayed_total{kind="connections"}"#;
    assert!(gateways[0].metric(delayed).await + gateways[1].metric(delayed).await > 0.0);
}

#[tokio::test]
async fn a_session_of_a_gateway_that_is_stopped_goes_on_elsewhere_and_its_late_changes_are_refused() {
    let engine = Engine::volatile().await;
    let gateways = pair(&engine).await;
    let hello = Hello::lasting("phone");
    let mut before = Mqtt::connect(gateways[0].mqtt, &hello).await;
    before.subscribe("news", 2).await;
    gateways[0].signal("STOP");
    // The stopped gateway reads this when it runs again, and must not append it.
    before.send(&publish_bytes(5, "late", b"late", 2, 9, (false, false), Vec::new())).await;
    let mut after = Mqtt::connect(gateways[1].mqtt, &hello).await;
    assert!(after.connack.0, "the session is present");
    assert_eq!(after.publish("news", "1", 2).await, 0);
    assert_eq!(after.take().await.payload, b"1");
    gateways[0].signal("CONT");
    assert_eq!(ended(&mut before).await, SESSION_TAKEN_OVER);
    assert_eq!(after.publish("news", "2", 2).await, 0);
    assert_eq!(after.take().await.payload, b"2");
    gateways[1].send(get("/v1/stream/late")).await.expect(404);
    after.disconnect(0).await;
    let mut again = Mqtt::connect(gateways[0].mqtt, &hello).await;
    assert!(again.connack.0);
    again.ping().await;
    assert_eq!(again.receive_within(Duration::from_millis(50)).await, None, "everything was acknowledged");
}

#[tokio::test]
async fn the_will_of_a_client_whose_gateway_is_killed_is_published_once_by_another_one() {
    let engine = Engine::volatile().await;
    let [one, other] = pair(&engine).await;
    let third = engine.gateway("third").await;
    let mut watcher = Mqtt::connect(other.mqtt, &Hello::new("watcher")).await;
    watcher.subscribe("gone/#", 1).await;
    for number in 0..20 {
        let will =
            (format!("gone/{number}"), number.to_string(), vec![WillDelayInterval::new(1).unwrap().into()]);
        let hello = Hello { will: Some(will), ..Hello::lasting(&format!("phone-{number}")) };
        std::mem::forget(Mqtt::connect(one.mqtt, &hello).await);
    }
    one.kill().await;
    let mut wills = HashSet::new();
    for _ in 0..20 {
        assert!(wills.insert(watcher.take().await.payload), "a will came twice");
    }
    assert_eq!(watcher.receive_within(Duration::from_millis(100)).await, None);
    drop(third);
}

#[tokio::test]
async fn a_session_without_a_connection_expires_whichever_gateway_it_was_at() {
    let engine = Engine::volatile().await;
    let [one, other] = pair(&engine).await;
    let hello = Hello { clean: false, ..Hello::new("phone") }.with(SessionExpiryInterval::new(1).unwrap());
    Mqtt::connect(one.mqtt, &hello).await.subscribe("news", 1).await;
    let is_stored = || engine.command("KEYS pollgate:*session:phone") != "*0";
    assert!(is_stored());
    drop(one);
    until("the session has expired", async || !is_stored()).await;
    assert!(!Mqtt::connect(other.mqtt, &hello).await.connack.0);
}

/// The gateway has refused the client, and does not know whether the engine made it the owner of the session.
#[tokio::test]
async fn a_session_whose_claim_is_answered_too_late_expires() {
    let engine = Engine::volatile().await;
    let gateway = engine.gateway("one").await;
    let hello = Hello { clean: false, ..Hello::new("phone") }.with(SessionExpiryInterval::new(3).unwrap());
    let mut client = Mqtt::connect(gateway.mqtt, &hello).await;
    client.subscribe("news", 1).await;
    client.disconnect(0).await;
    let is_released = || engine.command("KEYS pollgate:*owners") == "*0";
    until("the session is released", async || is_released()).await;
    engine.signal(Signal::STOP);
    let mut again = Mqtt::open(gateway.mqtt, hello.version).await;
    again.send(&hello.bytes()).await;
    let refused = again.receive().await;
    assert!(matches!(refused, Some(Packet::Connack { code: 0x97, .. })), "{refused:?}");
    engine.signal(Signal::CONT);
    let is_stored = || engine.command("KEYS pollgate:*session:phone") != "*0";
    until("the session has expired", async || !is_stored() && is_released()).await;
}

#[tokio::test]
async fn each_message_of_a_shared_subscription_goes_to_one_member_of_all_gateways_and_none_is_lost() {
    const GROUP: &str = "$share/workers/jobs/+";
    let engine = Engine::volatile().await;
    let gateways = pair(&engine).await;
    let mut publisher = Mqtt::connect(gateways[1].mqtt, &Hello::new("publisher")).await;
    let mut first = Mqtt::connect(gateways[0].mqtt, &Hello::lasting("first")).await;
    first.subscribe(GROUP, 1).await;
    let mut second = Mqtt::connect(gateways[1].mqtt, &Hello::lasting("second")).await;
    second.subscribe(GROUP, 1).await;
    for number in 0..10 {
        publisher.publish("jobs/a", number.to_string(), 1).await;
    }
    for number in 0..7 {
        assert_eq!(String::from_utf8_lossy(&first.take().await.payload), number.to_string());
    }
    first.ping().await;
    first.disconnect(0).await;
    // What the first one has not acknowledged goes on to the other gateway.
    for number in 7..10 {
        assert_eq!(String::from_utf8_lossy(&second.take().await.payload), number.to_string());
    }
    second.ping().await;
    second.disconnect(0).await;
    publisher.publish("jobs/a", "10", 1).await;
    let mut first = Mqtt::connect(gateways[0].mqtt, &Hello::lasting("first")).await;
    assert!(first.connack.0);
    assert_eq!(first.take().await.payload, b"10");
    let [one, other] = gateways;
    let mut second = Mqtt::connect(other.mqtt, &Hello::lasting("second")).await;
    one.kill().await;
    publisher.publish("jobs/a", "11", 1).await;
    // The acknowledgement of 10 may not have been stored.
    let next = second.take().await.payload;
    assert!(next == b"11" || (next == b"10" && second.take().await.payload == b"11"));
}

/// News that nobody marks must not leave a subscriber with a wildcard asleep.
#[tokio::test]
async fn a_subscriber_gets_what_came_while_the_connection_for_news_was_lost() {
    let engine = Engine::volatile().await;
    let gateways = pair(&engine).await;
    let mut subscriber = Mqtt::connect(gateways[0].mqtt, &Hello::new("reader")).await;
    subscriber.subscribe("room/#", 1).await;
    let mut publisher = Mqtt::connect(gateways[1].mqtt, &Hello::new("publisher")).await;
    for number in 0..5 {
        engine.command("CLIENT KILL TYPE pubsub");
        publisher.publish(&format!("room/{number}"), number.to_string(), 1).await;
        assert_eq!(String::from_utf8_lossy(&subscriber.take().await.payload), number.to_string());
    }
}
