//! Requests that the gateway sends on its own: to webhooks of subscriptions, to push services that wake devices, and to the origins of
//! streams.
//!
//! [`queue`] decides when each request is sent: it bounds the requests under way to a destination, and has a
//! circuit breaker for one that fails. This file parses `Retry-After`. These parts are pure: the caller passes the time. The
//! store knows which requests are pending, so a full queue or a kill loses none.

pub mod origins;
pub mod queue;
pub mod wake;
pub mod webhooks;

use std::time::{Duration, SystemTime};

use hyper::HeaderMap;
use hyper::header::RETRY_AFTER;

/// The longest time that a webhook or an origin can postpone the next attempt by.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Returns `Retry-After` (RFC 9110, section 10.2.3), in seconds or as a date, of which `wall` is the time of day now. At most `max`; a
/// date that has passed is no delay.
pub fn retry_after(fields: &HeaderMap, wall: SystemTime, max: Duration) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large for the type is longer than the longest delay.
        true if !text.is_empty() => text.parse().map_or(max, Duration::from_secs),
        _ => httpdate::parse_http_date(text).ok()?.duration_since(wall).unwrap_or_default(),
    };
    Some(delay.min(max))
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
            assert_eq!(
                retry_after(&fields, wall, RETRY_AFTER_MAX),
                seconds.map(Duration::from_secs),
                "{text:?}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new(), wall, RETRY_AFTER_MAX), None);
    }
}
