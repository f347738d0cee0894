//! A gateway that ends without warning, again and again, with publishers and readers connected.

use std::time::Duration;

use tokio::time::sleep;

use crate::crew::{Crew, Size, Stream};
use crate::cycles;
use crate::home::Home;
use crate::landmark;
use crate::readers::{Follower, expect_all};
use crate::world::{Gateway, PATIENCE, Stopwatch, Took, until};

pub(crate) const PUBLISHERS: usize = 8;

/// Small messages; one in 50 is larger than a page.
pub(crate) const SIZE: Size = |counter| if counter % 50 == 7 { 8 * 1024 } else { 100 };

/// A start is killed after this range of milliseconds.
const START: std::ops::RangeInclusive<u64> = 1..=100;

/// Time limit until a restarted gateway is ready.
const READY: Duration = Duration::from_secs(2);

/// An outage happens after this range of milliseconds.
const MOMENTS: std::ops::RangeInclusive<u64> = 0..=300;

/// Puts a gateway through outages, each of which must end its process. Publishers and readers notice only that they have to
/// reconnect. No acknowledged message, creation or close is lost, doubled, reordered or altered.
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
        crew.each_goes_on().await;
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

/// Starts a gateway and kills it at a random moment of its start.
async fn start_in_vain(arguments: &[&str]) {
    let seconds = format!("0.{:03}", fastrand::u64(START));
    // In the foreground: otherwise timeout kills itself too, and does not wait until the gateway has ended.
    let timeout = ["timeout", "--foreground", "--signal=KILL", &seconds].map(str::to_owned);
    if let Ok(mut too_soon) = Gateway::start_under(&timeout, arguments).await {
        too_soon.ended(PATIENCE).await;
    }
}

/// Returns a random time until the next outage.
pub(crate) fn moment() -> Duration {
    Duration::from_millis(fastrand::u64(MOMENTS))
}
