//! The clocks of the gateway. The system's clocks are read here only, through `source::Source`, which simulations replace.
//!
//! * [`Clock::now`] measures lifetimes and ages. It starts at the time of day and advances with the kernel's boot-time clock,
//!   which counts suspends and cannot be set, so it neither jumps nor stands still. The times in a store are times of this
//!   clock.
//! * [`Clock::wall`] is the time of day of the system, for `Date`, for text that people read, and for end times that clients
//!   give. The operator or NTP may step it at any moment.
//! * `tokio::time` drives timers. It stands still while the machine is suspended.

mod breaker;
#[cfg(test)]
mod in_time;
mod source;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};

pub use breaker::{Breaker, BreakerPolicy, Permission};
#[cfg(test)]
pub(crate) use in_time::in_time;
#[cfg(test)]
pub(crate) use source::SimulatedTime;

use source::Source;

/// 2025-01-01, before the first release. An earlier time of day means that the machine's clock was never set.
const FIRST_DAY: Duration = Duration::from_secs(1_735_689_600);

/// The clock that measures lifetimes and ages. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    source: Source,
    /// The time that this clock shows at the boot of the machine.
    at_boot: SystemTime,
}

/// A snapshot of a clock, from which the next process [resumes](Clock::resume) it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReading {
    /// The time of the clock.
    pub now: SystemTime,
    /// The time of day at the same moment.
    pub wall: SystemTime,
    /// The id of the boot and the time since it; `None` if the system has no boot id.
    pub boot: Option<(String, Duration)>,
}

impl Clock {
    /// A new clock that starts at the time of day.
    pub fn start() -> Self {
        Self::new(Source::new())
    }

    /// A new clock that shows `wall` now and advances with tokio's clock. Pausing tokio's clock pauses this one.
    pub fn of_tokio(wall: SystemTime) -> Self {
        Self::new(Source::of_tokio(wall))
    }

    /// Steps the time of day of a clock [of tokio](Self::of_tokio), as an operator or NTP does; back if `milliseconds` is negative.
    pub fn step_wall(&self, milliseconds: i64) {
        self.source.step_wall(milliseconds);
    }

    fn new(source: Source) -> Self {
        Self::showing(source.wall(), source)
    }

    fn showing(now: SystemTime, source: Source) -> Self {
        // Saturates at 1970 if the machine has been up for longer than `now` is after 1970.
        Self { source, at_boot: now.checked_sub(source.since_boot()).unwrap_or(SystemTime::UNIX_EPOCH) }
    }

    /// Continues the clock from which `last` was taken.
    ///
    /// The time since then comes from the boot-time clock if the machine was not rebooted, and otherwise from the time of day.
    /// If the time of day went back, or was not set before or after, no time counts as passed, so that nothing expires too
    /// early.
    pub fn resume(last: &ClockReading) -> Self {
        Self::resumed(last, Source::new())
    }

    fn resumed(last: &ClockReading, source: Source) -> Self {
        let same_boot = last.boot.as_ref().filter(|(boot, _)| source.boot_id().as_deref() == Some(boot));
        let by_boot = same_boot.and_then(|(_, up)| source.since_boot().checked_sub(*up));
        let was_set = |wall: SystemTime| wall >= SystemTime::UNIX_EPOCH + FIRST_DAY;
        let wall = source.wall();
        let by_wall =
            (was_set(last.wall) && was_set(wall)).then(|| wall.duration_since(last.wall).ok()).flatten();
        let passed = by_boot.or(by_wall).unwrap_or_default();
        Self::showing(last.now.checked_add(passed).unwrap_or(last.now), source)
    }

    /// The time that measures lifetimes and ages.
    pub fn now(&self) -> SystemTime {
        self.at_boot + self.source.since_boot()
    }

    /// The time of day.
    pub fn wall(&self) -> SystemTime {
        self.source.wall()
    }

    /// The current difference between the time of day and [`now`](Self::now).
    pub fn wall_offset(&self) -> WallOffset {
        let (now, wall) = (self.now(), self.wall());
        match wall.duration_since(now) {
            Ok(ahead) => WallOffset { ahead: true, by: significant(ahead) },
            Err(behind) => WallOffset { ahead: false, by: significant(behind.duration()) },
        }
    }

    /// A snapshot from which a later process [resumes](Self::resume) the clock.
    pub fn reading(&self) -> ClockReading {
        let boot = self.source.boot_id().map(|id| (id, self.source.since_boot()));
        ClockReading { now: self.now(), wall: self.wall(), boot }
    }

    /// The current instant, counting suspends unlike `Instant::now`. For deadlines that are checked repeatedly instead of by a
    /// timer.
    pub fn instant(&self) -> Instant {
        Instant::now() + self.source.suspended()
    }

    /// The time that [`now`](Self::now) shows when [`instant`](Self::instant) reaches `instant`.
    pub fn at(&self, instant: Instant) -> SystemTime {
        self.now() + instant.saturating_duration_since(self.instant())
    }

    /// The time of day at which a timer reaches `instant`, as RFC 3339 in UTC with milliseconds.
    pub fn text(&self, instant: Instant) -> String {
        let (now, wall) = (Instant::now(), self.wall());
        rfc3339(match instant.checked_duration_since(now) {
            Some(left) => wall + left,
            None => wall - now.duration_since(instant),
        })
    }
}

/// The difference between the time of day and [`Clock::now`]; zero unless the time of day was stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallOffset {
    ahead: bool,
    by: Duration,
}

/// Drops differences below one second: those come from reading the two clocks one after the other.
fn significant(difference: Duration) -> Duration {
    if difference < Duration::from_secs(1) { Duration::ZERO } else { difference }
}

impl WallOffset {
    /// Converts a time that a store keeps to the time of day.
    pub fn to_wall(self, time: SystemTime) -> SystemTime {
        let moved = if self.ahead { time.checked_add(self.by) } else { time.checked_sub(self.by) };
        moved.unwrap_or(time)
    }

    /// Converts a time of day to the time that a store keeps.
    pub fn to_stored(self, wall: SystemTime) -> SystemTime {
        Self { ahead: !self.ahead, ..self }.to_wall(wall)
    }
}

/// Formats a time of day as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
    format!("{timestamp:.3}")
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

/// Varies `duration` at random by up to 10 %, so that clients that connected together do not reconnect together.
pub fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Timer of one task, for deadlines that move often and are seldom reached. The runtime's timer is reset only when it has fired
/// or would fire too late, because a reset takes a lock that all timers share.
#[derive(Debug, Default)]
pub struct ReusableSleep(Option<Pin<Box<Sleep>>>);

impl ReusableSleep {
    /// Completes at `until`. The deadline may change between polls.
    ///
    /// Cancel safe. An earlier deadline that is no longer polled may wake the task once without need.
    pub fn poll(&mut self, context: &mut Context<'_>, until: Instant) -> Poll<()> {
        // The running timer fires in time and has the waker of the task. The clock need not be read, as for most polls.
        if self.0.as_ref().is_some_and(|sleep| sleep.deadline() <= until && !sleep.is_elapsed()) {
            return Poll::Pending;
        }
        let now = Instant::now();
        loop {
            if now >= until {
                return Poll::Ready(());
            }
            match &mut self.0 {
                Some(sleep) => sleep.as_mut().reset(until),
                None => self.0 = Some(Box::pin(sleep_until(until))),
            }
            if let Some(sleep) = &mut self.0 {
                ready!(sleep.as_mut().poll(context));
            }
        }
    }
}
