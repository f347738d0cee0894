//! Publishing through a network that loses responses and repeats requests.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use pollgate_client::{Item, Settings, Start};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::behind::Behind;
use crate::ends::HANGS;
use crate::world::beside_others;

const STREAMS: usize = 8;
const MESSAGES: usize = 12_500;

/// Publishes in flight per stream; messages that arrive during a request go into the next one.
const AT_ONCE: usize = 25;

/// 20 % of the responses are lost and every 10th request is repeated, for the publisher and the reader: 100 000 messages in
/// eight streams arrive once each and in order, and the gateway never refuses a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_responses_neither_lose_nor_double_any_of_100_000_messages() {
    let _turn = beside_others().await;
    let unlimited = ["--limit", "connections_per_second_max=100000"];
    let behind = Behind::of(&"lossy-answers".parse().unwrap(), &unlimited).await;
    let settings = Settings { backoff_min: Duration::from_millis(10), ..Settings::default() };
    let client = behind.client().settings(settings).build().unwrap();
    let mut publishing = JoinSet::new();
    for number in 0..STREAMS {
        let producer = client.producer(&format!("stream-{number}"), "application/json");
        publishing.spawn(async move {
            let publishes = stream::iter(0..MESSAGES).map(|number| producer.publish(format!("{number}")));
            publishes.buffered(AT_ONCE).for_each(async |published| published.unwrap()).await;
        });
    }
    let streams = (0..STREAMS).map(|stream| format!("stream-{stream}"));
    let mut subscription = client.subscribe(streams, Start::earliest());
    let mut next = [0; STREAMS];
    while next.iter().any(|next| *next < MESSAGES) {
        match timeout(HANGS, subscription.next()).await.expect("nothing for a minute").unwrap() {
            Item::Message(message) => {
                let stream: usize = message.stream.strip_prefix("stream-").unwrap().parse().unwrap();
                let number: usize = String::from_utf8_lossy(message.data.bytes()).parse().unwrap();
                assert_eq!(number, next[stream], "of stream {stream}");
                next[stream] += 1;
            }
            Item::Missing { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    publishing.join_all().await;
    let more = timeout(Duration::from_secs(2), subscription.next()).await;
    assert!(more.is_err(), "{more:?}");
    let passed = behind.middlebox.passed();
    println!("{passed:?}");
    assert!(passed.requests > 2000 && passed.faults > passed.requests / 5, "a network that is not felt");
    let metrics = behind.metrics().await;
    let answers: Vec<_> = metrics.lines().filter(|line| line.contains("requests_total{")).collect();
    assert!(!answers.is_empty(), "{metrics}");
    let refused = |line: &&str| {
        let refused = line.contains("status=\"4") || line.contains("status=\"5");
        refused && !line.ends_with(" 0")
    };
    let refused: Vec<_> = answers.into_iter().filter(refused).collect();
    assert!(refused.is_empty(), "{refused:?}");
}
