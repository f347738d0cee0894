//! The cache cursor (`Stream-Cursor`), which keeps shared caches from repeating their answer to the same long poll forever.

use std::time::{Duration, SystemTime};

/// The number of a 20-second interval since 9 October 2024 (protocol, section 10.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheCursor(pub u64);

const INTERVAL_SECONDS: u64 = 20;
const EPOCH: Duration = Duration::from_secs(1_728_432_000);

/// The maximum jitter in seconds that the protocol allows.
const JITTER_SECONDS_MAX: u64 = 3600;

/// The greatest cache cursor of this server. Greater numbers are not exact in JavaScript, and adding to them could overflow.
const CURSOR_MAX: u64 = (1 << 53) - 1;

impl CacheCursor {
    /// The cache cursor for a response at `now` to a client that sent `previous`. It never decreases: a client at or ahead of
    /// the current interval gets `previous` plus 1 to 3600 seconds, chosen by `random`.
    pub fn next(previous: Option<Self>, now: SystemTime, random: u64) -> Self {
        let elapsed = now.duration_since(SystemTime::UNIX_EPOCH + EPOCH).unwrap_or_default();
        let current = elapsed.as_secs() / INTERVAL_SECONDS;
        match previous {
            Some(Self(previous)) if previous >= current => {
                let jitter = 1 + random % JITTER_SECONDS_MAX;
                Self(previous.saturating_add(jitter.div_ceil(INTERVAL_SECONDS)))
            }
            _ => Self(current),
        }
    }

    /// Parses the cache cursor that a client sent; `None` if this server cannot have sent it.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().filter(|n| *n <= CURSOR_MAX).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        NOW + EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_new_client_gets_the_interval_and_an_old_one_the_same() {
        assert_eq!(CacheCursor::next(None, at(39), 0), CacheCursor(1));
        assert_eq!(CacheCursor::next(Some(CacheCursor(0)), at(40), 0), CacheCursor(2));
    }

    #[test]
    fn it_never_goes_back_and_never_stands_still() {
        for random in [0, 1, 3599, 3600, u64::MAX] {
            for previous in [2, 3, 1_000, CURSOR_MAX] {
                let next = CacheCursor::next(Some(CacheCursor(previous)), at(40), random);
                assert!(next > CacheCursor(previous) && next.0 <= previous + 180);
            }
        }
    }

    #[test]
    fn only_digits_are_a_cache_cursor() {
        assert_eq!(CacheCursor::parse("12"), Some(CacheCursor(12)));
        for text in ["", "-1", "+1", "1.0", "abc", "9007199254740992", "99999999999999999999"] {
            assert_eq!(CacheCursor::parse(text), None, "{text:?}");
        }
    }
}
