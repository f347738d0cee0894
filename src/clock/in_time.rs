//! For unit tests: a wait without end is a failure with a name, and not a hang.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

/// Far more than any unit test takes of real time.
const REAL_MAX: Duration = Duration::from_secs(60);

/// From then until the process is ended because the test does not even let its runtime go on.
const STUCK_MAX: Duration = Duration::from_secs(5);

/// Far more than any unit test lets pass on a paused clock, which goes there at once when nothing else can happen.
const PAUSED_MAX: Duration = Duration::from_secs(2 * 24 * 3600);

/// Runs `work`, and panics with `what` if it does not come to an end, whether or not the clock is paused.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let (over, watched) = channel::<()>();
    let (late, is_late) = oneshot::channel::<()>();
    let name = what.to_owned();
    std::thread::spawn(move || {
        if watched.recv_timeout(REAL_MAX) == Err(RecvTimeoutError::Timeout) {
            let _ended_since = late.send(());
            if watched.recv_timeout(STUCK_MAX) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name}: no end within {REAL_MAX:?}, and its runtime is stuck");
                std::process::abort();
            }
        }
    });
    let done = tokio::select! {
        biased;
        done = work => done,
        () = sleep(PAUSED_MAX) => panic!("{what}: nothing is left that could end it"),
        Ok(()) = is_late => panic!("{what}: no end within {REAL_MAX:?}"),
    };
    drop(over);
    done
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a wait for nobody: nothing is left that could end it")]
async fn a_wait_without_end_has_a_name() {
    in_time("a wait for nobody", std::future::pending::<()>()).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a timer that never fires for good: nothing is left that could end it")]
async fn so_has_one_that_wakes_up_again_and_again() {
    let forever = async {
        loop {
            sleep(Duration::from_secs(3600)).await;
        }
    };
    in_time("a timer that never fires for good", forever).await
}

#[tokio::test(start_paused = true)]
async fn what_ends_is_not_disturbed() {
    in_time("a day", sleep(Duration::from_secs(24 * 3600))).await;
}
