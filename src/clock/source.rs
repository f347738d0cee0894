//! Where time comes from: the system, or in unit tests a simulation that follows tokio's clock, so that a test which pauses that
//! has paused all of them.

use std::time::{Duration, SystemTime};

#[cfg(test)]
pub(crate) use simulated::SimulatedTime;

#[cfg(test)]
pub(super) use simulated::Source;
#[cfg(not(test))]
pub(super) use system::Source;

#[cfg_attr(test, allow(dead_code, reason = "unit tests simulate"))]
mod system {
    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::{Duration, SystemTime};

    /// The clocks of the system.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::clock) struct Source;

    impl Source {
        /// The source of a clock that nobody else shares.
        pub(in crate::clock) fn new() -> Self {
            Self
        }

        #[allow(clippy::disallowed_methods, reason = "this is the place")]
        pub(in crate::clock) fn wall(self) -> SystemTime {
            SystemTime::now()
        }

        /// How long the machine has been up, suspends included (clock_gettime(2)).
        pub(in crate::clock) fn since_boot(self) -> Duration {
            duration(clock_gettime(ClockId::Boottime))
        }

        /// How long it has been suspended since it was booted.
        pub(in crate::clock) fn suspended(self) -> Duration {
            let awake = duration(clock_gettime(ClockId::Monotonic));
            self.since_boot().saturating_sub(awake)
        }

        /// The number of the boot (random(4)).
        pub(in crate::clock) fn boot_id(self) -> Option<String> {
            let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            Some(id.trim().to_owned())
        }
    }

    fn duration(time: Timespec) -> Duration {
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }
}

#[cfg(test)]
mod simulated {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use tokio::time::Instant;

    use super::{Duration, SystemTime};

    /// When simulated time begins, on a machine that has been up for a day.
    const BEGIN: Duration = Duration::from_secs(1_800_000_000);
    const UP: Duration = Duration::from_secs(24 * 3600);

    /// Time that a test moves. It passes as tokio's does.
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
        /// Begins; it is never given back.
        pub(crate) fn start() -> &'static Self {
            Box::leak(Box::new(Self {
                since: Instant::now(),
                stepped_ms: AtomicI64::new(0),
                suspended_ms: AtomicU64::new(0),
                boot: AtomicU64::new(1),
            }))
        }

        /// A clock that shows it.
        pub(crate) fn clock(&'static self) -> crate::clock::Clock {
            crate::clock::Clock::new(Source(self))
        }

        /// A clock that goes on where another one has ended.
        pub(crate) fn resume(&'static self, last: &crate::clock::ClockReading) -> crate::clock::Clock {
            crate::clock::Clock::resumed(last, Source(self))
        }

        /// Somebody sets the time of day.
        pub(crate) fn set_forward(&self, by: Duration) {
            self.stepped_ms.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
        }

        pub(crate) fn set_back(&self, by: Duration) {
            self.stepped_ms.fetch_sub(by.as_millis() as i64, Ordering::SeqCst);
        }

        /// The machine is suspended. Timers stand still meanwhile.
        pub(crate) fn suspend(&self, time: Duration) {
            self.suspended_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
        }

        /// The machine is booted again.
        pub(crate) fn reboot(&self) {
            self.boot.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Source {
        /// The source of a clock that nobody else shares.
        pub(in crate::clock) fn new() -> Self {
            Self(SimulatedTime::start())
        }

        pub(in crate::clock) fn wall(self) -> SystemTime {
            let real = SystemTime::UNIX_EPOCH + BEGIN + self.0.since.elapsed() + self.suspended();
            let stepped = self.0.stepped_ms.load(Ordering::SeqCst);
            let by = Duration::from_millis(stepped.unsigned_abs());
            if stepped < 0 { real - by } else { real + by }
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
