//! A gateway that ends without a warning, again and again, under publishers and readers.

use std::time::Duration;

use tokio::time::sleep;

use crate::crew::{Crew, Size, Stream};
use crate::cycles;
use crate::home::Home;
use crate::landmark;
use crate::readers::{Follower, expect_all};
use crate::world::{Gateway, PATIENCE, Stopwatch, Took, until};

pub(crate) const PUBLISHERS: usize = 8;

/// Small messages, and now and then one that takes more than a page.
pub(crate) const SIZE: Size = |counter| if counter % 50 == 7 { 8 * 1024 } else { 100 };

/// A start is cut short within so many milliseconds.
const START: std::ops::RangeInclusive<u64> = 1..=100;

/// Within this time a gateway is ready again.
const READY: Duration = Duration::from_secs(2);

/// An outage comes at any moment of so many milliseconds.
const MOMENTS: std::ops::RangeInclusive<u64> = 0..=300;

/// Puts a gateway through outages, each of which has to leave it dead. Its publishers and readers only notice that they
/// have to connect again, and nothing that was acknowledged is lost, doubled, reordered or altered, nor is the creation
/// or the end of a stream.
pub(crate) async fn survive(what: &str, arguments: &[&str], outage: impl AsyncFn(Gateway)) {
    let home = Home::default();
    let mut gateway = Gateway::start(arguments).await;
    for stream in Stream::of(PUBLISHERS) {
        stream.create(&gateway).await;
    }
    home.is(&gateway);
    let mut crew = Crew::start(&home, PUBLISHERS, SIZE);
    let streams = crew.streams.clone();
    let followers: Vec<_> = streams.iter().map(|stream| Follower::start(&home, stream)).collect();
    let (mut slowest, mut reclaimed) = (Took::default(), 0.0);
    for cycle in 1..=cycles() {
        landmark::move_on(&gateway, cycle).await;
        sleep(moment()).await;
        reclaimed += gateway.metric("pollgate_store_reclaimed_bytes_total").await;
        home.is_nowhere();
        outage(gateway).await;
        start_in_vain(arguments).await;
        let since = Stopwatch::start();
        gateway = Gateway::start(arguments).await;
        until("it is ready", async || gateway.ask_admin("/ready").await.status == 200).await;
        slowest = slowest.max(since.took());
        landmark::expect(&gateway, cycle).await;
        home.is(&gateway);
        crew.more(PUBLISHERS as u64).await;
    }
    let ledger = crew.finish().await;
    println!(
        "{what} x {}: {} messages acknowledged, {:.0} MiB reclaimed, ready after {slowest:?} at most",
        cycles(),
        ledger.total(),
        reclaimed / f64::from(1 << 20),
    );
    for (log, follower) in expect_all(&gateway, &streams, &ledger).await.iter().zip(followers) {
        let followed = follower.until_it_has(log.messages.len()).await;
        assert!(followed == log.messages, "who followed a stream over the outages has read something else");
    }
    assert!(slowest.is_below(READY), "ready after {slowest:?}");
}

/// Begins to start a gateway, which is killed at a random moment of that.
async fn start_in_vain(arguments: &[&str]) {
    let seconds = format!("0.{:03}", fastrand::u64(START));
    // In the foreground: otherwise it kills itself too, and does not wait until the gateway has ended.
    let timeout = ["timeout", "--foreground", "--signal=KILL", &seconds].map(str::to_owned);
    if let Ok(mut too_soon) = Gateway::start_under(&timeout, arguments).await {
        too_soon.ended(PATIENCE).await;
    }
}

/// How long it takes until the next outage.
pub(crate) fn moment() -> Duration {
    Duration::from_millis(fastrand::u64(MOMENTS))
}
