//! Polls whose clients leave: with a FIN, with a reset, many a second and for long.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::measure::{json_stream, mib, until_empty};
use crate::world::{Gateway, Raw, alone};

const STREAM: &str = "/v1/stream/left";
const POLLS_A_SECOND: u32 = 40;
const SECONDS: u32 = 8;

#[tokio::test]
async fn a_poll_whose_client_leaves_by_fin_or_by_reset_is_gone_within_a_second() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let target = target(&gateway).await;
    for by_reset in [false, true] {
        let poll = ask(&gateway, &target).await;
        gateway.until_held(1).await;
        leave(poll, by_reset);
        let gone = until_empty(&gateway).await;
        println!("a poll abandoned by {}: gone after {gone:?}", if by_reset { "RST" } else { "FIN" });
        assert!(gone.is_below(Duration::from_secs(1)), "{gone:?}");
    }
}

#[tokio::test]
async fn forty_abandoned_polls_a_second_leave_no_waiter_and_no_memory() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let target = target(&gateway).await;
    abandon_for(&gateway, &target, SECONDS / 2).await;
    until_empty(&gateway).await;
    let before = gateway.memory_bytes();
    let most_held = abandon_for(&gateway, &target, SECONDS).await;
    let gone = until_empty(&gateway).await;
    let after = gateway.memory_bytes();
    println!(
        "{POLLS_A_SECOND} abandoned polls a second for {SECONDS} s: at most {most_held} held at a time, the \
         table empty after {gone:?}, PSS MiB {:.2} before and {:.2} after",
        mib(before),
        mib(after)
    );
    assert!(gone.is_below(Duration::from_secs(1)), "{gone:?}");
    assert!(most_held < 2 * POLLS_A_SECOND as usize, "{most_held} abandoned polls were held at once");
    assert!(after as f64 <= before as f64 * 1.1, "memory grew from {before} to {after} bytes");
}

/// Opens polls at the rate and leaves each one when the next has come, by turns in either way. Each second looks
/// how many are held; the most of these.
async fn abandon_for(gateway: &Gateway, target: &str, seconds: u32) -> usize {
    let mut pace = interval(Duration::from_secs(1) / POLLS_A_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut most_held = 0;
    let mut last = None;
    for round in 0..POLLS_A_SECOND * seconds {
        pace.tick().await;
        if let Some(poll) = last.replace(ask(gateway, target).await) {
            leave(poll, round % 2 == 0);
        }
        if round % POLLS_A_SECOND == 0 {
            most_held = most_held.max(gateway.metric("pollgate_held_polls").await as usize);
        }
    }
    most_held
}

async fn target(gateway: &Gateway) -> String {
    let tail = json_stream(gateway, STREAM).await;
    format!("{STREAM}?live=long-poll&timeout=55&offset={tail}")
}

async fn ask(gateway: &Gateway, target: &str) -> Raw {
    let mut poll = Raw::open(gateway.address).await;
    poll.get(target).await.expect("it takes the request");
    poll
}

fn leave(poll: Raw, by_reset: bool) {
    if by_reset {
        poll.reset();
    }
}
