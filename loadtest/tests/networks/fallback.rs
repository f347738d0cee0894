//! The guarantees of the client that falls back, behind each network. Times are scaled by 0.1 unless a test says otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

use loadtest::matrix::Rows;
use loadtest::network::{Clock, Profile};
use pollgate_client::{Form, Reason, Settings, Start};
use tokio::time::{Instant, sleep};

use crate::behind::{Behind, Reading};
use crate::ends::hops;
use crate::world::{Loadtest, Stopwatch, alone, beside_others, on_time};

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// One row per built-in network, with at least 1000 messages each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_every_network_all_messages_come_once_and_in_order() {
    let _turn = beside_others().await;
    let load = ["--reader", "fallback", "--scale", "0.1", "--bursts", "6", "--rate", "65"];
    let ended = Loadtest::new(&[&["networks"], &load[..]].concat()).run().await;
    assert_eq!(ended.code, Some(0));
    let rows: Rows = serde_json::from_value(ended.json("networks")).unwrap();
    assert!(rows.rows.len() >= 17, "{}", rows.rows.len());
    for row in &rows.rows {
        let (network, counts) = (&row.network, row.deliveries);
        assert!(counts.intended >= 1000, "{network}: {counts:?}");
        assert_eq!(
            (counts.lost, counts.doubled, counts.out_of_order),
            (0, 0, 0),
            "{network}: {:?}",
            row.changes
        );
        assert_eq!(row.troubles, BTreeMap::new(), "{network}");
        // Otherwise the network had no effect.
        let is_felt = !["none", "slow", "nat-idle", "nat-reset"].contains(&network.as_str());
        let is_cut = network.starts_with("proxy-cut");
        assert!(row.passed.faults > 0 || !is_felt || is_cut || network == "http10", "{network}");
    }
    let form = |network: &str| &rows.rows.iter().find(|row| row.network == network).unwrap().form;
    assert_eq!((form("none"), form("captive")), (&"websocket".to_owned(), &"websocket".to_owned()));
    assert_eq!((form("no-streaming"), form("no-websocket")), (&"long-poll".to_owned(), &"sse".to_owned()));
}

/// With unscaled times: a message that was published before the client started, and one that is published before any form has
/// worked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_comes_within_5_s_on_every_network_that_buffers() {
    for network in ["proxy-buffer", "proxy-buffer-4k", "proxy-buffer-32k", "no-streaming"] {
        let behind = Behind::of(&network.parse().unwrap(), &[]).await;
        let producer = behind.producer("orders");
        producer.publish("\"before\"").await.unwrap();
        let began = Stopwatch::start();
        let read = |start| Reading::start(behind.client(), "orders", start);
        let (mut late, mut early) = (read(Start::earliest()), read(Start::now()));
        assert_eq!(late.message().await, "\"before\"");
        let took = began.took();
        assert!(took.is_below(millis(5000)), "{network}: {took:?}");
        early.has_begun().await;
        let published = Stopwatch::start();
        producer.publish("\"after\"").await.unwrap();
        let (first, second) = tokio::join!(early.message(), late.message());
        assert_eq!((first.as_str(), second.as_str()), ("\"after\"", "\"after\""));
        let took = published.took();
        assert!(took.is_below(millis(5000)), "{network}: {took:?}");
    }
}

/// Proxies that cut after 30, 60 and 100 s, with holds of 110 s: the client meets at most one proxy error, none in its next
/// five holds, and receives each message at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_meets_at_most_one_proxy_error() {
    on_time(async || {
        let _turn = alone().await;
        let cut = async |seconds: u64, ending: &str, forms: Vec<Form>| {
            let seconds = seconds as f64 / 10.0;
            let network = hops(&format!(
                "{{ proxy-cut = {{ first-byte = {seconds}, next-byte = {seconds}, ending = '{ending}' }} }}"
            ));
            let behind = Behind::of(
                &network,
                &["--hold", "3s", "--hold-max", "11s", "--limit", "live_heartbeat=1500ms"],
            )
            .await;
            let settings = Settings {
                hold: Duration::from_secs(11),
                heartbeat_min: Duration::from_secs(1),
                forms: forms.clone(),
                ..Settings::default()
            };
            let producer = behind.producer("orders");
            producer.publish("0").await.unwrap();
            let mut reading = Reading::start(behind.client().settings(settings), "orders", Start::earliest());
            assert_eq!(reading.message().await, "0");
            // The first hold is cut; five of the shorter holds after it are not.
            sleep(Duration::from_secs_f64(seconds * 5.0 + 1.0)).await;
            let published = Instant::now();
            producer.publish("1").await.unwrap();
            assert_eq!(reading.message().await, "1");
            let (waited, passed) = (published.elapsed(), behind.middlebox.passed());
            println!("cut after {seconds} s, {ending}, {forms:?}: {passed:?}, waited {waited:?}");
            assert!(passed.faults <= 1, "cut after {seconds} s, {ending}, {forms:?}: {passed:?}");
            assert!(waited < millis(1000), "{waited:?}");
            if forms == [Form::LongPoll, Form::ShortPoll] {
                assert_eq!((passed.faults, reading.form()), (1, Form::LongPoll));
            }
        };
        let polls = || vec![Form::LongPoll, Form::ShortPoll];
        let all = || Form::ALL.to_vec();
        tokio::join!(
            cut(30, "gateway-timeout", polls()),
            cut(60, "gateway-timeout", polls()),
            cut(100, "gateway-timeout", polls()),
            cut(30, "close", polls()),
            cut(60, "close", polls()),
            cut(30, "gateway-timeout", all()),
            cut(60, "close", all()),
            cut(100, "gateway-timeout", all()),
        );
    })
    .await;
}

/// 1. Every WebSocket is cut after 200 ms: after at most three the client changes to another form. 2. The network recovers. 3.
/// Within the time until a better form is tried again the client returns to its WebSocket, and keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_leaves_websockets_that_are_cut_after_3_tries_and_returns_later() {
    on_time(async || {
        let network =
            Profile { until: Some(Clock(millis(5000))), ..hops("{ websocket-cut = { after = 0.2 } }") };
        let began = Instant::now();
        let behind = Behind::of(&network, &[]).await;
        let producer = behind.producer("orders");
        producer.publish("0").await.unwrap();
        let settings = Settings {
            reprobe_after: millis(2000),
            reprobe_max: millis(4000),
            stable_after: millis(500),
            heartbeat_min: millis(1000),
            ..Settings::default()
        };
        let mut reading = Reading::start(behind.client().settings(settings), "orders", Start::earliest());
        assert_eq!(reading.message().await, "0");
        while reading.form() != Form::Sse {
            sleep(millis(10)).await;
        }
        assert!(behind.middlebox.passed().faults <= 3, "{:?}", behind.middlebox.passed());
        assert_eq!(reading.changes().last(), Some(&(Form::Sse, Reason::Cut)));
        producer.publish("1").await.unwrap();
        assert_eq!(reading.message().await, "1");
        // The network has recovered; then the longest wait until the next try, jittered by a tenth, and a moment for the try
        // itself.
        sleep((millis(5000) + millis(4400) + millis(500)).saturating_sub(began.elapsed())).await;
        let killed = behind.middlebox.passed().faults;
        assert_eq!(reading.form(), Form::WebSocket, "{:?}", reading.changes());
        producer.publish("2").await.unwrap();
        assert_eq!(reading.message().await, "2");
        sleep(millis(5000)).await;
        assert_eq!((reading.form(), behind.middlebox.passed().faults), (Form::WebSocket, killed));
    })
    .await;
}
