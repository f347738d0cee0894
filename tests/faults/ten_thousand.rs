//! Ten thousand polls held at the same time: answered by one append, and abandoned all at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::measure::{clients_that_hold, json_stream, lowest_memory, mib, until_empty};
use crate::world::{Gateway, Raw, Took, alone, post, until};

const CROWD: usize = 10_000;
const STREAM: &str = "/v1/stream/crowd";
/// Allowed rest of a crowd: 100 bytes per poll, which is less than the size of a leaked waiter. Free pages of an
/// unused arena are returned late.
const LEFT_BYTES_MAX: u64 = 100 * CROWD as u64;

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
        let answer = poll.whole_answer().await.expect("an answer");
        let answer = answer.expect(200);
        assert_eq!(&answer.body[..], &br#"[{"n":1}]"#[..]);
        tail = answer.next_offset();
    }
    let answered = since.elapsed();
    until_empty(&gateway).await;

    // What grows once has grown after a crowd that was answered and one that was abandoned: tables, the caches of the allocator's
    // threads, and pages of which an entry is still in use. Another crowd must leave nothing.
    until_closed(&gateway).await;
    let answered_left = lowest_memory(&gateway).await;
    abandon(&gateway, &tail).await;
    let before = lowest_memory(&gateway).await;
    let emptied = abandon(&gateway, &tail).await;
    let since = Instant::now();
    until("memory is back", async || gateway.memory_bytes() <= before + LEFT_BYTES_MAX).await;

    println!(
        "10 000 held polls: answered by one append in {answered:.0?}; abandoned, the table empty after {emptied:?}; \
         PSS MiB: fresh {:.1}, held {:.1} ({} bytes a poll), answered {:.1}, abandoned {:.1}, back there {:.1?} after \
         another crowd: {:.1}",
        mib(fresh),
        mib(held),
        (held - fresh) / CROWD as u64,
        mib(answered_left),
        mib(before),
        since.elapsed(),
        mib(gateway.memory_bytes()),
    );
    assert!(emptied.is_below(Duration::from_secs(1)), "the table was empty only after {emptied:?}");
}

async fn hold(gateway: &Gateway, offset: &str) -> Vec<Raw> {
    let target = format!("{STREAM}?live=long-poll&timeout=55&offset={offset}");
    let mut crowd = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        let mut poll = Raw::open(gateway.address).await;
        poll.get(&target).await.expect("it takes the request");
        crowd.push(poll);
    }
    gateway.until_held(CROWD).await;
    crowd
}

/// Holds a crowd of polls, and drops all their connections at once. Returns how long the gateway took to notice.
async fn abandon(gateway: &Gateway, offset: &str) -> Took {
    let crowd = hold(gateway, offset).await;
    assert_eq!(clients_that_hold(gateway).await, CROWD);
    drop(crowd);
    let emptied = until_empty(gateway).await;
    assert_eq!(clients_that_hold(gateway).await, 0);
    until_closed(gateway).await;
    emptied
}

/// Waits until only the admin listener's own connection is open.
async fn until_closed(gateway: &Gateway) {
    until("all connections closed", async || gateway.metric("pollgate_connections").await as usize <= 1)
        .await;
}
