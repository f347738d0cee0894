//! Quotas of tenants, and rates of appends by the generic cell rate algorithm (ITU-T I.371): a principal or tenant has one time, up to
//! which what it has sent is paid for, and may be ahead of the clock by at most [`BURST`].
//!
//! A time that has passed says nothing, so it is dropped: a table holds only those that are ahead of the clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use crate::stream::Tenant;

/// How far one may be ahead of its rate: what it may send at once after a pause.
const BURST: Duration = Duration::from_secs(1);

/// What one tenant may hold and do, besides the limits of the gateway and of each of its principals. `None`: no more than that.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quota {
    /// Memory of its streams, messages and sessions, in bytes.
    pub bytes_max: Option<u64>,
    /// Number of its streams.
    pub streams_max: Option<u64>,
    /// Number of its held polls, live responses, and connections of MQTT clients.
    pub open_max: Option<u64>,
    /// Its appends.
    pub rate: AppendRate,
}

/// The quotas of all tenants but the default one, which has the limits of the gateway.
#[derive(Debug, Clone, Default)]
pub struct TenantQuotas {
    named: HashMap<Tenant, Quota>,
    others: Quota,
}

impl TenantQuotas {
    /// The quotas of these tenants, and of each of the others.
    pub fn new(named: impl IntoIterator<Item = (Tenant, Quota)>, others: Quota) -> Self {
        Self { named: named.into_iter().collect(), others }
    }

    pub(super) fn of(&self, tenant: &Tenant) -> Quota {
        if tenant.is_default() { Quota::default() } else { *self.named.get(tenant).unwrap_or(&self.others) }
    }

    /// The least limits that some tenant has of bytes and of streams.
    pub(super) fn least(&self) -> Quota {
        let all = || self.named.values().chain([&self.others]);
        let least = |limit: fn(&Quota) -> Option<u64>| all().filter_map(limit).min();
        Quota {
            bytes_max: least(|quota| quota.bytes_max),
            streams_max: least(|quota| quota.streams_max),
            ..Quota::default()
        }
    }

    /// Whether no tenant has a rate, so that there is nothing to count.
    pub(super) fn have_no_rates(&self) -> bool {
        self.named.values().chain([&self.others]).all(|quota| quota.rate == AppendRate::default())
    }
}

/// The appends that one may make.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AppendRate {
    appends_per_second: Option<f64>,
    bytes_per_second: Option<f64>,
}

/// Until when the appends and the bytes of each principal or tenant are paid for.
#[derive(Debug)]
pub(super) struct PaidAppends<K: Eq + Hash>(DashMap<K, [Instant; 2]>);

impl AppendRate {
    /// Limits the appends and the bytes per second; 0: no limit.
    pub fn new(appends_per_second: u64, bytes_per_second: u64) -> Self {
        let rate = |per_second: u64| (per_second > 0).then_some(per_second as f64);
        Self { appends_per_second: rate(appends_per_second), bytes_per_second: rate(bytes_per_second) }
    }
}

impl<K: Eq + Hash> Default for PaidAppends<K> {
    fn default() -> Self {
        Self(DashMap::new())
    }
}

impl<K: Eq + Hash> PaidAppends<K> {
    /// Counts an append of `bytes` at `rate`, or returns how long it has to wait.
    pub(super) fn take(&self, of: K, rate: AppendRate, bytes: u64, now: Instant) -> Result<(), Duration> {
        if rate == AppendRate::default() {
            return Ok(());
        }
        let mut paid_until = self.0.entry(of).or_insert([now; 2]);
        let costs = [(rate.appends_per_second, 1), (rate.bytes_per_second, bytes)];
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

    /// Drops those that are not ahead of the clock.
    pub(super) fn sweep(&self, now: Instant) {
        self.0.retain(|_, until| until.iter().any(|until| *until > now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const ONE: u64 = 1;

    #[test]
    fn a_principal_has_its_rate_and_a_burst_of_a_second() {
        let (paid, rate, start) = (PaidAppends::default(), AppendRate::new(100, 0), Instant::now());
        let taken = |of, at| (0..1000).filter(|_| paid.take(of, rate, 1, at).is_ok()).count();
        assert_eq!(taken(ONE, start), 100);
        assert_eq!(paid.take(ONE, rate, 1, start), Err(10 * MILLI), "until one is paid for");
        assert_eq!(taken(ONE, start + 10 * MILLI), 1);
        assert_eq!(taken(2, start), 100, "others have their own");
        assert_eq!(taken(ONE, start + 500 * MILLI), 49);
        assert_eq!(taken(ONE, start + Duration::from_secs(60)), 100, "a pause saves up no more than a burst");
    }

    #[test]
    fn an_append_that_is_larger_than_a_burst_is_paid_for_afterwards() {
        let (paid, rate, start) = (PaidAppends::default(), AppendRate::new(0, 1000), Instant::now());
        assert_eq!(paid.take(ONE, rate, 5000, start), Ok(()));
        assert_eq!(paid.take(ONE, rate, 500, start), Err(4500 * MILLI));
        assert_eq!(paid.take(ONE, rate, 5000, start), Err(5000 * MILLI));
        assert_eq!(paid.take(ONE, rate, 500, start + 4500 * MILLI), Ok(()));
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let (paid, rate, start) = (PaidAppends::default(), AppendRate::new(1, 1000), Instant::now());
        assert_eq!(paid.take(ONE, rate, 10, start), Ok(()));
        assert!((0..100).all(|_| paid.take(ONE, rate, 900, start).is_err()));
        assert_eq!(paid.take(ONE, rate, 900, start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_principal_that_is_not_ahead_is_forgotten() {
        let (paid, rate, start) = (PaidAppends::default(), AppendRate::new(10, 0), Instant::now());
        assert_eq!(paid.take(ONE, rate, 1, start), Ok(()));
        paid.sweep(start + 99 * MILLI);
        assert_eq!(paid.0.len(), 1);
        paid.sweep(start + 100 * MILLI);
        assert!(paid.0.is_empty());
        assert!(paid.take(ONE, AppendRate::default(), u64::MAX, start).is_ok() && paid.0.is_empty());
    }
}
