//! Quotas of one client, and that its disconnected sessions do not displace those of others.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Connection, Gateway, post, until};

const QUOTA_EXCEEDED: u8 = 0x97;
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Connects and disconnects, with a session that is kept.
async fn leave_behind(gateway: &Gateway, local: IpAddr, id: &str) {
    let client = Mqtt::connect_from(local, gateway.mqtt, &Hello::lasting(id)).await;
    client.disconnect(0).await;
}

async fn has_session(gateway: &Gateway, local: IpAddr, id: &str) -> bool {
    let client = Mqtt::connect_from(local, gateway.mqtt, &Hello::lasting(id)).await;
    let present = client.connack.0;
    client.disconnect(0).await;
    present
}

#[tokio::test]
async fn disconnected_sessions_of_one_client_are_evicted_for_those_of_others() {
    let gateway = Gateway::start(&["--limit", "mqtt_sessions_max=20"]).await;
    leave_behind(&gateway, THERE, "honest").await;
    for number in 0..40 {
        leave_behind(&gateway, HERE, &format!("left-{number}")).await;
    }
    assert_eq!(gateway.metric("pollgate_mqtt_sessions").await, 20.0);
    assert_eq!(gateway.metric("pollgate_mqtt_sessions_discarded_total").await, 21.0);
    // The older session of another address is kept, and another client is accepted.
    assert!(has_session(&gateway, THERE, "honest").await);
    let mut other = Mqtt::connect_from(THERE, gateway.mqtt, &Hello::new("other")).await;
    other.ping().await;
    assert!(!has_session(&gateway, HERE, "left-0").await, "the first ones have given way");
    assert!(has_session(&gateway, HERE, "left-39").await);
}

#[tokio::test]
async fn no_session_of_a_connected_client_is_evicted() {
    let gateway = Gateway::start(&["--limit", "mqtt_sessions_max=2"]).await;
    let known = Hello::lasting("known");
    let mut present = vec![Mqtt::connect(gateway.mqtt, &known).await];
    present.push(Mqtt::connect(gateway.mqtt, &Hello::new("other")).await);
    for (version, code) in [(5, QUOTA_EXCEEDED), (4, 3)] {
        let mut third = Mqtt::open(gateway.mqtt, version).await;
        third.send(&Hello { version, ..Hello::new("third") }.bytes()).await;
        assert!(
            matches!(third.receive().await, Some(Packet::Connack { code: refused, .. }) if refused == code)
        );
    }
    assert!(Mqtt::connect(gateway.mqtt, &known).await.connack.0, "a client finds its own session");
}

#[tokio::test]
async fn an_address_has_as_many_sessions_as_its_share() {
    let gateway = Gateway::start(&["--limit", "mqtt_sessions_per_address_max=3"]).await;
    for number in 0..5 {
        leave_behind(&gateway, HERE, &format!("left-{number}")).await;
    }
    assert_eq!(gateway.metric("pollgate_mqtt_sessions").await, 3.0);
    leave_behind(&gateway, THERE, "there").await;
    assert_eq!(gateway.metric("pollgate_mqtt_sessions").await, 4.0);
}

#[tokio::test]
async fn a_will_is_published_when_its_session_is_evicted() {
    let gateway = Gateway::start(&["--limit", "mqtt_sessions_per_address_max=1"]).await;
    let delay = mqtt_protocol_core::mqtt::packet::WillDelayInterval::new(600).unwrap();
    let will = Some(("gone".into(), "x".into(), vec![delay.into()]));
    drop(Mqtt::connect(gateway.mqtt, &Hello { will, ..Hello::lasting("left") }).await);
    gateway.until_mqtt_clients(0).await;
    let mut reader = Mqtt::connect_from(THERE, gateway.mqtt, &Hello::new("reader")).await;
    reader.subscribe("gone", 1).await;
    drop(Mqtt::connect(gateway.mqtt, &Hello::new("next")).await);
    assert_eq!(reader.take().await.payload, b"x");
}

#[tokio::test]
async fn a_subscription_that_costs_more_than_the_share_is_refused_whole() {
    let share = 40 * 1024;
    let gateway = Gateway::start(&["--limit", &format!("mqtt_session_bytes_per_address_max={share}")]).await;
    let mut publisher = Mqtt::connect_from(THERE, gateway.mqtt, &Hello::new("publisher")).await;
    for number in 0..600 {
        publisher.publish(&format!("many/{number}"), "x", 0).await;
    }
    publisher.publish("few", "x", 1).await;
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client")).await;
    let filters = ["few", "many/#", "none"].map(String::from);
    assert_eq!(client.subscribe_all(&filters).await, [QUOTA_EXCEEDED; 3]);
    assert_eq!(client.subscribe("few", 1).await, 1);
    publisher.publish("many/1", "y", 1).await;
    publisher.publish("few", "y", 1).await;
    assert_eq!(client.take().await.payload, b"y");
    client.ping().await;
    assert_eq!(client.receive_within(Duration::from_millis(50)).await, None);
    // A filter of many levels costs as many places in the tree of filters.
    assert_eq!(client.subscribe(&vec!["+"; 200].join("/"), 0).await, QUOTA_EXCEEDED);
}

