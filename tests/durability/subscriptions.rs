//! Subscriptions survive kills and power cuts at any moment: no wake is lost, and no subscription has two valid holders.

mod crash_points;
mod power_cut;

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::world::Gateway;
use crate::world::workers::Workers;
use crate::{cycles, stored};

/// Ends the gateway again and again, each time at another moment of its work.
async fn survive(what: &str, arguments: &[&str], outage: impl AsyncFn(Gateway)) {
    let mut gateway = Gateway::start(arguments).await;
    let mut workers = Workers::start(&gateway).await;
    for _ in 0..cycles() {
        let end = Instant::now() + Duration::from_micros(fastrand::u64(0..150_000));
        workers.steps_until(&gateway, end).await;
        outage(gateway).await;
        gateway = Gateway::start(arguments).await;
    }
    workers.finish(&[&gateway], &format!("{} x {what}", cycles())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_a_wake_or_makes_a_second_holder() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a new folder");
    survive("SIGKILL", &stored(folder.path(), "always"), Gateway::kill).await;
}
