//! Ten thousand polls held at once: answered by one append, and abandoned all at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::measure::{alone, clients_that_hold, json_stream, mib, until_empty};
use crate::raw::Raw;
use crate::world::{Gateway, post};

const CROWD: usize = 10_000;
/// Crowds that leave before memory is compared.
const WARM_UPS: usize = 3;
const STREAM: &str = "/v1/stream/crowd";

#[tokio::test]
async fn ten_thousand_held_polls_are_answered_by_one_append_and_leave_nothing_when_abandoned() {
    let _turn = alone().await;
    let gateway = Gateway::start(&["--limit", "connections_per_second_max=100000"]).await;
    let start = json_stream(&gateway, STREAM).await;
    let fresh = gateway.memory_bytes();

    let crowd = hold(&gateway, &start).await;
    let held = gateway.memory_bytes();
    let since = Instant::now();
    gateway.send(post(STREAM).json(r#"{"n":1}"#)).await.expect(204);
    let mut tail = String::new();
    for mut poll in crowd {
        let answer = poll.answer().await.expect("an answer");
        assert_eq!((answer.status(), &answer.body[..]), (200, &br#"[{"n":1}]"#[..]));
        answer.cursor().clone_into(&mut tail);
    }
    let answered = since.elapsed();
    until_empty(&gateway).await;

    // glibc's allocator gives nothing back and grows with each crowd, by less each time, until the holes that one
    // leaves fit the next. From then on a crowd must leave no more than it found.
    let mut kept = vec![mib(gateway.memory_bytes())];
    for _ in 0..WARM_UPS {
        drop(hold(&gateway, &tail).await);
        until_empty(&gateway).await;
        until_closed(&gateway).await;
        kept.push(mib(gateway.memory_bytes()));
    }
    let before = gateway.memory_bytes();
    let crowd = hold(&gateway, &tail).await;
    assert_eq!(clients_that_hold(&gateway).await, CROWD);
    drop(crowd);
    let emptied = until_empty(&gateway).await;
    assert_eq!(clients_that_hold(&gateway).await, 0);
    until_closed(&gateway).await;
    let after = gateway.memory_bytes();

    println!(
        "10 000 held polls: answered by one append in {answered:.0?}; abandoned, the table empty after \
         {emptied:.0?}; PSS MiB: fresh {:.1}, held {:.1} ({} bytes a poll), kept after each \
         crowd {kept:.0?}, before the last one {:.1}, after it {:.1}",
        mib(fresh),
        mib(held),
        (held - fresh) / CROWD as u64,
        mib(before),
        mib(after),
    );
    assert!(emptied < Duration::from_secs(1), "the table was empty only after {emptied:?}");
    assert!(after as f64 <= before as f64 * 1.1, "memory grew from {before} to {after} bytes");
}

async fn hold(gateway: &Gateway, offset: &str) -> Vec<Raw> {
    let target = format!("{STREAM}?live=long-poll&timeout=55&offset={offset}");
    let mut crowd = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        let mut poll = Raw::open(gateway.address).await.expect("the gateway accepts");
        poll.get(&target).await.expect("it takes the request");
        crowd.push(poll);
    }
    gateway.until_held(CROWD).await;
    crowd
}

/// Waits until the admin listener's own connection is the only one.
async fn until_closed(gateway: &Gateway) {
    crate::world::until("all connections closed", async || {
        gateway.metric("pollgate_connections").await as usize <= 1
    })
    .await;
}
