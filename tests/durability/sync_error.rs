//! A sync fails once. Its data may be lost, and no later sync reports this again: a gateway that continued would acknowledge
//! messages that are not on the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::crew::{Crew, Stream};
use crate::home::Home;
use crate::ledger::Ledger;
use crate::readers::expect_all;
use crate::stored;
use crate::world::{Gateway, PATIENCE, alone, until};

const SIZE: usize = 100;

/// strace's mark of a call that it made fail.
const INJECTED: &str = "(INJECTED)";

/// Time after the first refusal within which the last message is acknowledged.
const NOTICED: Duration = Duration::from_secs(1);

/// For this time after it, no message may be acknowledged.
const WATCHED: Duration = Duration::from_millis(300);

/// A call counts as unreached after this number of acknowledged messages.
const UNREACHED: u64 = 1000;

/// The call that fails, its error, and when: the number of the call in each thread, or a range of numbers.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    pub(crate) error: &'static str,
    pub(crate) when: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The gateway did not start.
    NoStart,
    /// It refused further appends; the number of acknowledged messages.
    Refused(u64),
    /// It ended; the number of acknowledged messages.
    Ended(u64),
    /// It does not make the call that often.
    Unreached,
}

/// The output file of strace.
pub(crate) struct Trace(pub(crate) PathBuf);

/// With one publisher it is certain which append belongs to the failed sync of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_sync_failed_is_not_acknowledged() {
    let _turn = alone().await;
    strike_each(1, &["fdatasync"], &[1, 2, 3, 10]).await;
}

/// A failed fsync concerns a file or folder that the log needs later; until then the log's content is safe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let _turn = alone().await;
    strike_each(8, &["fdatasync", "fsync"], &[1, 2, 40]).await;
}

async fn strike_each(publishers: usize, calls: &[&'static str], moments: &[u32]) {
    let mut reached = 0;
    for &call in calls {
        for when in moments {
            let fault = Fault { call, error: "EIO", when: when.to_string() };
            let outcome = strike(publishers, &fault).await;
            println!("{publishers} publishers, {call} number {when} fails: {outcome:?}");
            reached += usize::from(outcome != Outcome::Unreached);
        }
    }
    assert!(reached >= moments.len(), "the store makes none of the calls that the test lets fail");
}

/// Runs publishers on a gateway with a fault. Acknowledged messages must be there after a restart.
async fn strike(publishers: usize, fault: &Fault) -> Outcome {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a new folder");
    let store = folder.path().join("store");
    let arguments = stored(&store, "always");
    let streams = Stream::of(publishers);
    let gateway = Gateway::start(&arguments).await;
    for stream in &streams {
        stream.create(&gateway).await;
    }
    gateway.kill().await;

    let trace = Trace(folder.path().join("trace"));
    let (outcome, ledger) = match Gateway::start_under(&trace.strace(fault), &arguments).await {
        Ok(gateway) => work(gateway, publishers, &trace).await,
        Err(status) => {
            assert!(!status.success() && trace.has_failed(), "{fault:?}: {status}");
            (Outcome::NoStart, Arc::default())
        }
    };
    if publishers == 1 {
        assert_eq!(trace.acknowledgement_after_failure(), None, "{fault:?}");
    }
    let gateway = Gateway::start(&arguments).await;
    expect_all(&gateway, &streams, &ledger).await;
    outcome
}

/// Publishes to a traced gateway until a sync has failed and the gateway's reaction is visible.
async fn work(mut gateway: Gateway, publishers: usize, trace: &Trace) -> (Outcome, Arc<Ledger>) {
    let home = Home::default();
    home.is(&gateway);
    let crew = Crew::start(&home, publishers, |_| SIZE);
    until("a sync fails", async || trace.has_failed() || crew.ledger.total() > UNREACHED).await;
    let outcome = if trace.has_failed() { notice(&mut gateway, &crew).await } else { Outcome::Unreached };
    let ledger = crew.stop().await;
    if !matches!(outcome, Outcome::Ended(_)) {
        gateway.kill().await;
    }
    (outcome, ledger)
}

/// The publishers still try all the time.
async fn notice(gateway: &mut Gateway, crew: &Crew) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !gateway.has_ended() && crew.ledger.refusals().is_empty() {
        assert!(Instant::now() < deadline, "it neither refuses appends nor ends");
        sleep(Duration::from_millis(5)).await;
    }
    sleep(NOTICED).await;
    let acknowledged = crew.ledger.total();
    crew.ledger.forget_refusals();
    sleep(WATCHED).await;
    assert_eq!(crew.ledger.total(), acknowledged, "messages were acknowledged after a sync had failed");
    let refusals = crew.ledger.refusals();
    if gateway.has_ended() {
        return Outcome::Ended(acknowledged);
    }
    assert!(!refusals.is_empty(), "it neither ends nor answers");
    assert!(refusals.iter().all(|one| matches!(one.status, 500 | 503)), "{:?}", refusals.first());
    gateway.ask_admin("/ready").await.expect(503);
    Outcome::Refused(acknowledged)
}

impl Trace {
    /// Returns the command line of a strace that becomes the gateway (`-D`), so that its process id is the gateway's.
    pub(crate) fn strace(&self, fault: &Fault) -> Vec<String> {
        let Fault { call, error, when } = fault;
        let trace = "trace=fdatasync,fsync,pwrite64,write,writev,sendto,sendmsg";
        let inject = format!("inject={call}:error={error}:when={when}");
        let path = self.0.to_str().expect("UTF-8");
        ["strace", "-D", "-f", "-qq", "-o", path, "-e", trace, "-e", &inject].map(str::to_owned).to_vec()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.0).unwrap_or_default()).into_owned()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.text().contains(INJECTED)
    }

    /// Returns the first successful response after the failure.
    fn acknowledgement_after_failure(&self) -> Option<String> {
        let text = self.text();
        let (_, behind) = text.split_once(INJECTED)?;
        behind.lines().find(|call| call.contains("\"HTTP/1.1 20")).map(str::to_owned)
    }
}
