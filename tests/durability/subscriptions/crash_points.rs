//! Kills between each pair of steps: strace kills the gateway when it is about to make a system call, before the call has an effect.
//!
//! A wake goes through these calls: its record is written and synced, then the worker is told over a socket, whose answer is read and
//! recorded again. So a kill at a sync is one after the record was written and before anyone is told, and a kill at a read of a socket
//! one after the worker was told and before its answer is recorded.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::Workers;
use crate::world::{Gateway, PATIENCE, until};
use crate::{cycles, stored};

/// The calls of the steps: a write to the log, its sync, and writes to and reads from sockets.
const CALLS: [&str; 4] = ["pwrite64", "fdatasync", "sendto", "recvfrom"];

/// A call that is not made within this time is not reached.
const UNREACHED: Duration = Duration::from_secs(2);

/// Attaches a strace that kills the gateway at the call number `when` that one of its threads makes.
async fn kill_at(gateway: &Gateway, call: &str, when: usize, output: &Path) -> Child {
    let (id, trace) = (gateway.id().to_string(), format!("trace={call}"));
    let inject = format!("inject={call}:signal=SIGKILL:when={when}");
    let tracer = Command::new("strace")
        .args(["-f", "-qq", "-p", &id, "-e", &trace, "-e", &inject, "-o"])
        .arg(output)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("strace starts");
    until("all threads are traced", async || {
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("the gateway runs");
        threads.flatten().all(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        })
    })
    .await;
    tracer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_between_two_steps_loses_a_wake_or_makes_a_second_holder() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a new folder");
    let (store, output) = (folder.path().join("store"), folder.path().join("trace"));
    let arguments = stored(&store, "always");
    let mut gateway = Gateway::start(&arguments).await;
    let mut workers = Workers::start(&gateway).await;
    let mut reached = BTreeMap::<&str, usize>::new();
    for cycle in 0..cycles() {
        let (call, when) = (CALLS[cycle % CALLS.len()], 1 + cycle / CALLS.len());
        let mut tracer = kill_at(&gateway, call, when, &output).await;
        let deadline = Instant::now() + UNREACHED;
        while !gateway.has_ended() && Instant::now() < deadline {
            let step = Instant::now() + Duration::from_millis(100);
            workers.steps_until(&gateway, step.min(deadline)).await;
        }
        if gateway.has_ended() {
            *reached.entry(call).or_default() += 1;
        } else {
            gateway.kill().await;
        }
        // It ends with the process that it traces.
        let ended = timeout(PATIENCE, tracer.wait()).await;
        ended.expect("strace ends").expect("strace has started");
        gateway = Gateway::start(&arguments).await;
    }
    println!("killed at: {reached:?} of {} cycles", cycles());
    let count: usize = reached.values().sum();
    assert!(2 * count >= cycles(), "the calls are not those that the gateway makes: {reached:?}");
    workers.finish(&[&gateway], &format!("{count} kills between two steps")).await;
}
