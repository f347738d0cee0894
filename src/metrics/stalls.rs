//! Measures stalls: polls of a task that hold a worker thread of the runtime for long, while other tasks of
//! that thread wait.
//!
//! Each task of the server is wrapped in [`stall_timed`], which reads the clock twice per poll and costs
//! nothing while the gateway is idle. It measures wall time, so a thread that waits for a processor counts
//! too. Worker threads belong to the process, and so do these metrics.

use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::durations::Durations;

/// Polls shorter than this are normal and not recorded.
const COUNTED: Duration = Duration::from_millis(10);

/// Polls of at least this length are logged.
const LOGGED: Duration = Duration::from_millis(100);
/// Minimum time between two such log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

static STALLS: LazyLock<Stalls> = LazyLock::new(|| Stalls {
    seconds: Durations::from(COUNTED),
    longest: Gauge::default(),
    noted: Mutex::default(),
});

struct Stalls {
    /// Buckets from 10 ms to 10 s.
    seconds: Durations<12>,
    longest: Gauge<f64, AtomicU64>,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    longest: Duration,
    logged: Option<Instant>,
}

/// A future that measures its polls, and the name of its task for the log.
pub(crate) struct StallTimed<F, N> {
    future: F,
    name: N,
}

/// Wraps `future` so that each of its polls is timed. `name` returns what the task does; a closure without
/// captures takes no memory.
pub(crate) fn stall_timed<F, N>(name: N, future: F) -> StallTimed<F, N>
where
    F: Future + Unpin,
    N: Fn() -> &'static str,
{
    StallTimed { future, name }
}

impl<F: Future + Unpin, N: Fn() -> &'static str + Unpin> Future for StallTimed<F, N> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let since = Instant::now();
        let polled = Pin::new(&mut this.future).poll(context);
        let held = since.elapsed();
        if held >= COUNTED {
            STALLS.note(held, (this.name)());
        }
        polled
    }
}

impl Stalls {
    #[cold]
    fn note(&self, held: Duration, task: &'static str) {
        self.seconds.observe(held);
        let (now, mut noted) = (Instant::now(), self.noted.lock());
        if held > noted.longest {
            noted.longest = held;
            self.longest.set(held.as_secs_f64());
        }
        if held >= LOGGED && noted.logged.is_none_or(|at| now - at >= LOG_INTERVAL) {
            noted.logged = Some(now);
            tracing::warn!(
                task,
                ?held,
                "a task held a worker thread while others had to wait, or the machine is short of CPU"
            );
        }
    }
}

/// Registers the metrics of the process.
pub(super) fn register(registry: &mut Registry) {
    let help =
        "Time in seconds for which a poll of a task held a worker thread; only polls of 10 ms or longer";
    registry.register_with_unit("stall", help, Unit::Seconds, STALLS.seconds.clone());
    let help = "Longest poll of a task in seconds since the start; 0 if none took 10 ms";
    registry.register_with_unit("stall_longest", help, Unit::Seconds, STALLS.longest.clone());
}

/// How many stalls there were, and the longest one in seconds.
pub(super) fn totals() -> (u64, f64) {
    (STALLS.seconds.counts().1.iter().sum(), STALLS.longest.get())
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn value(name: &str) -> f64 {
        let (mut registry, mut text) = (Registry::default(), String::new());
        register(&mut registry);
        encode(&mut text, &registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("{name} in {text}"))
    }

    #[tokio::test]
    async fn a_poll_that_holds_its_thread_is_counted_and_the_longest_one_is_shown() {
        let before = value("stall_seconds_count");
        let held = Box::pin(async { std::thread::sleep(Duration::from_millis(130)) });
        stall_timed(|| "a test", held).await;
        assert!(value("stall_seconds_count") > before);
        assert!(value("stall_longest_seconds") >= 0.13);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_holds_no_thread() {
        let before = value("stall_longest_seconds");
        let waits = Box::pin(tokio::time::sleep(Duration::from_secs(1000)));
        stall_timed(|| "a test", waits).await;
        assert!(value("stall_longest_seconds") < before.max(999.0));
    }

    #[test]
    fn a_watched_future_takes_no_more_memory() {
        let future = std::future::ready(());
        assert_eq!(size_of_val(&stall_timed(|| "a test", future)), size_of_val(&std::future::ready(())));
    }
}
