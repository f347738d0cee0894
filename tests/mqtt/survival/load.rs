//! Kills at any moment, while messages of both qualities go in and out.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::lasting::Lasting;
use super::publisher::{LAST, Publisher};
use super::subscriber::{Subscriber, Taken};
use crate::world::mqtt::Hello;
use crate::world::{get, put};

/// How often the gateway is killed, and how many messages there are of each quality at least. `SURVIVAL_KILLS` says how
/// often instead.
const KILLS: u32 = 10;
const MESSAGES: u32 = 1000;

/// The longest time before a kill, in milliseconds. Each fourth kill is later, so that what is written once a second is stored, too.
const MOMENTS: std::ops::Range<u64> = 0..300;
const LATER_MOMENTS: std::ops::Range<u64> = 0..2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_and_none_of_quality_2_doubled_however_often_the_gateway_is_killed() {
    let kills = std::env::var("SURVIVAL_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let mut lasting = Lasting::start().await;
    let topics = [(1, "load/1"), (2, "load/2")];
    for (_, topic) in topics {
        lasting.gateway.send(put(format!("/v1/stream/{topic}")).json("")).await.expect(201);
    }
    let hello = |version, id: &str| Hello { version, ..Hello::lasting(id) };
    let (stop, stopped) = watch::channel(false);
    let subscribers = [(4, 1), (5, 1), (4, 2), (5, 2)];
    let mut taken = Vec::new();
    for (version, quality) in subscribers {
        let hello = hello(version, &format!("subscriber-{version}-{quality}"));
        lasting.connect(&hello).await.subscribe("load/+", quality).await;
        taken.push(tokio::spawn(Subscriber { hello, topics: topics.len() }.run(lasting.home())));
    }
    let published = topics.map(|(quality, topic)| {
        let hello = hello(3 + quality, &format!("publisher-{quality}"));
        let publisher = Publisher { hello, topic: topic.into(), quality, at_least: MESSAGES };
        tokio::spawn(publisher.run(lasting.home(), stopped.clone()))
    });

    let mut slowest = Duration::ZERO;
    for kill in 1..=kills {
        let moment = fastrand::u64(if kill % 4 == 0 { LATER_MOMENTS } else { MOMENTS });
        sleep(Duration::from_millis(moment)).await;
        lasting.kill().await;
        let since = Instant::now();
        lasting.start_again().await;
        slowest = slowest.max(since.elapsed());
    }
    stop.send_replace(true);

    let mut counts = Vec::new();
    for (task, (quality, topic)) in published.into_iter().zip(topics) {
        let count = task.await.expect("it publishes to its end");
        let log = lasting.gateway.send(get(format!("/v1/stream/{topic}"))).await.expect(200).text();
        expect(&numbers(&log), count, quality, &format!("the log of {topic}"));
        counts.push((topic, quality, count));
    }
    let mut repeated = 0;
    for (task, (version, quality)) in taken.into_iter().zip(subscribers) {
        let taken: Taken = task.await.expect("it takes all to the end");
        for (topic, published, count) in &counts {
            let who = format!("subscriber of version {version} at quality {quality}, {topic}");
            repeated += expect(&taken[*topic], *count, quality.min(*published), &who);
        }
    }
    println!(
        "{kills} kills, listening again after {slowest:.0?} at most: {counts:?} published to {} subscribers; lost 0, of \
         quality 2 doubled 0, of quality 1 repeated {repeated}",
        subscribers.len()
    );
}

/// The numbers of a JSON stream.
fn numbers(json: &str) -> Vec<String> {
    json.trim_matches(['[', ']']).split(',').map(str::to_owned).collect()
}

/// Checks that all so many numbers are there, in order and the last one behind them: once at quality 2, and at quality 1
/// at least once, where a number may come again only behind its first time. Returns how many came again.
#[track_caller]
fn expect(found: &[String], count: u32, quality: u8, what: &str) -> usize {
    let mut expected: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    expected.push(LAST.to_owned());
    let mut seen = std::collections::HashSet::new();
    let first: Vec<_> = found.iter().filter(|text| seen.insert(text.as_str())).cloned().collect();
    let repeated = found.len() - first.len();
    assert!(quality < 2 || repeated == 0, "{what}: {repeated} messages were doubled");
    let lost = expected.iter().filter(|text| !seen.contains(text.as_str())).count();
    assert_eq!(lost, 0, "{what}: {lost} of {count} messages were lost");
    assert!(first == expected, "{what}: not in order");
    repeated
}
