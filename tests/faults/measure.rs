//! Measurements that several scenarios share.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::world::{Gateway, PATIENCE, Stopwatch, Took, get};

/// The state of waiting clients in the gateway, which must be empty in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) watched_streams: usize,
    pub(crate) waiters: usize,
    pub(crate) held_polls: usize,
}

impl Table {
    pub(crate) const EMPTY: Self = Self { watched_streams: 0, waiters: 0, held_polls: 0 };

    async fn of(gateway: &Gateway) -> Self {
        let text = gateway.ask_admin("/metrics").await.text();
        let value = |name: &str| {
            let value =
                text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
            value.unwrap_or_else(|| panic!("{name} is a metric"))
        };
        Self {
            watched_streams: value("pollgate_watched_streams"),
            waiters: value("pollgate_waiters"),
            held_polls: value("pollgate_held_polls"),
        }
    }
}

/// Waits until no client waits in the gateway any more, and returns how long that took.
pub(crate) async fn until_empty(gateway: &Gateway) -> Took {
    let (since, deadline) = (Stopwatch::start(), Instant::now() + PATIENCE);
    let waited = gateway.longest_wait_for_a_processor();
    loop {
        let table = Table::of(gateway).await;
        if table == Table::EMPTY {
            return since.took().less(gateway.longest_wait_for_a_processor().saturating_sub(waited));
        }
        assert!(Instant::now() < deadline, "still waiting: {table:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the number of clients with a held poll, as the admin listener lists them.
pub(crate) async fn clients_that_hold(gateway: &Gateway) -> usize {
    let clients = gateway.ask_admin("/clients").await.expect(200).json();
    clients
        .as_array()
        .expect("a list")
        .iter()
        .filter(|client| client["held"] != serde_json::json!([]))
        .count()
}

/// Creates an empty JSON stream and returns its tail.
pub(crate) async fn json_stream(gateway: &Gateway, target: &str) -> String {
    gateway.send(crate::world::put(target).json("")).await.expect(201);
    gateway.send(get(target)).await.expect(200).next_offset()
}

/// Returns its least memory within three seconds: the allocator returns what has been freed after one.
pub(crate) async fn lowest_memory(gateway: &Gateway) -> u64 {
    let (end, mut lowest) = (Instant::now() + Duration::from_secs(3), gateway.memory_bytes());
    while Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
        lowest = lowest.min(gateway.memory_bytes());
    }
    lowest
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
