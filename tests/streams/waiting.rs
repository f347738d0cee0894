//! One wait for many streams: which reader wakes and which does not, what ends the wait, and what it leaves behind.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::ask::{Ask, Envelope};
use super::reader::Reader;
use crate::world::{
    Answer, Form, Gateway, PATIENCE, Request, Stopwatch, delete, get, head, post, put, until,
};

const WAKES: &str = "pollgate_follower_wakes_total";

/// The metrics of waiting clients.
const WAITING: [&str; 5] = ["held_polls", "waiters", "watched_streams", "subscribers", "subscriptions"];

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}/{n}")).collect()
}

async fn create(gateway: &Gateway, names: &[String]) {
    let mut connection = gateway.connect().await;
    for name in names {
        connection.send(put(format!("/v1/stream/{name}")).json("")).await.expect(201);
    }
}

/// Returns a request that continues at the tails of these streams.
async fn begin(gateway: &Gateway, names: &[String]) -> Ask {
    let ask = Ask::of(names.iter().cloned());
    let envelope = ask.poll(&mut gateway.connect().await).await;
    ask.behind(&envelope.resume.unwrap())
}

async fn hold(gateway: &Gateway, request: Request) -> JoinHandle<Answer> {
    let mut connection = gateway.connect().await;
    tokio::spawn(async move { connection.send(request).await })
}

async fn append(gateway: &Gateway, name: &str, body: &str) {
    gateway.send(post(format!("/v1/stream/{name}")).json(body)).await.expect(204);
}

async fn nothing_is_left(gateway: &Gateway) {
    for name in WAITING {
        let metric = format!("pollgate_{name}");
        until(&metric, async || gateway.metric(&metric).await == 0.0).await;
    }
}

#[tokio::test]
async fn an_append_to_one_of_a_thousand_streams_wakes_its_poll_once_and_no_other() {
    let gateway = Gateway::start(&[]).await;
    let (ours, others) = (names("ours", 1000), names("others", 1000));
    create(&gateway, &ours).await;
    create(&gateway, &others).await;
    let asleep = hold(&gateway, begin(&gateway, &others).await.long_poll().request()).await;
    let (mut wakes, mut rounds) = (0.0, 0);
    // A poll that is still in its first pass over a thousand streams finds the message by itself, and is not woken.
    while wakes == 0.0 {
        rounds += 1;
        assert!(rounds <= 20, "no poll was ever woken");
        let waiting = hold(&gateway, begin(&gateway, &ours).await.long_poll().request()).await;
        until("both wait", async || gateway.metric("pollgate_subscriptions").await == 2000.0).await;
        assert_eq!(gateway.metric("pollgate_held_polls").await, 2.0);
        append(&gateway, "ours/617", "[1,2]").await;
        let envelope = Envelope::of(&waiting.await.unwrap());
        assert_eq!(envelope.streams(), ["ours/617"]);
        assert_eq!((&envelope.batches[0].data, envelope.up_to_date), (&vec![1.into(), 2.into()], true));
        wakes = gateway.metric(WAKES).await;
    }
    assert_eq!(wakes, 1.0);
    assert!(!asleep.is_finished());
    append(&gateway, "others/0", "3").await;
    assert_eq!(Envelope::of(&asleep.await.unwrap()).streams(), ["others/0"]);
    assert_eq!(gateway.metric(WAKES).await, 2.0);
    nothing_is_left(&gateway).await;
}

#[tokio::test]
async fn readers_that_disconnect_leave_no_state_behind() {
    let gateway = Gateway::start(&[]).await;
    let streams = names("s", 50);
    create(&gateway, &streams[1..]).await;
    let ask = begin(&gateway, &streams).await;
    let mut readers = Vec::new();
    for form in [Form::LongPoll, Form::Sse, Form::Ndjson, Form::WebSocket] {
        let mut reader = Reader::open(&gateway, form, ask.clone()).await;
        readers.push(tokio::spawn(async move { while reader.next().await.is_some() {} }));
    }
    until("all wait", async || gateway.metric("pollgate_subscriptions").await == 200.0).await;
    for form in Form::LIVE {
        let open = format!("pollgate_live_connections{{form=\"{}\"}}", form.name());
        assert_eq!(gateway.metric(&open).await, 1.0, "{form:?}");
    }
    assert_eq!(gateway.metric("pollgate_held_polls").await, 1.0);
    for reader in readers {
        reader.abort();
    }
    nothing_is_left(&gateway).await;
}

#[tokio::test]
async fn a_poll_is_held_as_long_as_it_requests_and_the_hold_is_reported() {
    let gateway = Gateway::start(&[]).await;
    let ask = begin(&gateway, &names("none", 3)).await.long_poll();
    let resume = ask.resume.clone();
    let answer = gateway.send(Ask { timeout: Some(1), ..ask.clone() }.request()).await;
    assert_eq!(answer.header("preference-applied"), "wait=1");
    let envelope = Envelope::of(&answer);
    assert!(envelope.batches.is_empty() && envelope.up_to_date && !envelope.superseded, "{envelope:?}");
    assert_eq!(envelope.resume, resume);
    let answer = gateway.send(ask.request().header("prefer", "wait=0")).await;
    assert_eq!((Envelope::of(&answer).resume, answer.header("preference-applied")), (resume, "wait=0"));
}

