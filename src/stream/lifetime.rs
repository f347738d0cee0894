//! How long a stream lives and how much of it is kept.

use std::time::{Duration, SystemTime};

/// When a stream ends by itself (protocol, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// Never.
    #[default]
    Unlimited,
    /// `Stream-TTL`: this long after the last read or write.
    Idle(Duration),
    /// `Stream-Expires-At`.
    Until(SystemTime),
}

impl Lifetime {
    /// When a stream that was last used at `used` ends. `None`: never, or beyond what the clock can say.
    pub fn ends_at(self, used: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Unlimited => None,
            Self::Idle(idle) => used.checked_add(idle),
            Self::Until(end) => Some(end),
        }
    }
}

/// What is kept of a stream; `None` is no bound. Whatever exceeds one is trimmed from the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Messages: JSON values in JSON mode, appends otherwise.
    pub messages_max: Option<u64>,
    /// Bytes of messages.
    pub bytes_max: Option<u64>,
    /// Age of a message.
    pub age_max: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_beyond_the_clock_is_no_lifetime() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(Lifetime::Idle(Duration::MAX).ends_at(now), None);
        assert_eq!(Lifetime::Idle(Duration::from_secs(5)).ends_at(now), Some(now + Duration::from_secs(5)));
        assert_eq!(Lifetime::Until(now).ends_at(now + Duration::from_secs(9)), Some(now));
    }
}
