//! A timeout for unit tests, so that a test that would hang fails with the name of what it waited for.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

/// Real time after which a unit test fails; much more than any of them takes.
const REAL_MAX: Duration = Duration::from_secs(60);

/// Time after [`REAL_MAX`] until the process aborts, because the test blocks its runtime.
const STUCK_MAX: Duration = Duration::from_secs(5);

/// Paused time after which a unit test fails. A paused clock gets there at once when the test has nothing else to run.
const PAUSED_MAX: Duration = Duration::from_secs(2 * 24 * 3600);

/// Runs `work`, and panics with `what` if it does not finish, on a paused clock or a running one.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let (over, watched) = channel::<()>();
    let (late, is_late) = oneshot::channel::<()>();
    let name = what.to_owned();
    std::thread::spawn(move || {
        if watched.recv_timeout(REAL_MAX) == Err(RecvTimeoutError::Timeout) {
            let _ended_since = late.send(());
            if watched.recv_timeout(STUCK_MAX) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name}: not finished within {REAL_MAX:?}, and its runtime is stuck");
                std::process::abort();
            }
        }
    });
    let done = tokio::select! {
        biased;
        done = work => done,
        () = sleep(PAUSED_MAX) => panic!("{what}: no other timer or task could finish it"),
        Ok(()) = is_late => panic!("{what}: not finished within {REAL_MAX:?}"),
    };
    drop(over);
    done
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a wait for nobody: no other timer or task could finish it")]
async fn an_endless_wait_panics_with_its_name() {
    in_time("a wait for nobody", std::future::pending::<()>()).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a timer that never fires for good: no other timer or task could finish it")]
async fn an_endless_wait_that_keeps_waking_panics_too() {
    let forever = async {
        loop {
            sleep(Duration::from_secs(3600)).await;
        }
    };
    in_time("a timer that never fires for good", forever).await
}

#[tokio::test(start_paused = true)]
async fn work_that_finishes_is_not_disturbed() {
    in_time("a day", sleep(Duration::from_secs(24 * 3600))).await;
}
