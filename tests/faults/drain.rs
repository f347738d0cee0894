//! SIGTERM under load: no connection is reset, no acknowledged message is lost, and the process ends in time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{Error, ErrorKind};
use tokio::task::JoinSet;

use crate::measure::json_stream;
use crate::world::{Answer, Connection, Gateway, PATIENCE, Raw, Stopwatch, alone, get, post, until};

const QUIET: &str = "/v1/stream/quiet";
const BUSY: &str = "/v1/stream/busy";
const POLLS: usize = 5000;
const EVENT_STREAMS: usize = 500;
const CONNECTING: usize = 50;
const DRAIN: Duration = Duration::from_secs(30);
const STORM: [&str; 2] = ["--limit", "connections_per_second_max=100000"];

/// State of a reader at the end of its event stream: its messages and its last offset.
struct Followed {
    seen: Vec<usize>,
    offset: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_resets_no_connection_and_loses_nothing() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(&STORM).await;
    let tail = json_stream(&gateway, QUIET).await;
    json_stream(&gateway, BUSY).await;
    let mut polls = JoinSet::new();
    for _ in 0..POLLS {
        polls.spawn(be_held(gateway.address, tail.clone()));
    }
    gateway.until_held(POLLS).await;
    let mut streams = JoinSet::new();
    for _ in 0..EVENT_STREAMS {
        streams.spawn(follow(gateway.address));
    }
    let open = (POLLS + EVENT_STREAMS) as f64;
    until("all streams are open", async || gateway.metric("pollgate_connections").await > open).await;
    let publisher = tokio::spawn(publish_until_refused(gateway.address));
    until("some messages", async || {
        gateway.send(get(BUSY)).await.expect(200).json().as_array().expect("an array").len() > 20
    })
    .await;

    let since = Stopwatch::start();
    gateway.signal("TERM");
    until_not_ready(&gateway).await;
    let not_ready = since.took();
    refuses_to_hold(&gateway, &tail).await;

    let offsets = polls.join_all().await;
    let polls_ended = since.took();
    let followed = streams.join_all().await;
    let acknowledged = publisher.await.expect("the publisher saw no reset and no cut answer");
    let status = gateway.ended(PATIENCE).await;
    let ended = since.took();

