//! Ctrl-C: the children go, and what was measured so far is reported.

use std::time::Duration;

use loadtest::cost::Family;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use crate::forms::PATIENT;
use crate::world::{Loadtest, alone};

/// What takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn signal(name: &str, id: u32) {
    assert!(std::process::Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

/// The children of the command once it has so many, and each has become a program of its own: one that is stopped before
/// that stops its parent too, which waits for it.
async fn children(child: &Child, at_least: usize) -> Vec<u32> {
    let since = Instant::now();
    let command = |id: &u32| std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    loop {
        let family = Family::of(child.id().unwrap()).members();
        let own = command(&family[0]);
        if family.len() > at_least && family[1..].iter().all(|id| command(id) != own) {
            return family[1..].to_vec();
        }
        assert!(since.elapsed() < PATIENCE, "no children");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn until_gone(children: &[u32]) {
    let since = Instant::now();
    let runs = |id: &u32| {
        let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // One that has ended and not been waited for has no more threads, files or memory.
        !state.is_empty() && !state.contains(") Z ")
    };
    while children.iter().any(runs) {
        assert!(since.elapsed() < PATIENCE, "{children:?} are still there");
        sleep(Duration::from_millis(10)).await;
    }
}

const LOAD: [&str; 10] =
    ["--clients", "30", "--rate", "2", "--warm-up", "0.5", "--seconds", "600", PATIENT[0], PATIENT[1]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_signal_reports_what_was_measured() {
    let _turn = alone().await;
    for split in [&[][..], &["--clients-a-process", "16"]] {
        let command =
            Loadtest::new(&[&LOAD[..], &["--strategy", "sse", "--strategy", "ndjson"], split].concat());
        let child = command.spawn();
        let children = children(&child, if split.is_empty() { 1 } else { 3 }).await;
        // There is no sign of the measured time from outside; this is well into it.
        sleep(Duration::from_secs(3)).await;
        signal("-INT", child.id().unwrap());
        let ended = command.ended(timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap());
        until_gone(&children).await;
        assert_eq!(ended.code, Some(0));
        let report = ended.report();
        assert_eq!(report.runs.len(), 1, "the second strategy never began");
        let run = &report.runs[0];
        assert!(run.interrupted && run.deliveries.delivered > 30 && run.deliveries.lost == 0, "{run:?}");
        assert!(report.notes.iter().any(|note| note.starts_with("interrupted")), "{:?}", report.notes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_signal_ends_at_once() {
    let _turn = alone().await;
    let command = Loadtest::new(&[&LOAD[..], &["--strategy", "sse", "--clients-a-process", "16"]].concat());
    let mut child = command.spawn();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let (id, children) = (child.id().unwrap(), children(&child, 3).await);
    // Generators that do nothing any more, so that the first signal cannot be enough.
    for child in &children {
        signal("-STOP", *child);
    }
    signal("-INT", id);
    while !errors.next_line().await.unwrap().expect("it goes on").starts_with("stopping") {}
    signal("-INT", id);
    let ended = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(!ended.success());
    until_gone(&children).await;
}
