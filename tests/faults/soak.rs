//! Polls that are held, answered, abandoned and superseded, again and again: no memory and no descriptor is left over.
//!
//! `SOAK_SECONDS=600 cargo test --release --test faults soak -- --nocapture` is the long form.

use std::time::Duration;

use tokio::time::Instant;

use crate::measure::{mib, until_empty};
use crate::world::{Gateway, Raw, alone, post, put, until};

const STREAM: &str = "/v1/stream/soak";
const CLIENTS: usize = 200;
const SECONDS: u64 = 6;

/// Number of messages kept, so that the log does not grow with the rounds.
const KEPT: &str = "100";

/// Allowed increase of memory: free pages of an unused arena.
const NOISE_BYTES: u64 = 1 << 20;

#[tokio::test]
async fn a_soak_of_held_polls_leaves_memory_flat_and_no_descriptor() {
    let _turn = alone().await;
    let gateway = Gateway::start(&["--limit", "connections_per_second_max=100000"]).await;
    gateway.send(put(STREAM).header("stream-max-messages", KEPT).json("")).await.expect(201);
    let seconds = std::env::var("SOAK_SECONDS").map_or(SECONDS, |text| text.parse().expect("a number"));
    let rounds = soak_for(&gateway, Duration::from_secs(seconds) / 3).await;
    let (memory, descriptors) = at_rest(&gateway).await;
    let further = soak_for(&gateway, Duration::from_secs(seconds) * 2 / 3).await;
    let (memory_after, descriptors_after) = at_rest(&gateway).await;
    println!(
        "{} polls held, then {}: PSS MiB {:.2} and {:.2}, descriptors {descriptors} and {descriptors_after}",
        rounds * CLIENTS,
        further * CLIENTS,
        mib(memory),
        mib(memory_after)
    );
    assert!(further > 0);
    assert_eq!(descriptors_after, descriptors);
    assert!(memory_after <= memory + memory / 10 + NOISE_BYTES, "from {memory} to {memory_after} bytes");
}

/// Returns memory and descriptors without any client.
async fn at_rest(gateway: &Gateway) -> (u64, usize) {
    until_empty(gateway).await;
    until("all connections closed", async || gateway.metric("pollgate_connections").await as usize <= 1)
        .await;
    let descriptors =
        std::fs::read_dir(format!("/proc/{}/fd", gateway.id())).expect("its descriptors").count();
    (gateway.memory_bytes(), descriptors)
}

/// Runs rounds for some time and returns their number.
async fn soak_for(gateway: &Gateway, time: Duration) -> usize {
    let since = Instant::now();
    let mut rounds = 0;
    while since.elapsed() < time {
        round(gateway).await;
        rounds += 1;
    }
    rounds
}

/// Holds a poll per client. Of four clients one is superseded by its own next poll, one disconnects with a FIN, one with a
/// reset, and the others are answered; half of these continue on the same connection.
async fn round(gateway: &Gateway) {
    let mut crowd = Vec::with_capacity(CLIENTS);
    for client in 0..CLIENTS {
        crowd.push(hold(gateway, client).await);
    }
    gateway.until_held(CLIENTS).await;
    let (mut stay, mut newer) = (Vec::new(), Vec::new());
    for (client, mut poll) in crowd.into_iter().enumerate() {
        match client % 4 {
            0 => {
                newer.push(hold(gateway, client).await);
                let older = poll.whole_answer().await.expect("open").expect(204);
                assert_eq!(older.header("stream-superseded"), "true");
            }
            1 => drop(poll),
            2 => poll.reset(),
            _ => stay.push(poll),
        }
    }
    stay.append(&mut newer);
    gateway.until_held(stay.len()).await;
    gateway.send(post(STREAM).json("1")).await.expect(204);
    for (index, mut poll) in stay.into_iter().enumerate() {
        assert_eq!(poll.whole_answer().await.expect("open").expect(200).text(), "[1]");
        if index % 2 == 0 {
            poll.get("/v1/stream/soak?offset=now&live=long-poll&timeout=0").await.expect("open");
            poll.whole_answer().await.expect("open").expect(204);
        }
    }
}

async fn hold(gateway: &Gateway, client: usize) -> Raw {
    let mut poll = gateway.connect_raw().await;
    let target = format!("{STREAM}?offset=now&live=long-poll&timeout=55&client=c{client}");
    poll.get(&target).await.expect("open");
    poll
}
