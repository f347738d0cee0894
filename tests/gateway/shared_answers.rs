//! One append wakes many readers, which share one read of the log: each response still has its own form, fields and offset.

use tokio::task::JoinHandle;

use crate::world::{Answer, Events, Gateway, Request, get, next_line, post, put, until};

/// Number of readers of each kind, which share one read and one encoding.
const EACH: usize = 3;

async fn hold(gateway: &Gateway, request: Request) -> JoinHandle<Answer> {
    let mut connection = gateway.connect().await;
    tokio::spawn(async move { connection.send(request).await })
}

fn poll(rest: &str) -> Request {
    get(format!("/v1/stream/s?live=long-poll&{rest}"))
}

fn cursor(answer: &Answer) -> u64 {
    answer.header("stream-cursor").parse().unwrap()
}

#[tokio::test]
async fn polls_that_are_answered_together_get_their_own_header_fields() {
    let gateway = Gateway::start(&[]).await;
    let mut tail = gateway.send(put("/v1/stream/s").json("")).await.expect(201).next_offset();
    let cursors = [1_000_000_000u64, 2_000_000_000];
    for round in 0..10 {
        let plain = poll(&format!("offset={tail}"));
        let timed = |seconds: u64| poll(&format!("offset={tail}&timeout={seconds}"));
        let ahead = |cursor: u64| poll(&format!("offset={tail}&cursor={cursor}"));
        let kinds = [
            plain.clone(),
            timed(20),
            timed(40),
            plain.clone().header("prefer", "wait=30"),
            ahead(cursors[0]),
            ahead(cursors[1]),
        ];
        let mut held = Vec::new();
        for _ in 0..EACH {
            for kind in &kinds {
                held.push(hold(&gateway, kind.clone()).await);
            }
        }
        gateway.until_held(EACH * kinds.len()).await;
        let next = gateway.send(post("/v1/stream/s").json(round)).await.expect(204).next_offset();
        for (number, held) in held.into_iter().enumerate() {
            let answer = held.await.unwrap().expect(200);
            assert_eq!((answer.text(), answer.next_offset()), (format!("[{round}]"), next.clone()));
            let kind = number % kinds.len();
            let applied = ["", "wait=20", "wait=40", "wait=30", "", ""][kind];
            assert_eq!(answer.header("preference-applied"), applied, "kind {kind}");
            let range = match kind {
                4 | 5 => cursors[kind - 4] + 1..cursors[kind - 4] + 181,
                _ => 1..cursors[0],
            };
            assert!(range.contains(&cursor(&answer)), "kind {kind}: {answer:?}");
        }
        tail = next;
    }
}

/// The two offsets differ by half a character, and both readers are at the tail before the next append.
#[tokio::test]
async fn readers_at_different_offsets_get_the_messages_after_theirs() {
    let gateway = Gateway::start(&[]).await;
    for round in 0..10 {
        let path = format!("/v1/stream/{round}");
        let behind = gateway.send(put(&path).text(&b"c\xc3"[..])).await.expect(201).next_offset();
        let whole = gateway.send(get(&path)).await.expect(200);
        assert_eq!(whole.text(), "c");
        let before = whole.next_offset();
        assert_ne!(before, behind);
        let mut held = Vec::new();
        for number in 0..4 * EACH {
            let offset = if number % 2 == 0 { &before } else { &behind };
            held.push(hold(&gateway, get(format!("{path}?live=long-poll&offset={offset}"))).await);
        }
        gateway.until_held(4 * EACH).await;
        let next = gateway.send(post(&path).text(&b"\xa4!"[..])).await.expect(204).next_offset();
        for (number, held) in held.into_iter().enumerate() {
            let answer = held.await.unwrap().expect(200);
            let expected = if number % 2 == 0 { &b"\xc3\xa4!"[..] } else { &b"\xa4!"[..] };
            assert_eq!((&answer.body[..], answer.next_offset()), (expected, next.clone()), "reader {number}");
        }
    }
}

/// A reader of many streams keeps the tail state of the stream alive, so that even empty responses are shared.
#[tokio::test]
async fn only_the_superseded_poll_is_told_so_however_many_wait_beside_it() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let mut follower = gateway.connect().await.events("/v1/streams?stream=s&live=sse").await;
    follower.next().await.unwrap();
    until("it subscribes", async || gateway.metric("pollgate_subscriptions").await == 1.0).await;
    let tail = gateway.send(post("/v1/stream/s").json("0")).await.expect(204).next_offset();
    follower.next().await.unwrap();
    let mine = || poll(&format!("offset={tail}&client=phone"));
    let mut others = Vec::new();
    for _ in 0..EACH {
        others.push(hold(&gateway, poll(&format!("offset={tail}"))).await);
    }
    let mut older = hold(&gateway, mine()).await;
    gateway.until_held(EACH + 1).await;
    for round in 0..3 {
        let newer = hold(&gateway, mine()).await;
        let ended = older.await.unwrap().expect(204);
        assert_eq!(ended.header("stream-superseded"), "true", "round {round}");
        assert_eq!(ended.next_offset(), tail);
        older = newer;
    }
    gateway.until_held(EACH + 1).await;
    gateway.send(post("/v1/stream/s").json("1")).await.expect(204);
    others.push(older);
    for held in others {
        let answer = held.await.unwrap().expect(200);
        assert_eq!((answer.text().as_str(), answer.header("stream-superseded")), ("[1]", ""));
    }
}

/// The JSON of the next control event.
async fn control(events: &mut Events) -> serde_json::Value {
    loop {
        let event = events.next().await.expect("it goes on");
        if event.name == "control" {
            return serde_json::from_str(&event.data).unwrap();
        }
    }
}

#[tokio::test]
async fn live_readers_in_different_forms_and_with_different_cursors_get_their_own() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let ahead = [0, 1_000_000_000u64, 2_000_000_000];
    let mut events = Vec::new();
    for number in 0..ahead.len() * EACH {
        let cursor = ahead[number % ahead.len()];
        let target = format!("/v1/stream/s?offset=-1&live=sse&cursor={cursor}");
        events.push(gateway.connect().await.events(target).await);
    }
    let mut lines = Vec::new();
    for _ in 0..EACH {
        let mut connection = gateway.connect().await;
        let begun = connection.begin(get("/v1/stream/s?offset=-1&live=ndjson")).await.unwrap();
        lines.push((connection, begun.2, Vec::new()));
    }
    for events in &mut events {
        control(events).await;
    }
    for (_, body, read) in &mut lines {
        next_line(body, read).await.unwrap();
    }
    for round in 0..5 {
        gateway.until_waiting(events.len() + lines.len()).await;
        let next = gateway.send(post("/v1/stream/s").json(round)).await.expect(204).next_offset();
        for (number, events) in events.iter_mut().enumerate() {
            assert_eq!(events.next().await.unwrap().data, format!("[{round}]"));
            let control = control(events).await;
            assert_eq!(control["streamNextOffset"], next.as_str());
            let cursor: u64 = control["streamCursor"].as_str().unwrap().parse().unwrap();
            let range = match ahead[number % ahead.len()] {
                0 => 1..ahead[1],
                ahead => ahead + 1..ahead + 181,
            };
            assert!(range.contains(&cursor), "reader {number}: {cursor}");
        }
        for (_, body, read) in &mut lines {
            let line: serde_json::Value =
                serde_json::from_str(&next_line(body, read).await.unwrap()).unwrap();
            assert_eq!((&line["data"][0], &line["streamNextOffset"]), (&round.into(), &next.as_str().into()));
        }
    }
}
