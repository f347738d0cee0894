//! Shared subscriptions: each message goes to one member of the group, and none is lost when a member leaves.

use std::collections::HashMap;

use mqtt_protocol_core::mqtt::packet::SubOpts;

use crate::world::mqtt::{Hello, Mqtt, PUBACK};
use crate::world::{Gateway, until};

const GROUP: &str = "$share/workers/jobs/+";

#[tokio::test]
async fn each_message_goes_to_one_member_and_those_of_a_stream_stay_in_order() {
    const MESSAGES: usize = 40;
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish("jobs/0", "before the group", 1).await;
    let mut members = Vec::new();
    for (id, version) in [("a", 4), ("b", 5), ("c", 5)] {
        let mut member = Mqtt::connect(gateway.mqtt, &Hello { version, ..Hello::new(id) }).await;
        assert_eq!(member.subscribe(GROUP, 1).await, 1);
        members.push(member);
    }
    let mut single = Mqtt::connect(gateway.mqtt, &Hello::new("single")).await;
    single.subscribe("jobs/+", 1).await;
    for number in 0..MESSAGES {
        for stream in 0..4 {
            publisher.publish(&format!("jobs/{stream}"), number.to_string(), 1).await;
        }
    }
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    for mut member in members {
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                let message = member.message().await;
                let _test_is_over = sender.send((message.topic.clone(), message.payload.clone()));
                member.acknowledge(PUBACK, message.id).await;
            }
        });
    }
    let mut by_stream: HashMap<String, Vec<String>> = HashMap::new();
    for _ in 0..4 * MESSAGES {
        let (topic, payload) = received.recv().await.unwrap();
        by_stream.entry(topic).or_default().push(String::from_utf8(payload).unwrap());
        single.take().await;
    }
    let expected: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert!(by_stream.len() == 4 && by_stream.values().all(|numbers| *numbers == expected), "{by_stream:?}");
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn unacknowledged_messages_go_to_another_member_when_one_leaves() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    for (leaving, qos) in [(Hello::new("first"), 1), (Hello::lasting("lasting"), 1)] {
        let mut first = Mqtt::connect(gateway.mqtt, &leaving).await;
        first.subscribe(GROUP, qos).await;
        for number in 0..5 {
            publisher.publish("jobs/1", number.to_string(), qos).await;
        }
        let taken = first.take().await;
        assert_eq!(taken.payload, b"0");
        first.message().await;
        first.ping().await;
        let mut second = Mqtt::connect(gateway.mqtt, &Hello::new("second")).await;
        second.subscribe(GROUP, qos).await;
        second.ping().await;
        drop(first);
        for number in 1..5 {
            assert_eq!(second.take().await.payload, number.to_string().as_bytes());
        }
        second.disconnect(0).await;
        gateway.until_mqtt_clients(1).await;
    }
}

#[tokio::test]
async fn a_group_waits_for_members_whose_sessions_are_kept() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    let mut worker = Mqtt::connect(gateway.mqtt, &Hello::lasting("worker")).await;
    worker.subscribe(GROUP, 1).await;
    publisher.publish("jobs/1", "0", 1).await;
    worker.take().await;
    drop(worker);
    gateway.until_mqtt_clients(1).await;
    publisher.publish("jobs/1", "1", 1).await;
    publisher.publish("jobs/new", "2", 1).await;
    let mut worker = Mqtt::connect(gateway.mqtt, &Hello::lasting("worker")).await;
    let mut found = [worker.take().await.payload, worker.take().await.payload];
    found.sort();
    assert_eq!(found, [b"1".to_vec(), b"2".to_vec()]);
    assert_eq!(worker.unsubscribe(GROUP).await, 0);
    assert_eq!(worker.unsubscribe(GROUP).await, 0x11);
    publisher.publish("jobs/1", "3", 1).await;
    worker.subscribe("jobs/2", 1).await;
    publisher.publish("jobs/2", "4", 1).await;
    assert_eq!(worker.take().await.payload, b"4");
    until("the streams are no longer watched", async || {
        gateway.metric("pollgate_subscriptions").await == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_member_that_accepts_no_more_does_not_hold_up_other_streams() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    let one = mqtt_protocol_core::mqtt::packet::ReceiveMaximum::new(1).unwrap();
    let mut slow = Mqtt::connect(gateway.mqtt, &Hello::new("slow").with(one)).await;
    slow.subscribe(GROUP, 1).await;
    publisher.publish("jobs/1", "1", 1).await;
    slow.message().await;
    let mut fast = Mqtt::connect(gateway.mqtt, &Hello::new("fast")).await;
    fast.subscribe(GROUP, 1).await;
    for stream in 2..10 {
        publisher.publish(&format!("jobs/{stream}"), "x", 1).await;
        assert_eq!(fast.take().await.topic, format!("jobs/{stream}"));
    }
    let no_local = SubOpts::new().set_nl(true);
    let id = fast.next_id();
    let body =
        [&id.to_be_bytes()[..], &[0, 0, GROUP.len() as u8], GROUP.as_bytes(), &[no_local.to_buffer()[0]]]
            .concat();
    fast.send(&[&[0x82, body.len() as u8][..], &body].concat()).await;
    assert_eq!(fast.receive().await, Some(crate::world::mqtt::Packet::Disconnect(0x82)));
}