#[tokio::test]
async fn a_stream_without_an_entry_in_the_resume_token_gets_one_at_once() {
    let gateway = Gateway::start(&[]).await;
    let streams = names("s", 2);
    create(&gateway, &streams).await;
    // 1. A long poll begins at the tail of one stream, and is answered at once so that its client has an offset.
    let first = Ask::of(&streams[..1]).long_poll().poll(&mut gateway.connect().await).await;
    assert!(first.batches.is_empty() && first.up_to_date);
    // 2. The client adds another stream. Later messages of it are not lost, even if the client does not poll for a while.
    let ask = Ask::of(&streams).behind(&first.resume.unwrap()).long_poll();
    let second = ask.poll(&mut gateway.connect().await).await;
    assert!(second.batches.is_empty());
    append(&gateway, "s/1", "1").await;
    let third = ask.behind(&second.resume.unwrap()).poll(&mut gateway.connect().await).await;
    assert_eq!(third.streams(), ["s/1"]);
    // None of these polls was held.
    assert_eq!(gateway.metric("pollgate_hold_seconds_count").await, 0.0);
}

#[tokio::test]
async fn a_newer_poll_of_the_client_ends_the_older_one_even_with_other_streams() {
    let gateway = Gateway::start(&[]).await;
    let streams = names("s", 3);
    create(&gateway, &streams).await;
    let phone = async |streams: &[String]| {
        Ask { client: Some("phone"), ..begin(&gateway, streams).await.long_poll() }.request()
    };
    let one = hold(&gateway, get("/v1/stream/s/0?live=long-poll&offset=now&client=phone")).await;
    gateway.until_held(1).await;
    let older = hold(&gateway, phone(&streams).await).await;
    gateway.until_held(2).await;
    let seen = gateway.ask_admin("/clients/phone").await.expect(200).json();
    assert_eq!((&seen["held"][0]["stream"], &seen["held"][1]["streams"]), (&"s/0".into(), &3.into()));
    assert_eq!(gateway.ask_admin("/clients").await.expect(200).json().as_array().unwrap().len(), 1);
    let newer = hold(&gateway, phone(&streams[1..]).await).await;
    let ended = Envelope::of(&older.await.unwrap());
    assert!(ended.superseded && ended.batches.is_empty(), "{ended:?}");
    gateway.until_held(2).await;
    append(&gateway, "s/2", "1").await;
    let answer = Envelope::of(&newer.await.unwrap());
    assert_eq!((answer.streams(), answer.superseded), (vec!["s/2"], false));
    append(&gateway, "s/0", "1").await;
    one.await.unwrap().expect(200);
}

#[tokio::test]
async fn the_idle_time_of_a_stream_does_not_elapse_while_a_reader_waits() {
    let gateway = Gateway::start(&[]).await;
    let streams = names("s", 2);
    for name in &streams {
        let create = put(format!("/v1/stream/{name}")).header("stream-ttl", 1);
        gateway.send(create.json("")).await.expect(201);
    }
    let ask = begin(&gateway, &streams[..1]).await;
    let poll = hold(&gateway, Ask { timeout: Some(3), ..ask.long_poll() }.request()).await;
    gateway.until_held(1).await;
    until("the other one ends", async || gateway.send(head("/v1/stream/s/1")).await.status == 404).await;
    sleep(Duration::from_millis(500)).await;
    gateway.send(head("/v1/stream/s/0")).await.expect(200);
    assert!(Envelope::of(&poll.await.unwrap()).batches.is_empty());
    nothing_is_left(&gateway).await;
    // It elapses again when no reader waits.
    let poll = hold(&gateway, begin(&gateway, &streams[..1]).await.long_poll().request()).await;
    gateway.until_held(1).await;
    gateway.send(delete("/v1/stream/s/0")).await.expect(204);
    assert!(Envelope::of(&poll.await.unwrap()).batches[0].missing);
}

#[tokio::test]
async fn a_gateway_that_drains_ends_each_form_with_its_resume_token() {
    let mut gateway = Gateway::start(&["--limit", "drain_spread=300ms"]).await;
    let streams = names("s", 3);
    create(&gateway, &streams).await;
    let ask = begin(&gateway, &streams).await;
    let resume = ask.resume.clone().unwrap();
    let poll = hold(&gateway, ask.clone().long_poll().request()).await;
    let mut readers = Vec::new();
    for form in Form::LIVE {
        let mut reader = Reader::open(&gateway, form, ask.clone()).await;
        reader.next().await.unwrap();
        readers.push(reader);
    }
    until("all wait", async || gateway.metric("pollgate_subscriptions").await == 12.0).await;
    gateway.signal("TERM");
    assert_eq!(Envelope::of(&poll.await.unwrap()).resume.as_deref(), Some(&*resume));
    for reader in &mut readers {
        let last = reader.next().await.expect("a last envelope");
        assert!(last.batches.is_empty(), "{last:?}");
        assert_eq!((reader.next().await.is_none(), &reader.resume), (true, &resume));
    }
    drop(readers);
    let since = Stopwatch::start();
    assert!(gateway.ended(PATIENCE).await.success());
    assert!(since.took().is_below(Duration::from_secs(3)), "{:?}", since.took());
}
