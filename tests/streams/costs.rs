//! Costs of many streams in one request: memory of a held poll, and CPU time of a poll that finds nothing. The figures are
//! printed (`cargo test --release --test streams costs -- --nocapture`); the bounds are those in `limits.rs`, and hold in any
//! build.

use super::ask::Ask;
use crate::world::{Gateway, alone, put};

const STREAMS: usize = 1000;
const POLLS: usize = 10;
const SHORT_POLLS: u32 = 200;
/// Bytes of one held poll per stream: for a stream with no other waiter, and for a stream with other waiters.
const FIRST_BYTES_MAX: u64 = 1000;
const FURTHER_BYTES_MAX: u64 = 400;

async fn create(gateway: &Gateway, prefix: &str) -> Vec<String> {
    let names: Vec<_> = (0..STREAMS).map(|n| format!("{prefix}/{n}")).collect();
    let mut connection = gateway.connect().await;
    for name in &names {
        connection.send(put(format!("/v1/stream/{name}")).json("")).await.expect(201);
    }
    names
}

/// Holds a poll for each set, and returns the bytes per stream.
async fn held_bytes(gateway: &Gateway, sets: &[Vec<String>]) -> u64 {
    let mut asks = Vec::new();
    for names in sets {
        let ask = Ask::of(names);
        let resume = ask.poll(&mut gateway.connect().await).await.resume.unwrap();
        asks.push(ask.behind(&resume).long_poll());
    }
    let before = gateway.memory_bytes();
    let mut held = Vec::new();
    for ask in asks {
        let mut connection = gateway.connect().await;
        held.push(tokio::spawn(async move { connection.send(ask.request()).await }));
    }
    let all = (sets.len() * STREAMS) as f64;
    let subscribed = async || gateway.metric("pollgate_subscriptions").await == all;
    crate::world::until("all are held", subscribed).await;
    let bytes = gateway.memory_bytes().saturating_sub(before);
    held.iter().for_each(|poll| poll.abort());
    crate::world::until("none is left", async || gateway.metric("pollgate_subscriptions").await == 0.0).await;
    bytes / (sets.len() * STREAMS) as u64
}

#[tokio::test]
async fn a_held_poll_costs_a_few_hundred_bytes_a_stream() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let mut own = Vec::new();
    for poll in 0..POLLS {
        own.push(create(&gateway, &format!("own/{poll}")).await);
    }
    let first = held_bytes(&gateway, &own).await;
    // Another gateway, since this one has free memory now.
    let gateway = Gateway::start(&[]).await;
    let shared = vec![create(&gateway, "shared").await; POLLS];
    let average = held_bytes(&gateway, &shared).await;
    let further = (average * POLLS as u64).saturating_sub(first) / (POLLS as u64 - 1);
    println!("a held poll of {STREAMS} streams: {first} bytes a stream of its own, {further} a shared one");
    assert!(first <= FIRST_BYTES_MAX && further <= FURTHER_BYTES_MAX, "{first} {further}");
}

#[tokio::test]
async fn a_short_poll_over_a_thousand_idle_streams() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let names = create(&gateway, "idle").await;
    let mut connection = gateway.connect().await;
    let ask = Ask::of(&names);
    let resume = ask.poll(&mut connection).await.resume.unwrap();
    let request = ask.behind(&resume).request();
    let before = gateway.processor_time();
    for _ in 0..SHORT_POLLS {
        connection.send(request.clone()).await.expect(200);
    }
    let each = (gateway.processor_time() - before) / SHORT_POLLS;
    println!(
        "a short poll over {STREAMS} idle streams: {each:.1?} of the processor, resume {} bytes",
        resume.len()
    );
    assert!(!each.is_zero());
}
