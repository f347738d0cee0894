//! The source of time of a clock: the system's clocks, or tokio's clock, which a simulation pauses. Unit tests have a source of their own,
//! which they can also step, suspend and reboot.

use std::time::{Duration, SystemTime};

#[cfg(test)]
pub(crate) use simulated::SimulatedTime;

#[cfg(test)]
pub(super) use simulated::Source;
#[cfg(not(test))]
pub(super) use system::Source;

#[cfg_attr(test, allow(dead_code, reason = "unit tests simulate"))]
mod system {
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio::time::Instant;

    use super::{Duration, SystemTime};
    use crate::platform;

    /// The clocks of the operating system, or tokio's.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::clock) enum Source {
        System,
        Tokio(&'static TokioTime),
    }

    /// A machine that booted at a moment of tokio's clock and is never suspended.
    #[derive(Debug)]
    pub(in crate::clock) struct TokioTime {
        booted: Instant,
        /// The time of day at the boot.
        wall: SystemTime,
        /// By how much the time of day was stepped since.
        stepped_ms: AtomicI64,
    }

    impl Source {
        /// A source for a new clock.
        pub(in crate::clock) fn new() -> Self {
            Self::System
        }

        /// A source that follows tokio's clock, and at which it is `wall` now. It is leaked, so that clocks can copy a reference to it.
        pub(in crate::clock) fn of_tokio(wall: SystemTime) -> Self {
            let stepped_ms = AtomicI64::new(0);
            Self::Tokio(Box::leak(Box::new(TokioTime { booted: Instant::now(), wall, stepped_ms })))
        }

        /// Steps the time of day of a source that follows tokio's clock, back if `milliseconds` is negative. The system's is not touched.
        pub(in crate::clock) fn step_wall(self, milliseconds: i64) {
            if let Self::Tokio(time) = self {
                time.stepped_ms.fetch_add(milliseconds, Ordering::Relaxed);
            }
        }

        #[allow(clippy::disallowed_methods, reason = "this is the place")]
        pub(in crate::clock) fn wall(self) -> SystemTime {
            match self {
                Self::System => SystemTime::now(),
                Self::Tokio(time) => {
                    let stepped = time.stepped_ms.load(Ordering::Relaxed);
                    let by = Duration::from_millis(stepped.unsigned_abs());
                    let unstepped = time.wall + time.booted.elapsed();
                    if stepped < 0 { unstepped - by } else { unstepped + by }
                }
            }
        }

        /// The time since boot, suspends included.
        pub(in crate::clock) fn since_boot(self) -> Duration {
            match self {
                Self::System => platform::since_boot(),
                Self::Tokio(time) => time.booted.elapsed(),
            }
        }

        /// The time for which the machine was suspended since boot.
        pub(in crate::clock) fn suspended(self) -> Duration {
            match self {
                Self::System => platform::suspended(),
                Self::Tokio(_) => Duration::ZERO,
            }
        }

        /// The id of the current boot. `None`: the system has none.
        pub(in crate::clock) fn boot_id(self) -> Option<String> {
            match self {
                Self::System => platform::boot_id(),
                Self::Tokio(_) => None,
            }
        }
    }
}

#[cfg(test)]
mod simulated {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use tokio::time::Instant;

    use super::{Duration, SystemTime};

    /// The start of simulated time, on a machine that has been up for [`UP`].
    const BEGIN: Duration = Duration::from_secs(1_800_000_000);
    const UP: Duration = Duration::from_secs(24 * 3600);

    /// Simulated time that a test steps, suspends and reboots. It advances with tokio's clock.
    #[derive(Debug)]
    pub(crate) struct SimulatedTime {
        since: Instant,
        stepped_ms: AtomicI64,
        suspended_ms: AtomicU64,
        boot: AtomicU64,
    }

    #[derive(Debug, Clone, Copy)]
    pub(in crate::clock) struct Source(&'static SimulatedTime);

    impl SimulatedTime {
        /// Starts simulated time. The value is leaked, so that clocks can copy a reference to it.
        pub(crate) fn start() -> &'static Self {
            Box::leak(Box::new(Self {
                since: Instant::now(),
                stepped_ms: AtomicI64::new(0),
                suspended_ms: AtomicU64::new(0),
                boot: AtomicU64::new(1),
            }))
        }

        /// A new clock in this simulated time.
        pub(crate) fn clock(&'static self) -> crate::clock::Clock {
            crate::clock::Clock::new(Source(self))
        }

        /// A clock that continues the one from which `last` was taken.
        pub(crate) fn resume(&'static self, last: &crate::clock::ClockReading) -> crate::clock::Clock {
            crate::clock::Clock::resumed(last, Source(self))
        }

        /// Steps the time of day forward.
        pub(crate) fn set_forward(&self, by: Duration) {
            self.stepped_ms.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
        }

        pub(crate) fn set_back(&self, by: Duration) {
            self.stepped_ms.fetch_sub(by.as_millis() as i64, Ordering::SeqCst);
        }

        /// Suspends the machine for `time`, during which timers stand still.
        pub(crate) fn suspend(&self, time: Duration) {
            self.suspended_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
        }

        /// Reboots the machine, which changes its boot id.
        pub(crate) fn reboot(&self) {
            self.boot.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Source {
        /// A source for a new clock, with a simulated time of its own.
        pub(in crate::clock) fn new() -> Self {
            Self(SimulatedTime::start())
        }

        /// As above, whatever the time of day.
        pub(in crate::clock) fn of_tokio(_wall: SystemTime) -> Self {
            Self::new()
        }

        pub(in crate::clock) fn wall(self) -> SystemTime {
            let real = SystemTime::UNIX_EPOCH + BEGIN + self.0.since.elapsed() + self.suspended();
            let stepped = self.0.stepped_ms.load(Ordering::SeqCst);
            let by = Duration::from_millis(stepped.unsigned_abs());
            if stepped < 0 { real - by } else { real + by }
        }

        pub(in crate::clock) fn step_wall(self, milliseconds: i64) {
            self.0.stepped_ms.fetch_add(milliseconds, Ordering::SeqCst);
        }

        pub(in crate::clock) fn since_boot(self) -> Duration {
            UP + self.0.since.elapsed() + self.suspended()
        }

        pub(in crate::clock) fn suspended(self) -> Duration {
            Duration::from_millis(self.0.suspended_ms.load(Ordering::SeqCst))
        }

        pub(in crate::clock) fn boot_id(self) -> Option<String> {
            Some(self.0.boot.load(Ordering::SeqCst).to_string())
        }
    }
}
