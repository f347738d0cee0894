//! [`Breaker`]: stops requests to a destination that fails, and probes it.
//!
//! After some failures in a row ([`BreakerPolicy`]) the breaker opens: nothing is sent for a time that doubles with each further
//! failure. Then one request at a time is let through, the probe. The first success closes the breaker. The time is that of any clock,
//! and comes from outside.

use std::ops::Add;
use std::time::Duration;

use super::Backoff;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row after which the breaker opens.
    pub failures_max: u32,
    /// How long an open breaker lets nothing through.
    pub pause: Backoff,
}

/// Whether requests may be sent to a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker<T> {
    failures: u32,
    /// Nothing is sent before. It stays set until a request succeeds.
    open_until: Option<T>,
    is_probing: bool,
}

/// The answer of a breaker to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission<T> {
    /// It may be sent now. [`Breaker::succeeded`], [`Breaker::failed`] or [`Breaker::withdrawn`] must follow.
    Granted,
    /// Not before this time.
    NotBefore(T),
    /// Not before the probe has ended.
    Probing,
}

impl<T> Default for Breaker<T> {
    fn default() -> Self {
        Self { failures: 0, open_until: None, is_probing: false }
    }
}

impl<T: Copy + Ord + Add<Duration, Output = T>> Breaker<T> {
    /// Asks whether a request may be sent.
    pub fn permit(&mut self, now: T) -> Permission<T> {
        match self.open_until {
            None => Permission::Granted,
            Some(until) if now < until => Permission::NotBefore(until),
            Some(_) if self.is_probing => Permission::Probing,
            Some(_) => {
                self.is_probing = true;
                Permission::Granted
            }
        }
    }

    /// A request was answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A request failed. `wait`: the destination wants no request earlier. `random` is below 1. Returns whether that opens the breaker.
    pub fn failed(&mut self, policy: &BreakerPolicy, now: T, wait: Option<Duration>, random: f64) -> bool {
        let was_open = self.open_until.is_some();
        (self.failures, self.is_probing) = (self.failures.saturating_add(1), false);
        let pause = match self.failures.checked_sub(policy.failures_max) {
            Some(beyond) => policy.pause.half_jitter(beyond.saturating_add(1), random),
            None => Duration::ZERO,
        };
        let pause = pause.max(wait.unwrap_or_default());
        if !pause.is_zero() {
            // Requests that were under way when it opened do not shorten the pause.
            self.open_until = self.open_until.max(Some(now + pause));
        }
        !was_open && self.open_until.is_some()
    }

    /// A request that was permitted is not sent after all.
    pub fn withdrawn(&mut self) {
        self.is_probing = false;
    }

    /// Whether nothing is sent at `now`.
    pub fn is_open(&self, now: T) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    /// Whether the breaker knows nothing that has to be kept.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const FAILURES_MAX: u32 = 5;
    const POLICY: BreakerPolicy = BreakerPolicy {
        failures_max: FAILURES_MAX,
        pause: Backoff { first: Duration::from_secs(2), max: Duration::from_secs(60) },
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_a_success() {
        let (mut breaker, now) = (Breaker::default(), SystemTime::UNIX_EPOCH);
        for _ in 0..2 {
            for _ in 0..FAILURES_MAX - 1 {
                assert_eq!(breaker.permit(now), Permission::Granted);
                breaker.failed(&POLICY, now, None, 0.0);
            }
            breaker.succeeded();
        }
        for failure in 1..=FAILURES_MAX {
            assert_eq!(breaker.permit(now), Permission::Granted);
            assert_eq!(breaker.failed(&POLICY, now, None, 0.0), failure == FAILURES_MAX);
        }
        assert_eq!(breaker.permit(now), Permission::NotBefore(now + seconds(1)));
        let later = now + seconds(1);
        assert_eq!(breaker.permit(later), Permission::Granted);
        assert_eq!(breaker.permit(later), Permission::Probing, "one probe at a time");
        assert!(!breaker.failed(&POLICY, later, None, 0.0), "it was open already");
        assert_eq!(breaker.permit(later), Permission::NotBefore(later + seconds(2)));
        let later = later + seconds(2);
        assert_eq!(breaker.permit(later), Permission::Granted);
        breaker.withdrawn();
        assert_eq!(breaker.permit(later), Permission::Granted);
        breaker.succeeded();
        assert!(breaker.is_idle());
    }

    #[test]
    fn it_is_never_open_for_longer_than_its_bound_and_obeys_the_destination() {
        let (mut breaker, now) = (Breaker::default(), SystemTime::UNIX_EPOCH);
        breaker.failed(&POLICY, now, Some(seconds(300)), 0.9);
        assert_eq!(breaker.permit(now), Permission::NotBefore(now + seconds(300)));
        for _ in 0..1000 {
            breaker.failed(&POLICY, now, None, 1.0);
        }
        assert_eq!(breaker.permit(now + seconds(299)), Permission::NotBefore(now + seconds(300)));
        let later = now + seconds(300);
        assert!(!breaker.is_open(later));
        breaker.failed(&POLICY, later, None, 1.0);
        assert_eq!(breaker.permit(later), Permission::NotBefore(later + seconds(60)));
    }
}
