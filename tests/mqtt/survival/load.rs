//! The gateway is killed at random moments, while messages with QoS 1 and 2 are published and delivered.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::durable_gateway::DurableGateway;
use super::publisher::{LAST, Publisher};
use super::subscriber::{Received, Subscriber};
use crate::world::mqtt::Hello;
use crate::world::{get, put};

/// Number of kills, and the minimum number of messages of each QoS. The variable `SURVIVAL_KILLS` overrides the number of kills.
const KILLS: u32 = 10;
const MESSAGES: u32 = 1000;

/// The longest time before a kill, in milliseconds. Each fourth kill is later, after the state that is written once a second.
const MOMENTS: std::ops::Range<u64> = 0..300;
const LATER_MOMENTS: std::ops::Range<u64> = 0..2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_and_none_of_qos_2_doubled_however_often_the_gateway_is_killed() {
    let kills = std::env::var("SURVIVAL_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let mut durable = DurableGateway::start().await;
    let topics = [(1, "load/1"), (2, "load/2")];
    for (_, topic) in topics {
        durable.gateway.send(put(format!("/v1/stream/{topic}")).json("")).await.expect(201);
    }
    let hello = |version, id: &str| Hello { version, ..Hello::lasting(id) };
    let (stop, stopped) = watch::channel(false);
    let subscribers = [(4, 1), (5, 1), (4, 2), (5, 2)];
    let mut received = Vec::new();
    for (version, qos) in subscribers {
        let hello = hello(version, &format!("subscriber-{version}-{qos}"));
        durable.connect(&hello).await.subscribe("load/+", qos).await;
        received.push(tokio::spawn(Subscriber { hello, topics: topics.len() }.run(durable.home())));
    }
    let published = topics.map(|(qos, topic)| {
        let hello = hello(3 + qos, &format!("publisher-{qos}"));
        let publisher = Publisher { hello, topic: topic.into(), qos, at_least: MESSAGES };
        tokio::spawn(publisher.run(durable.home(), stopped.clone()))
    });

    let mut slowest = Duration::ZERO;
    for kill in 1..=kills {
        let moment = fastrand::u64(if kill % 4 == 0 { LATER_MOMENTS } else { MOMENTS });
        sleep(Duration::from_millis(moment)).await;
        durable.kill().await;
        let since = Instant::now();
        durable.start_again().await;
        slowest = slowest.max(since.elapsed());
    }
    stop.send_replace(true);

    let mut counts = Vec::new();
    for (task, (qos, topic)) in published.into_iter().zip(topics) {
        let count = task.await.expect("it publishes to its end");
        let log = durable.gateway.send(get(format!("/v1/stream/{topic}"))).await.expect(200).text();
        expect(&numbers(&log), count, qos, &format!("the log of {topic}"));
        counts.push((topic, qos, count));
    }
    let mut repeated = 0;
    for (task, (version, qos)) in received.into_iter().zip(subscribers) {
        let received: Received = task.await.expect("the subscriber has received everything");
        for (topic, published, count) in &counts {
            let who = format!("subscriber of version {version} at qos {qos}, {topic}");
            repeated += expect(&received[*topic], *count, qos.min(*published), &who);
        }
    }
    println!(
        "{kills} kills, listening again after {slowest:.0?} at most: {counts:?} published to {} subscribers; lost 0, of \
         qos 2 doubled 0, of qos 1 repeated {repeated}",
        subscribers.len()
    );
}

/// The numbers of a JSON stream.
fn numbers(json: &str) -> Vec<String> {
    json.trim_matches(['[', ']']).split(',').map(str::to_owned).collect()
}

/// Checks that the numbers up to `count` are there in order, followed by the last message: exactly once with QoS 2, at least
/// once with QoS 1, where a repetition may only follow its original. Returns the number of repetitions.
#[track_caller]
fn expect(found: &[String], count: u32, qos: u8, what: &str) -> usize {
    let mut expected: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    expected.push(LAST.to_owned());
    let mut seen = std::collections::HashSet::new();
    let first: Vec<_> = found.iter().filter(|text| seen.insert(text.as_str())).cloned().collect();
    let repeated = found.len() - first.len();
    assert!(qos < 2 || repeated == 0, "{what}: {repeated} messages were doubled");
    let lost = expected.iter().filter(|text| !seen.contains(text.as_str())).count();
    assert_eq!(lost, 0, "{what}: {lost} of {count} messages were lost");
    if let Some(at) = first.iter().zip(&expected).position(|(found, expected)| found != expected) {
        let early = found.iter().position(|text| *text == first[at]).expect("it was found");
        let late = found.iter().position(|text| *text == expected[at]).expect("it is not lost");
        let around = |at: usize| &found[at.saturating_sub(10)..found.len().min(at + 10)];
        panic!("{what}: {} before {}: {:?} and {:?}", first[at], expected[at], around(early), around(late));
    }
    repeated
}
