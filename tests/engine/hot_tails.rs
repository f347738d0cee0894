//! Held polls at the tail of a stream that is watched cost the engine nothing, and are answered by each append of any gateway.

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;

use crate::server::Engine;
use crate::world::{Gateway, Request, get, post, put, until};

fn held_poll(offset: &str, seconds: u32) -> Request {
    get(format!("/v1/stream/s?offset={offset}&live=long-poll&timeout={seconds}"))
}

#[tokio::test]
async fn a_poll_at_the_tail_is_held_without_a_call_and_answered_after_the_next_append() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    one.send(put("/v1/stream/s").json("")).await.expect(201);
    let mut watcher = one.connect().await;
    let _live = watcher.begin(get("/v1/stream/s?offset=now&live=sse")).await.unwrap();
    let tail = one.send(get("/v1/stream/s?offset=now")).await.expect(200).next_offset();
    one.send(held_poll(&tail, 1)).await.expect(204);
    // The news of this append move the tail that is known.
    other.send(post("/v1/stream/s").json("1")).await.expect(204);
    let answer = one.send(held_poll(&tail, 50)).await.expect(200);
    assert_eq!(answer.json(), json!([1]));
    let (before, tail) = (tail, answer.next_offset());

    engine.signal(Signal::STOP);
    one.send(held_poll(&tail, 1)).await.expect(204);
    // The message before is known, too.
    assert_eq!(one.send(held_poll(&before, 50)).await.expect(200).json(), json!([1]));
    engine.signal(Signal::CONT);

    let mut connection = one.connect().await;
    let poll = connection.send(held_poll(&tail, 50));
    let append = async {
        until("the poll is held", async || one.metric("pollgate_held_polls").await > 0.0).await;
        other.send(post("/v1/stream/s").json("2")).await.expect(204);
    };
    let (answer, ()) = tokio::join!(poll, append);
    assert_eq!(answer.expect(200).json(), json!([2]));
}

/// How often a gateway has called the engine to read.
async fn reads(gateway: &Gateway) -> f64 {
    gateway.metric("pollgate_engine_calls_total{kind=\"read\"}").await
}

#[tokio::test]
async fn polls_that_an_append_wakes_are_answered_from_the_news() {
    const POLLS: usize = 100;
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    let mut tail = one.send(put("/v1/stream/s").json("")).await.expect(201).next_offset();
    let large = json!("x".repeat(17_000));
    // The first poll reads the tail.
    for (publisher, message, few_reads) in [
        (&other, json!(1), 0..POLLS),
        (&other, json!(2), 0..1),
        (&one, json!(3), 0..1),
        (&other, json!("\u{0}\r\n\"ü\n"), 0..1),
        (&other, large, 1..POLLS),
        (&other, json!(4), 0..1),
    ] {
        let poll = async || {
            let answer = one.connect().await.send(held_poll(&tail, 50)).await.expect(200);
            (answer.json(), answer.next_offset())
        };
        let polls = join_all((0..POLLS).map(|_| poll()));
        let append = async {
            until("all are held", async || one.metric("pollgate_held_polls").await == POLLS as f64).await;
            let before = reads(&one).await;
            publisher.send(post("/v1/stream/s").json(message.to_string())).await.expect(204);
            before
        };
        let (answers, before) = tokio::join!(polls, append);
        assert!(answers.iter().all(|(answer, _)| *answer == json!([message])), "{message}: {answers:?}");
        let reads = reads(&one).await - before;
        assert!(few_reads.contains(&(reads as usize)), "{message}: {reads}");
        tail = answers.into_iter().next().unwrap().1;
    }
}

#[tokio::test]
async fn a_message_that_retention_has_removed_is_not_read_from_the_news() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    let create = put("/v1/stream/s").header("stream-max-messages", "2").json("");
    let mut tail = one.send(create).await.expect(201).next_offset();
    let mut watcher = one.connect().await;
    let _live = watcher.begin(get("/v1/stream/s?offset=now&live=sse")).await.unwrap();
    for publisher in [&other, &one] {
        let news = async || one.metric("pollgate_engine_news_total").await;
        let before = news().await;
        publisher.send(post("/v1/stream/s").json("[1,2]")).await.expect(204);
        let answer = publisher.send(post("/v1/stream/s").json("[3,4]")).await.expect(204);
        until("the news have come", async || news().await >= before + 2.0).await;
        let gap = one.send(held_poll(&tail, 50)).await.expect(410);
        assert!(gap.header("stream-gap").contains("reason=trimmed"));
        tail = answer.next_offset();
    }
}

#[tokio::test]
async fn a_client_that_polls_another_gateway_each_time_misses_nothing_while_the_news_are_cut() {
    const MESSAGES: u64 = 300;
    let engine = Engine::volatile().await;
    let gateways = [engine.gateway("one").await, engine.gateway("other").await];
    gateways[0].send(put("/v1/stream/s").json("")).await.expect(201);
    let append = async {
        for number in 0..MESSAGES {
            gateways[number as usize % 2]
                .send(post("/v1/stream/s").json(number.to_string()))
                .await
                .expect(204);
            if number % 30 == 7 {
                engine.command("CLIENT KILL TYPE pubsub");
            }
        }
    };
    let read = async {
        let (mut offset, mut read, mut polls) = ("-1".to_owned(), Vec::new(), 0_usize);
        while (read.len() as u64) < MESSAGES {
            let answer = gateways[polls % 2].send(held_poll(&offset, 50)).await.expect(200);
            polls += 1;
            offset = answer.next_offset();
            read.extend(answer.json().as_array().unwrap().iter().map(|number| number.as_u64().unwrap()));
        }
        read
    };
    let ((), read) = tokio::join!(append, read);
    assert_eq!(read, (0..MESSAGES).collect::<Vec<_>>());
}
