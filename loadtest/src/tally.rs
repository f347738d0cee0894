//! What the tasks of a load note while it is on a server.

use std::ops::Range;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::recorder::{add_time, times};
use crate::troubles::Troubles;

/// From the end of the measured time to the last answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Times and troubles of a round.
#[derive(Debug)]
pub struct Tally {
    /// The measured time.
    pub window: Range<Instant>,
    /// What went wrong, at whatever time.
    pub troubles: Troubles,
    times: Mutex<Histogram<u64>>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(window: Range<Instant>) -> Result<Self, CreationError> {
        Ok(Self { window, troubles: Troubles::default(), times: Mutex::new(times()?) })
    }

    /// How long it still is to the measured time, and how long that is, for loads that count both from when they are ready.
    pub fn spans(&self) -> (Duration, Duration) {
        let Range { start, end } = self.window;
        (start.saturating_duration_since(Instant::now()), end - start)
    }

    /// When the last answers have to be there.
    pub fn deadline(&self) -> Instant {
        self.window.end + PATIENCE
    }

    /// Notes that something took so long, if the moment at which it counts is in the measured time.
    pub fn note(&self, at: Instant, took: Duration) {
        if self.window.contains(&at) {
            add_time(&mut self.times.lock(), took);
        }
    }

    /// What everything in the measured time took, in microseconds.
    pub fn times(&self) -> Histogram<u64> {
        self.times.lock().clone()
    }
}