    println!(
        "SIGTERM with {POLLS} held polls, {EVENT_STREAMS} event streams and a publisher: not ready after \
         {not_ready:?}, polls ended over {polls_ended:?}, exit after {ended:?}; 0 resets; {} appends \
         acknowledged, event streams saw {} to {} of them",
        acknowledged.len(),
        followed.iter().map(|one| one.seen.len()).min().expect("some"),
        followed.iter().map(|one| one.seen.len()).max().expect("some"),
    );
    assert!(status.success(), "{status}");
    assert!(not_ready.is_below(Duration::from_secs(1)), "still ready after {not_ready:?}");
    assert!(ended.is_below(DRAIN), "it ended only after {ended:?}");
    assert!(offsets.iter().all(|offset| *offset == tail), "an offset that is not the tail");
    for one in &followed {
        let count = one.seen.len();
        assert!(one.seen.iter().copied().eq(0..count), "not gapless and in order: {:?}", one.seen);
        assert!(count > 0, "an event stream that was open before the drain has seen nothing");
        assert_eq!(one.offset, acknowledged[count - 1], "an offset that says another count than {count}");
    }
    resumes_elsewhere(&followed, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_keep_connecting_are_answered_or_refused_and_never_reset() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(&[&STORM[..], &["--limit", "drain_spread=500ms"]].concat()).await;
    json_stream(&gateway, QUIET).await;
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTING {
        clients.spawn(connect_until_refused(gateway.address));
    }
    until("some answers", async || {
        let answered = r#"pollgate_requests_total{form="short-poll",status="200"}"#;
        gateway.metric(answered).await > CONNECTING as f64
    })
    .await;
    gateway.signal("TERM");
    let answers: usize = clients.join_all().await.into_iter().sum();
    let status = gateway.ended(PATIENCE).await;
    println!("{CONNECTING} clients that keep connecting through a drain: {answers} answers, 0 resets");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(&[]).await;
    let tail = json_stream(&gateway, QUIET).await;
    let mut polls = Vec::new();
    for _ in 0..100 {
        let mut poll = Raw::open(gateway.address).await;
        poll.get(&long_poll(&tail)).await.expect("it takes the request");
        polls.push(poll);
    }
    gateway.until_held(100).await;
    gateway.signal("TERM");
    until_not_ready(&gateway).await;
    let since = Stopwatch::start();
    gateway.signal("TERM");
    let status = gateway.ended(PATIENCE).await;
    let ended = since.took();
    println!("a second SIGTERM ends it after {ended:?}");
    assert!(status.success(), "{status}");
    assert!(ended.is_below(Duration::from_secs(1)), "{ended:?}");
}

fn long_poll(offset: &str) -> String {
    format!("{QUIET}?live=long-poll&timeout=55&offset={offset}")
}

/// Holds a poll that the drain ends: with its offset, an announced close and no reset. Returns the offset.
async fn be_held(address: SocketAddr, tail: String) -> String {
    let mut poll = Raw::open(address).await;
    poll.get(&long_poll(&tail)).await.expect("it takes the request");
    let answer = poll.whole_answer().await.expect("an answer, not a reset");
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(answer.says_close(), "{answer:?}");
    poll.end().await.expect("an end without a reset");
    answer.next_offset()
}

/// Follows the busy stream until the event stream ends, which must be after a control event.
async fn follow(address: SocketAddr) -> Followed {
    let mut events = Connection::open(address).await.events(format!("{BUSY}?offset=-1&live=sse")).await;
    let (mut seen, mut offset, mut unconfirmed) = (Vec::new(), None, false);
    while let Some(event) = events.next().await {
        if event.name == "data" {
            seen.extend(serde_json::from_str::<Vec<usize>>(&event.data).expect("numbers"));
            unconfirmed = true;
        } else {
            let control: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
            offset = control["streamNextOffset"].as_str().map(str::to_owned);
            unconfirmed = false;
        }
    }
    assert!(!unconfirmed, "the last event was not a control event");
    Followed { seen, offset: offset.expect("an offset") }
}

/// Appends 0, 1, 2 and so on, and reconnects after each announced close. Returns the offsets of the acknowledgements. Any
/// failure except a refused connection at the end panics.
async fn publish_until_refused(address: SocketAddr) -> Vec<String> {
    let mut acknowledged = Vec::new();
    loop {
        let mut connection = match Raw::try_open(address).await {
            Ok(connection) => connection,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return acknowledged,
            Err(error) => panic!("append {}: connecting: {error}", acknowledged.len()),
        };
        loop {
            let answer = append(&mut connection, acknowledged.len()).await;
            let answer = answer.unwrap_or_else(|error| panic!("append {}: {error}", acknowledged.len()));
            assert_eq!(answer.status, 204, "{answer:?}");
            acknowledged.push(answer.next_offset());
            if answer.says_close() {
                connection.end().await.expect("an end without a reset");
                break;
            }
        }
    }
}

/// Sends short polls, each on a new connection, until one is refused. Returns how many were answered.
async fn connect_until_refused(address: SocketAddr) -> usize {
    for answers in 0.. {
        let mut connection = match Raw::try_open(address).await {
            Ok(connection) => connection,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return answers,
            Err(error) => panic!("connecting: {error}"),
        };
        connection.get(QUIET).await.expect("it takes the request");
        let answer = connection.whole_answer().await.expect("an answer, not a reset");
        assert_eq!(answer.status, 200, "{answer:?}");
        if answer.says_close() {
            connection.end().await.expect("an end without a reset");
        }
    }
    unreachable!("the gateway ends before that")
}

async fn append(connection: &mut Raw, number: usize) -> Result<Answer, Error> {
    connection.post(BUSY, &number.to_string()).await?;
    connection.whole_answer().await
}

async fn until_not_ready(gateway: &Gateway) {
    until("it is not ready", async || gateway.ask_admin("/ready").await.status == 503).await;
}

async fn refuses_to_hold(gateway: &Gateway, tail: &str) {
    let answer = gateway.send(get(long_poll(tail))).await.expect(503);
    assert_eq!(answer.problem(), "draining");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
    assert_eq!(answer.header("connection"), "close");
}

/// A reader takes its offset and its count to another gateway: the offset is refused there, and the count completes the
/// messages.
async fn resumes_elsewhere(followed: &[Followed], acknowledged: &[String]) {
    let elsewhere = Gateway::start(&STORM).await;
    let least = followed.iter().min_by_key(|one| one.seen.len()).expect("some");
    for live in ["", "&live=long-poll", "&live=sse"] {
        let target = format!("{BUSY}?offset={}{live}", least.offset);
        assert_eq!(elsewhere.send(get(&target)).await.expect(404).problem(), "stream-not-found");
    }
    let all: Vec<_> = (0..acknowledged.len()).collect();
    json_stream(&elsewhere, BUSY).await;
    elsewhere.send(post(BUSY).json(format!("{all:?}"))).await.expect(204);
    for live in ["", "&live=long-poll", "&live=sse"] {
        let target = format!("{BUSY}?offset={}{live}", least.offset);
        let answer = elsewhere.send(get(&target)).await.expect(410);
        assert_eq!((answer.problem().as_str(), answer.header("stream-gap")), ("gap", "reason=epoch"));
    }
    let answer = elsewhere.send(get(format!("{BUSY}?offset=-1"))).await.expect(200);
    let there: Vec<usize> = serde_json::from_slice(&answer.body).expect("numbers");
    for one in followed {
        let completed = one.seen.iter().chain(&there[one.seen.len()..]);
        assert!(completed.eq(&all), "a reader that had {} messages has not got all", one.seen.len());
    }
}
