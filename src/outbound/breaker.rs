//! [`Breaker`]: stops requests to a destination that fails, and probes it.
//!
//! After [`FAILURES_MAX`] failures in a row the breaker opens: nothing is sent for a time that doubles with each further failure. Then
//! one request at a time is let through, the probe. The first success closes the breaker.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Backoff;

/// Failures in a row after which the breaker opens.
const FAILURES_MAX: u32 = 5;

/// How long an open breaker lets nothing through.
const PAUSE: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(60) };

/// Whether requests may be sent to a destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// Nothing is sent before. It stays set until a request succeeds.
    open_until: Option<Instant>,
    is_probing: bool,
}

/// The answer of a breaker to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// It may be sent now. [`Breaker::succeeded`], [`Breaker::failed`] or [`Breaker::withdrawn`] must follow.
    Granted,
    /// Not before this time.
    NotBefore(Instant),
    /// Not before the probe has ended.
    Probing,
}

impl Breaker {
    /// Asks whether a request may be sent.
    pub fn permit(&mut self, now: Instant) -> Permission {
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

    /// A request failed. `wait`: the destination wants no request earlier. `random` is below 1.
    pub fn failed(&mut self, now: Instant, wait: Option<Duration>, random: f64) {
        (self.failures, self.is_probing) = (self.failures.saturating_add(1), false);
        let pause = match self.failures.checked_sub(FAILURES_MAX) {
            Some(beyond) => PAUSE.half_jitter(beyond.saturating_add(1), random),
            None => Duration::ZERO,
        };
        let pause = pause.max(wait.unwrap_or_default());
        if !pause.is_zero() {
            // Requests that were under way when it opened do not shorten the pause.
            self.open_until = self.open_until.max(Some(now + pause));
        }
    }

    /// A request that was permitted is not sent after all.
    pub fn withdrawn(&mut self) {
        self.is_probing = false;
    }

    /// Whether nothing is sent at `now`.
    pub fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    /// Whether the breaker knows nothing that has to be kept.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_a_success() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..2 {
            for _ in 0..FAILURES_MAX - 1 {
                assert_eq!(breaker.permit(now), Permission::Granted);
                breaker.failed(now, None, 0.0);
            }
            breaker.succeeded();
        }
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.permit(now), Permission::Granted);
            breaker.failed(now, None, 0.0);
        }
        assert_eq!(breaker.permit(now), Permission::NotBefore(now + seconds(1)));
        let later = now + seconds(1);
        assert_eq!(breaker.permit(later), Permission::Granted);
        assert_eq!(breaker.permit(later), Permission::Probing, "one probe at a time");
        breaker.failed(later, None, 0.0);
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
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(now, Some(seconds(300)), 0.9);
        assert_eq!(breaker.permit(now), Permission::NotBefore(now + seconds(300)));
        (0..1000).for_each(|_| breaker.failed(now, None, 1.0));
        assert_eq!(breaker.permit(now + seconds(299)), Permission::NotBefore(now + seconds(300)));
        let later = now + seconds(300);
        assert!(!breaker.is_open(later));
        breaker.failed(later, None, 1.0);
        assert_eq!(breaker.permit(later), Permission::NotBefore(later + seconds(60)));
    }
}
