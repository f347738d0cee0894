//! [`PollSchedule`]: when an origin is polled next. It is given the time and random numbers.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Backoff;
use crate::hub::OriginInterval;

/// The longest time that an origin can ask for with `Retry-After` or `Cache-Control`.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The time that the backoff reaches at least, if the origin goes on failing.
const BACKOFF: Duration = Duration::from_secs(60);

/// How much longer than the interval a wait may be, so that origins that were created together are not polled together.
const JITTER: f64 = 0.1;

/// When an origin is polled next.
#[derive(Debug)]
pub(super) struct PollSchedule {
    allowed: OriginInterval,
    /// The current interval: between the shortest one and the longest one.
    interval: Duration,
    /// Polls that have failed since the last one that succeeded.
    failures: u32,
    next: Instant,
    /// A reader that comes does not cause a poll before.
    not_before: Instant,
}

impl PollSchedule {
    /// The schedule of an origin that is polled at once.
    pub(super) fn new(allowed: OriginInterval, now: Instant) -> Self {
        Self { allowed, interval: allowed.min, failures: 0, next: now, not_before: now }
    }

    /// When it is polled next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// How long an origin is polled on after the last short poll.
    pub(super) fn linger(&self) -> Duration {
        2 * self.interval
    }

    /// Somebody reads again: the origin is polled as soon as that is allowed.
    pub(super) fn resume(&mut self, now: Instant) {
        (self.interval, self.next) = (self.allowed.min, self.not_before.max(now));
    }

    /// The origin has answered. `wait` is what it asks to wait for. The interval halves if there is something new, and grows by half
    /// otherwise. `random` is below 1.
    pub(super) fn answered(&mut self, now: Instant, is_new: bool, wait: Option<Duration>, random: f64) {
        let OriginInterval { min, max } = self.allowed;
        let next = if is_new { self.interval / 2 } else { self.interval * 3 / 2 };
        (self.failures, self.interval) = (0, next.clamp(min, max));
        let wait = wait.unwrap_or_default().min(WAIT_MAX);
        self.not_before = now + min.max(wait);
        self.next = now + self.interval.mul_f64(1.0 + JITTER * random).max(wait);
    }

    /// The poll has failed. `wait` is what the origin asks to wait for. Backoff with full jitter, beginning at the shortest interval.
    pub(super) fn failed(&mut self, now: Instant, wait: Option<Duration>, random: f64) {
        let OriginInterval { min, max } = self.allowed;
        self.failures = self.failures.saturating_add(1);
        let backoff = Backoff { first: 2 * min, max: max.max(BACKOFF) };
        let most = backoff.bound(self.failures).max(min);
        let wait = wait.unwrap_or_default().min(WAIT_MAX);
        self.next = now + (min + (most - min).mul_f64(random)).max(wait);
        self.not_before = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(text: &str, now: Instant) -> PollSchedule {
        PollSchedule::new(OriginInterval::parse(text).unwrap(), now)
    }

    #[test]
    fn the_interval_follows_the_changes_of_the_origin_between_its_bounds() {
        let now = Instant::now();
        let mut schedule = schedule("2-8", now);
        assert_eq!(schedule.next(), now);
        let mut wait = |is_new| {
            schedule.answered(now, is_new, None, 0.0);
            (schedule.next() - now).as_secs_f64()
        };
        let waits: Vec<_> =
            [false, false, false, false, true, true, true].into_iter().map(&mut wait).collect();
        assert_eq!(waits, [3.0, 4.5, 6.75, 8.0, 4.0, 2.0, 2.0]);
    }

    #[test]
    fn a_wait_is_never_shorter_than_the_interval_or_what_the_origin_asks_for() {
        let now = Instant::now();
        let mut schedule = schedule("2-2", now);
        for random in [0.0, 0.5, 0.999] {
            schedule.answered(now, true, None, random);
            assert!((2 * SECOND..3 * SECOND).contains(&(schedule.next() - now)));
        }
        for (asked, waited) in [(SECOND, 2 * SECOND), (9 * SECOND, 9 * SECOND), (9 * WAIT_MAX, WAIT_MAX)] {
            schedule.answered(now, true, Some(asked), 0.0);
            assert_eq!(schedule.next() - now, waited);
            schedule.failed(now, Some(asked), 0.0);
            assert_eq!(schedule.next() - now, waited);
        }
    }

    #[test]
    fn backoff_has_full_jitter_up_to_a_minute_or_the_longest_interval() {
        let now = Instant::now();
        for (text, most) in [("1", 60), ("1-100", 100), ("90", 90)] {
            let mut schedule = schedule(text, now);
            let least = OriginInterval::parse(text).unwrap().min;
            for failures in 1..40 {
                schedule.failed(now, None, 0.0);
                assert_eq!(schedule.next() - now, least, "{text} {failures}");
            }
            schedule.failed(now, None, 0.999_999_999);
            assert_eq!((schedule.next() - now).as_secs_f64().round() as u64, most, "{text}");
            schedule.answered(now, true, None, 0.0);
            schedule.failed(now, None, 0.999_999_999);
            assert!(schedule.next() - now <= 2 * least, "{text}");
        }
    }

    #[test]
    fn a_reader_that_comes_causes_a_poll_at_once_unless_the_origin_was_just_polled() {
        let now = Instant::now();
        let mut schedule = schedule("2-60", now);
        for _ in 0..20 {
            schedule.answered(now, false, None, 0.0);
        }
        assert_eq!((schedule.next() - now, schedule.linger()), (60 * SECOND, 120 * SECOND));
        schedule.resume(now + SECOND);
        assert_eq!((schedule.next() - now, schedule.linger()), (2 * SECOND, 4 * SECOND));
        schedule.resume(now + 9 * SECOND);
        assert_eq!(schedule.next() - now, 9 * SECOND);
        schedule.failed(now, Some(30 * SECOND), 0.0);
        schedule.resume(now + SECOND);
        assert_eq!(schedule.next() - now, 30 * SECOND);
    }
}
