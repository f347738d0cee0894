//! A sync fails once. What it should have brought to the disk may be gone, and no later sync will say so again: whoever
//! goes on as if nothing had been acknowledges what is not there.

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

/// How strace marks a call that it let fail.
const INJECTED: &str = "(INJECTED)";

/// Within this time after the first refusal, nothing is acknowledged any more.
const NOTICED: Duration = Duration::from_secs(1);

/// So long nothing may be acknowledged then.
const WATCHED: Duration = Duration::from_millis(300);

/// A store that has acknowledged so many messages does not make the call that often.
const UNREACHED: u64 = 1000;

/// The call that fails, how, and when: the so-many-th of each thread, or those of a range.
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
    /// It refused further appends, with that many messages acknowledged.
    Refused(u64),
    /// It ended.
    Ended(u64),
    /// It does not make that call so often.
    Unreached,
}

/// What strace writes.
pub(crate) struct Trace(pub(crate) PathBuf);

/// With one publisher it is certain which append a failed sync of the log belongs to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_sync_failed_is_not_acknowledged() {
    let _turn = alone().await;
    strike_each(1, &["fdatasync"], &[1, 2, 3, 10]).await;
}

/// An fsync is of a file or folder that the log will need; until it does, what is in the log is safe.
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

/// Lets a gateway fail in that way under so many publishers. What was acknowledged is there when it runs again.
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

/// Publishes to a gateway that is traced, until a sync has failed and it has shown what it makes of that.
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
    /// The command line of a strace that becomes the gateway (`-D`), so that its process id is the gateway's.
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

    /// The first answer behind the failure that says that all is well.
    fn acknowledgement_after_failure(&self) -> Option<String> {
        let text = self.text();
        let (_, behind) = text.split_once(INJECTED)?;
        behind.lines().find(|call| call.contains("\"HTTP/1.1 20")).map(str::to_owned)
    }
}
