//! Requests that the gateway sends on its own: to webhooks of subscriptions, to push services that wake devices, and to the origins of
//! streams.
//!
//! [`queue`] decides what is sent when, for each destination: concurrency, and a [circuit breaker](breaker) for one that fails. This file
//! reads `Retry-After` and computes delays. All of that is pure, with the time from outside. What is pending is never kept here alone:
//! it follows from the store, so that a full queue or a kill loses nothing.

pub mod breaker;
pub mod origins;
pub mod queue;
pub mod wake;
pub mod webhooks;

use std::time::{Duration, SystemTime};

use hyper::HeaderMap;
use hyper::header::RETRY_AFTER;

/// The longest time that a response can postpone the next attempt by.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Returns `Retry-After` (RFC 9110, section 10.2.3), in seconds or as a date, of which `wall` is the time of day now. At most
/// [`RETRY_AFTER_MAX`]; a date that has passed is no delay.
pub fn retry_after(fields: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large for the type is longer than the longest delay.
        true if !text.is_empty() => text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs),
        _ => httpdate::parse_http_date(text).ok()?.duration_since(wall).unwrap_or_default(),
    };
    Some(delay.min(RETRY_AFTER_MAX))
}

/// Delays that double from `first` to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first delay.
    pub first: Duration,
    /// The bound of all delays.
    pub max: Duration,
}

impl Backoff {
    /// The bound of the delay after `failures` failures in a row.
    pub fn bound(&self, failures: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(self.max)
    }

    /// A delay with full jitter: anything up to the bound, so that clients that failed together do not come back together. `random` is
    /// below 1.
    pub fn full_jitter(&self, failures: u32, random: f64) -> Duration {
        self.bound(failures).mul_f64(random.clamp(0.0, 1.0))
    }

    /// A delay between half of the bound and the bound.
    pub fn half_jitter(&self, failures: u32, random: f64) -> Duration {
        self.bound(failures).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_postpones_by_seconds_or_until_a_date_and_at_most_an_hour() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("3601", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            let fields = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&fields, wall), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), wall), None);
    }

    #[test]
    fn delays_double_up_to_their_bound() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
        let bounds = [1, 2, 3, 6, 7, 100, u32::MAX].map(|failures| backoff.bound(failures).as_secs());
        assert_eq!(bounds, [1, 2, 4, 32, 60, 60, 60]);
        assert_eq!(backoff.bound(0), Duration::from_secs(1));
        assert_eq!([0.0, 0.5].map(|random| backoff.full_jitter(3, random).as_secs()), [0, 2]);
        assert_eq!([0.0, 0.5].map(|random| backoff.half_jitter(3, random).as_secs()), [2, 3]);
    }
}