#[tokio::test]
async fn a_client_that_comes_to_match_too_many_streams_is_told_so() {
    let gateway = Gateway::start(&["--limit", "mqtt_session_streams_max=10"]).await;
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client")).await;
    client.subscribe("s/+", 0).await;
    for number in 0..11 {
        gateway.send(post(format!("/v1/stream/s/{number}?create=1")).json("1")).await.expect(204);
    }
    let last = loop {
        match client.receive().await {
            Some(Packet::Publish(_)) => {}
            last => break last,
        }
    };
    assert_eq!(last, Some(Packet::Disconnect(QUOTA_EXCEEDED)));
    until("its session is over", async || gateway.metric("pollgate_mqtt_sessions").await == 0.0).await;
}

#[tokio::test]
async fn a_filter_counts_once_however_often_a_packet_repeats_it() {
    let gateway = Gateway::start(&["--limit", "mqtt_subscriptions_max=3"]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    for topic in ["a/1", "a/2", "b"] {
        publisher.publish_with(topic, b"kept", 1, true, Vec::new()).await;
    }
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client")).await;
    let filters = ["a/+", "#", "a/+", "a/+", "#", "b", "none"].map(String::from);
    assert_eq!(client.subscribe_all(&filters).await, [0, 0, 0, 0, 0, 0, QUOTA_EXCEEDED]);
    // Each subscription gets the retained messages: `a/+` two, `#` three, `b` one.
    let mut topics = Vec::new();
    for _ in 0..6 {
        let message = client.take().await;
        assert!(message.retain);
        topics.push(message.topic);
    }
    topics.sort();
    assert_eq!(topics, ["a/1", "a/1", "a/2", "a/2", "b", "b"]);
    client.ping().await;
    assert_eq!(client.receive_within(Duration::from_millis(50)).await, None);
    let ended = ["#", "#", "none"].map(String::from);
    assert_eq!(client.unsubscribe_all(&ended).await, [0, 0x11, 0x11]);
    assert_eq!(client.subscribe("none", 0).await, 0);
}

#[tokio::test]
async fn a_new_overlapping_subscription_skips_nothing_of_an_older_one() {
    let gateway = Gateway::start(&[]).await;
    let receive_maximum = mqtt_protocol_core::mqtt::packet::ReceiveMaximum::new(1).unwrap();
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client").with(receive_maximum)).await;
    client.subscribe("#", 1).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish("first", "x", 1).await;
    let first = client.message().await;
    // The window is full, so this stream is not sent yet when the second subscription is made.
    publisher.publish("a/new", "y", 1).await;
    client.subscribe("a/+", 1).await;
    client.acknowledge(crate::world::mqtt::PUBACK, first.id).await;
    assert_eq!(client.take().await.payload, b"y");
}

#[tokio::test]
async fn published_messages_count_for_the_share_of_the_address() {
    let gateway = Gateway::start(&["--memory-max", "64M", "--limit", "principal_share_percent=25"]).await;
    let mut publisher = Mqtt::connect_from(HERE, gateway.mqtt, &Hello::lasting("publisher")).await;
    let payload = vec![b'x'; 512 * 1024];
    let mut taken = 0;
    // A stream in memory keeps a sixteenth of the budget.
    while publisher.publish(&format!("greedy/{}", taken / 4), &payload, 1).await != QUOTA_EXCEEDED {
        taken += 1;
        assert!(taken < 33, "16 MiB are its share");
    }
    assert!(taken >= 24, "{taken} messages of 512 KiB were taken");
    let append = || post("/v1/stream/other?create=1").text(vec![b'x'; 512 * 1024]);
    let mut same_address = Connection::open_from(HERE, gateway.address).await;
    let refused = same_address.send(append()).await.expect(507);
    assert_eq!(refused.problem(), "share-used-up");
    let mut other_address = Connection::open_from(THERE, gateway.address).await;
    other_address.send(append()).await.expect(204);
    publisher.disconnect(0).await;
    let sessions = "pollgate_memory_held_bytes{account=\"sessions\"}";
    until("the session that is left counts", async || gateway.metric(sessions).await > 0.0).await;
}
