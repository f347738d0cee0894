//! [`Tally`]: the durations and troubles that the tasks of a load record in a round.

use std::ops::Range;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::recorder::{add_time, times};
use crate::troubles::Troubles;

/// Time limit for the last answers after the measured time.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Durations and troubles of a round.
#[derive(Debug)]
pub struct Tally {
    /// The measured time.
    pub window: Range<Instant>,
    /// Errors at any time of the round.
    pub troubles: Troubles,
    times: Mutex<Histogram<u64>>,
}

impl Tally {
    /// Creates an empty tally.
    pub fn new(window: Range<Instant>) -> Result<Self, CreationError> {
        Ok(Self { window, troubles: Troubles::default(), times: Mutex::new(times()?) })
    }

    /// Returns the time until the measured time begins, and its length, for loads that count both from the moment when they are
    /// ready.
    pub fn spans(&self) -> (Duration, Duration) {
        let Range { start, end } = self.window;
        (start.saturating_duration_since(Instant::now()), end - start)
    }

    /// Returns the time limit for the last answers.
    pub fn deadline(&self) -> Instant {
        self.window.end + PATIENCE
    }

    /// Records the duration `took`, if `at` is in the measured time.
    pub fn note(&self, at: Instant, took: Duration) {
        if self.window.contains(&at) {
            add_time(&mut self.times.lock(), took);
        }
    }

    /// Returns the durations recorded in the measured time, in microseconds.
    pub fn times(&self) -> Histogram<u64> {
        self.times.lock().clone()
    }
}
