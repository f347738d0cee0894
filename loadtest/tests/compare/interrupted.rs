//! Ctrl-C ends the child processes and reports the measurements until then.

use std::time::Duration;

use loadtest::cost::Family;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use crate::forms::PATIENT;
use crate::world::{Loadtest, beside_others};

/// Hang detector.
const PATIENCE: Duration = Duration::from_secs(60);

fn signal(name: &str, id: u32) {
    assert!(std::process::Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

/// Waits until the command has `at_least` children that have all executed their own program, and returns them. A child that is
/// stopped before that would also stop its parent, which waits for it.
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
        // A zombie has no more threads, files or memory.
        !state.is_empty() && !state.contains(") Z ")
    };
    while children.iter().any(runs) {
        assert!(since.elapsed() < PATIENCE, "{children:?} are still there");
        sleep(Duration::from_millis(10)).await;
    }
}

const LOAD: [&str; 8] = ["--clients", "30", "--rate", "2", "--warm-up", "0.5", "--seconds", "600"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_signal_reports_what_was_measured() {
    let _turn = beside_others().await;
    for split in [&[][..], &["--clients-a-process", "16"]] {
        let command = Loadtest::new(
            &[&LOAD[..], &PATIENT, &["--strategy", "sse", "--strategy", "ndjson"], split].concat(),
        );
        let child = command.spawn();
        let children = children(&child, if split.is_empty() { 1 } else { 3 }).await;
        // The measured time is not visible from outside; this is well within it.
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
async fn the_second_signal_ends_the_command_at_once() {
    let _turn = beside_others().await;
    let command =
        Loadtest::new(&[&LOAD[..], &PATIENT, &["--strategy", "sse", "--clients-a-process", "16"]].concat());
    let mut child = command.spawn();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let (id, children) = (child.id().unwrap(), children(&child, 3).await);
    // Stopped generators do not react to the first signal.
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
