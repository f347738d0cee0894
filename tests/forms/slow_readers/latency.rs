//! The latency of fast readers in alternating rounds, with slow readers and without.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{READERS, Slow, ask, until_all_are_full};
use crate::world::{Form, Gateway, Kind, PATIENCE, Publisher, Raw, alone};

/// The full load is 20 MB a second of fan-out. Without optimization that would keep both cores of a small machine
/// busy, and the test would measure the wait for a core.
const MESSAGE_BYTES: usize = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
const A_SECOND: usize = 20;
const MESSAGES: usize = 30;
const ROUNDS: usize = 7;

/// So many rounds are compared if other load on the machine leaves no quiet one among the first.
const ROUNDS_MAX: usize = 3 * ROUNDS;

/// Slow readers may add a fifth.
const RATIO_MAX: f64 = 1.2;

/// Larger than all buffers of a slow reader.
const FILLING_BYTES: usize = 400_000;

const SENT_AT: &[u8] = b"sent at ";
const DIGITS: usize = 12;

/// A message that contains how many microseconds after `since` it was sent.
fn message(since: Instant) -> Vec<u8> {
    let mut message = SENT_AT.to_vec();
    message.extend(format!("{:0DIGITS$}", since.elapsed().as_micros()).bytes());
    message.resize(MESSAGE_BYTES, b'.');
    message
}

/// Latency of each message in microseconds. No form encodes these bytes differently, so they can be searched in any.
async fn latencies(mut raw: Raw, since: Instant) -> Vec<u64> {
    let (mut buffer, mut left, mut latencies) =
        (vec![0; 64 * 1024], Vec::new(), Vec::with_capacity(MESSAGES));
    while latencies.len() < MESSAGES {
        let count = timeout(PATIENCE, raw.read(&mut buffer)).await.expect("a message in time").unwrap();
        assert!(count > 0, "the gateway cut a fast reader");
        let now = since.elapsed().as_micros() as u64;
        left.extend_from_slice(&buffer[..count]);
        let mut done = 0;
        for at in memchr::memmem::find_iter(&left, SENT_AT) {
            let Some(digits) = left.get(at + SENT_AT.len()..at + SENT_AT.len() + DIGITS) else { break };
            latencies.push(now - std::str::from_utf8(digits).unwrap().parse::<u64>().unwrap());
            done = at + SENT_AT.len() + DIGITS;
        }
        left.drain(..done.max(left.len().saturating_sub(SENT_AT.len() + DIGITS)));
    }
    latencies
}

/// The 99th percentile of a round.
async fn round(gateway: &Gateway, name: &str, slow: usize) -> u64 {
    let mut publisher = Publisher::create(gateway, name, Kind::Text).await;
    let mut slow_readers = Vec::new();
    for index in 0..slow {
        let form = Form::LIVE[index % Form::LIVE.len()];
        slow_readers.push(Slow::start(gateway, &publisher, form, "-1").await);
    }
    for _ in 0..FILLING_BYTES / 10_000 {
        publisher.append(vec![b'.'; 10_000]).await;
    }
    until_all_are_full(gateway).await;
    let since = Instant::now();
    let mut fast = JoinSet::new();
    for index in 0..READERS {
        let form = Form::LIVE[index % Form::LIVE.len()];
        let raw = ask(Raw::open(gateway.address).await, &publisher, form, "now").await;
        fast.spawn(latencies(raw, since));
    }
    gateway.until_waiting(READERS).await;
    let mut ticks = interval(Duration::from_secs(1) / A_SECOND as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..MESSAGES {
        ticks.tick().await;
        publisher.append(message(since)).await;
    }
    let mut all: Vec<u64> = fast.join_all().await.concat();
    slow_readers.into_iter().for_each(Slow::was_served);
    gateway.until_waiting(0).await;
    publisher.delete().await;
    all.sort_unstable();
    assert_eq!(all.len(), READERS * MESSAGES);
    all[all.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_readers_do_not_notice_slow_ones() {
    let _alone = alone().await;
    let gateway = Gateway::start(&[]).await;
    round(&gateway, "warm-up", READERS).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // Other load on the machine adds to some rounds, whereas a delay by slow readers is in every round.
    let best = |rounds: &[u64]| rounds.iter().copied().min().unwrap_or(u64::MAX) as f64;
    for n in 0..ROUNDS_MAX {
        without.push(round(&gateway, &format!("without-{n}"), 0).await);
        with.push(round(&gateway, &format!("with-{n}"), READERS).await);
        if n + 1 >= ROUNDS && best(&with) <= RATIO_MAX * best(&without) {
            break;
        }
    }
    let load = (READERS * A_SECOND * MESSAGE_BYTES) as f64 / 1e6;
    println!("p99 at {load} MB/s: without slow readers {without:?} us, with {READERS} {with:?} us");
    let (without, with) = (best(&without), best(&with));
    println!("best rounds {without} us and {with} us: {:.2} times", with / without);
    assert!(with <= RATIO_MAX * without, "{with} us instead of {without} us");
}
