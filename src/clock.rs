//! The one place where the wall clock is read.
//!
//! It is read once; from then on wall time advances with `tokio::time`. So it never jumps, and a test that
//! pauses tokio's clock has paused this one too.

mod alarm;

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub use alarm::Alarm;

/// A wall clock that follows tokio's. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: SystemTime,
    since: Instant,
}

impl Clock {
    /// Starts at the system's time.
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    pub fn start() -> Self {
        Self { wall: SystemTime::now(), since: Instant::now() }
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        self.wall + self.since.elapsed()
    }

    /// The time of day of an earlier or later instant.
    pub fn at(&self, instant: Instant) -> SystemTime {
        self.wall + instant.saturating_duration_since(self.since)
    }

    /// The same as RFC 3339 in UTC with milliseconds.
    pub fn text(&self, instant: Instant) -> String {
        rfc3339(self.at(instant))
    }
}

/// A time of day as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(time: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
    format!("{timestamp:.3}")
}

/// `duration`, give or take up to a tenth, so that clients which came together do not come together again.
pub fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fastrand::f64())
}
