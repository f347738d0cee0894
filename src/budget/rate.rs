//! Rates of appends of each principal, by the generic cell rate algorithm (ITU-T I.371): a principal has one time, up to which what
//! it has sent is paid for, and may be ahead of the clock by at most [`BURST`].
//!
//! A time that has passed says nothing, so it is dropped: the table holds only principals that are ahead of the clock.

use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use crate::stream::Principal;

/// How far a principal may be ahead of its rate: what it may send at once after a pause.
const BURST: Duration = Duration::from_secs(1);

/// The rates of all principals.
#[derive(Debug, Default)]
pub(super) struct Rates {
    appends_per_second: Option<f64>,
    bytes_per_second: Option<f64>,
    /// Until when the appends and the bytes of a principal are paid for.
    paid_until: DashMap<Principal, [Instant; 2]>,
}

impl Rates {
    /// Limits the appends and the bytes per second of each principal; 0: no limit.
    pub(super) fn new(appends_per_second: u64, bytes_per_second: u64) -> Self {
        let rate = |per_second: u64| (per_second > 0).then_some(per_second as f64);
        let (appends_per_second, bytes_per_second) = (rate(appends_per_second), rate(bytes_per_second));
        Self { appends_per_second, bytes_per_second, paid_until: DashMap::new() }
    }

    /// Whether no rate is limited, so that there is nothing to count.
    pub(super) fn are_unlimited(&self) -> bool {
        self.appends_per_second.is_none() && self.bytes_per_second.is_none()
    }

    /// Counts an append of `bytes`, or returns how long its principal has to wait with it.
    pub(super) fn take(&self, principal: Principal, bytes: u64, now: Instant) -> Result<(), Duration> {
        if self.are_unlimited() || principal == Principal::GATEWAY {
            return Ok(());
        }
        let mut paid_until = self.paid_until.entry(principal).or_insert([now; 2]);
        let costs = [(self.appends_per_second, 1), (self.bytes_per_second, bytes)];
        let mut next = *paid_until;
        let mut wait = Duration::ZERO;
        for (until, (rate, units)) in next.iter_mut().zip(costs) {
            let Some(rate) = rate else { continue };
            let cost = Duration::try_from_secs_f64(units as f64 / rate).unwrap_or(Duration::MAX);
            // What costs more than a burst is allowed if nothing else was sent before.
            let room = BURST.saturating_sub(cost);
            let ahead = until.saturating_duration_since(now);
            wait = wait.max(ahead.saturating_sub(room));
            *until = (*until).max(now).checked_add(cost).unwrap_or(*until);
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        *paid_until = next;
        Ok(())
    }

    /// Drops the principals that are not ahead of the clock.
    pub(super) fn sweep(&self, now: Instant) {
        self.paid_until.retain(|_, until| until.iter().any(|until| *until > now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const ONE: Principal = Principal(1);

    #[test]
    fn a_principal_has_its_rate_and_a_burst_of_a_second() {
        let (rates, start) = (Rates::new(100, 0), Instant::now());
        let taken = |principal, at| (0..1000).filter(|_| rates.take(principal, 1, at).is_ok()).count();
        assert_eq!(taken(ONE, start), 100);
        assert_eq!(rates.take(ONE, 1, start), Err(10 * MILLI), "until one is paid for");
        assert_eq!(taken(ONE, start + 10 * MILLI), 1);
        assert_eq!(taken(Principal(2), start), 100, "others have their own");
        assert_eq!(taken(ONE, start + 500 * MILLI), 49);
        assert_eq!(taken(ONE, start + Duration::from_secs(60)), 100, "a pause saves up no more than a burst");
        assert_eq!(taken(Principal::GATEWAY, start), 1000);
    }

    #[test]
    fn an_append_that_is_larger_than_a_burst_is_paid_for_afterwards() {
        let (rates, start) = (Rates::new(0, 1000), Instant::now());
        assert_eq!(rates.take(ONE, 5000, start), Ok(()));
        assert_eq!(rates.take(ONE, 500, start), Err(4500 * MILLI));
        assert_eq!(rates.take(ONE, 5000, start), Err(5000 * MILLI));
        assert_eq!(rates.take(ONE, 500, start + 4500 * MILLI), Ok(()));
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let (rates, start) = (Rates::new(1, 1000), Instant::now());
        assert_eq!(rates.take(ONE, 10, start), Ok(()));
        assert!((0..100).all(|_| rates.take(ONE, 900, start).is_err()));
        assert_eq!(rates.take(ONE, 900, start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_principal_that_is_not_ahead_is_forgotten() {
        let (rates, start) = (Rates::new(10, 0), Instant::now());
        assert_eq!(rates.take(ONE, 1, start), Ok(()));
        rates.sweep(start + 99 * MILLI);
        assert_eq!(rates.paid_until.len(), 1);
        rates.sweep(start + 100 * MILLI);
        assert!(rates.paid_until.is_empty());
        assert!(Rates::default().take(ONE, u64::MAX, start).is_ok());
    }
}
