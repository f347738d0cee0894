//! [`Takeovers`]: slows down programs that use the same client id and keep taking over from each other.
//!
//! A client that polls or connects again takes over from its earlier poll or connection. Two programs with
//! one id would do so as fast as the network allows. From the third takeover within a second on, each
//! takeover is delayed: first by `takeover_delay`, then by twice the previous delay, up to
//! `takeover_delay_max`. The delays end once no takeover has come for twice the last delay.
//!
//! The front decides what it delays: the response to the superseded poll, or the CONNACK of the newer MQTT
//! connection.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::Limits;
use crate::metrics::{Counter, Metrics};

/// Takeovers are delayed from the third within this window on.
const WINDOW: Duration = Duration::from_secs(1);

/// Minimum time between two warnings in the log.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two warnings about the same client id.
const SAME_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Counts and paces the takeovers of the clients of one front.
#[derive(Debug)]
pub struct Takeovers {
    /// What is taken over, for metrics and the log: `polls` or `connections`.
    what: &'static str,
    /// Keyed by a hash of client id and subject, so that a long id takes no more memory. The cache evicts
    /// clients beyond `takeover_clients_max`.
    paces: Cache<u64, Arc<Mutex<Pace>>>,
    hashes: RandomState,
    delay_min: Duration,
    delay_max: Duration,
    warned: Mutex<Option<Instant>>,
    delayed: Counter,
}

/// Pace of the takeovers of one client.
#[derive(Debug, Default)]
struct Pace {
    /// Times of the last but one and the last takeover.
    recent: [Option<Instant>; 2],
    /// Delay of the last takeover.
    delay: Duration,
    warned: Option<Instant>,
}

impl Takeovers {
    /// Creates the counter for one kind of takeover. `what` names what is taken over: `polls` or
    /// `connections`.
    pub fn new(what: &'static str, limits: &Limits, metrics: &Metrics) -> Self {
        let delay_max = limits.takeover_delay_max.get();
        let paces = Cache::builder()
            .max_capacity(limits.takeover_clients_max)
            .time_to_idle(2 * delay_max + WINDOW)
            .build();
        Self {
            what,
            paces,
            hashes: RandomState::new(),
            delay_min: limits.takeover_delay.get().min(delay_max),
            delay_max,
            warned: Mutex::default(),
            delayed: metrics.takeovers_delayed(what),
        }
    }

    /// Counts a takeover by client `id`, per `subject` if the client may hold several. Returns the delay of
    /// this takeover, zero in the usual case.
    pub fn count(&self, id: &str, subject: impl Hash) -> Duration {
        let pace = self.paces.get_with(self.hashes.hash_one((id, subject)), Arc::default);
        let (now, mut pace) = (Instant::now(), pace.lock());
        pace.delay = pace.next(now, self.delay_min, self.delay_max);
        if !pace.delay.is_zero() {
            self.delayed.inc();
            self.warn(id, &mut pace, now);
        }
        pace.delay
    }

    fn warn(&self, id: &str, pace: &mut Pace, now: Instant) {
        let passed = |warned: Option<Instant>, interval| warned.is_none_or(|at| now - at >= interval);
        let mut warned = self.warned.lock();
        if passed(*warned, WARNING_INTERVAL) && passed(pace.warned, SAME_WARNING_INTERVAL) {
            (*warned, pace.warned) = (Some(now), Some(now));
            let what = self.what;
            tracing::warn!(
                client = ?id,
                "several programs use one client id and take over each other's {what}; give each its own id"
            );
        }
    }
}

impl Pace {
    /// Counts a takeover and returns its delay.
    fn next(&mut self, now: Instant, delay_min: Duration, delay_max: Duration) -> Duration {
        let [last_but_one, last] = self.recent;
        self.recent = [last, Some(now)];
        let came_within = |earlier: Option<Instant>, time| earlier.is_some_and(|at| now - at <= time);
        if !self.delay.is_zero() && came_within(last, 2 * self.delay) {
            (2 * self.delay).min(delay_max)
        } else if came_within(last_but_one, WINDOW) {
            delay_min
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const LAST: Duration = Duration::from_secs(10);

    /// Returns the delays, in seconds, of takeovers at the given milliseconds.
    fn delays(moments: &[u64]) -> Vec<u64> {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut delay = |moment: &u64| {
            pace.delay = pace.next(start + Duration::from_millis(*moment), FIRST, LAST);
            pace.delay.as_secs()
        };
        moments.iter().map(&mut delay).collect()
    }

    #[test]
    fn the_third_takeover_within_a_second_is_delayed_and_the_next_ones_twice_as_long_each() {
        assert_eq!(delays(&[0, 10, 20, 30, 40, 50, 60, 70]), [0, 0, 1, 2, 4, 8, 10, 10]);
        // Two programs, each of which polls again as soon as it is answered.
        assert_eq!(delays(&[0, 1, 2, 1002, 3002, 7002, 15_002, 25_002]), [0, 0, 1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn clients_that_come_again_now_and_then_are_not_delayed() {
        assert_eq!(delays(&[0, 501, 1002, 1503, 2004]), [0; 5]);
        assert_eq!(delays(&[0, 100, 5000, 5100, 10_000]), [0; 5]);
    }

    #[test]
    fn it_is_over_once_there_was_no_takeover_for_twice_the_last_delay() {
        assert_eq!(delays(&[0, 1, 2, 3, 4004, 4005, 4006]), [0, 0, 1, 2, 0, 0, 1]);
        assert_eq!(delays(&[0, 1, 2, 3, 4003]), [0, 0, 1, 2, 4]);
    }

    #[test]
    fn each_client_and_subject_is_counted_for_itself_and_their_number_is_bounded() {
        let limits = Limits { takeover_clients_max: 100, ..Limits::default() };
        let takeovers = Takeovers::new("polls", &limits, &Metrics::new());
        for number in 0..10_000 {
            assert_eq!(takeovers.count("a", number), Duration::ZERO);
        }
        let counts: Vec<_> = (0..3).map(|_| takeovers.count("b", 1)).collect();
        assert_eq!(counts, [Duration::ZERO, Duration::ZERO, FIRST]);
        assert_eq!(takeovers.count("c", 1), Duration::ZERO);
        takeovers.paces.run_pending_tasks();
        assert!(takeovers.paces.entry_count() <= 100);
    }
}
