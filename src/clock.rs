//! Time. The system's clocks are read here alone, through a seam that tests replace.
//!
//! * [`Clock::now`] is what lifetimes and ages count by. It is a time of day that advances with the boot-time clock of the kernel,
//!   which counts suspends and which nobody sets, so it neither jumps nor stands still. A store keeps times of this clock.
//! * [`Clock::wall`] is the time of day as the system has it: for `Date`, for what people read, and for ends that are given as a
//!   time of day. It may be stepped at any moment.
//! * `tokio::time` is for timers, which stand still while the machine is suspended.

#[cfg(test)]
mod in_time;
mod source;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};

#[cfg(test)]
pub(crate) use in_time::in_time;
#[cfg(test)]
pub(crate) use source::SimulatedTime;

use source::Source;

/// Earlier than any day on which this program ran: a time of day before it is of a machine whose clock was never set.
const FIRST_DAY: Duration = Duration::from_secs(1_735_689_600);

/// The clock that lifetimes and ages count by. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    source: Source,
    /// What it showed when the machine was booted.
    at_boot: SystemTime,
}

/// What a clock leaves behind, so that a later one goes on in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReading {
    /// What the clock showed.
    pub now: SystemTime,
    /// What the time of day was.
    pub wall: SystemTime,
    /// The id of the boot and the time since it; `None` if the system has no boot id.
    pub boot: Option<(String, Duration)>,
}

impl Clock {
    /// A new clock that shows the time of day.
    pub fn start() -> Self {
        Self::new(Source::new())
    }

    fn new(source: Source) -> Self {
        Self::showing(source.wall(), source)
    }

    fn showing(now: SystemTime, source: Source) -> Self {
        // A clock before 1970 is no clock.
        Self { source, at_boot: now.checked_sub(source.since_boot()).unwrap_or(SystemTime::UNIX_EPOCH) }
    }

    /// Goes on where another clock has ended.
    ///
    /// Since then as much time has passed as the boot-time clock says, if the machine was not booted again; else as much as the
    /// time of day says. A time of day that went back, or of a machine whose clock was not set, says nothing: then no time has
    /// passed, so that what is young is not taken for old.
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

    /// The time that lifetimes and ages count by.
    pub fn now(&self) -> SystemTime {
        self.at_boot + self.source.since_boot()
    }

    /// The time of day.
    pub fn wall(&self) -> SystemTime {
        self.source.wall()
    }

    /// How far the time of day is from `now` at this moment.
    pub fn wall_offset(&self) -> WallOffset {
        let (now, wall) = (self.now(), self.wall());
        match wall.duration_since(now) {
            Ok(ahead) => WallOffset { ahead: true, by: significant(ahead) },
            Err(behind) => WallOffset { ahead: false, by: significant(behind.duration()) },
        }
    }

    /// What is left behind for a later clock.
    pub fn reading(&self) -> ClockReading {
        let boot = self.source.boot_id().map(|id| (id, self.source.since_boot()));
        ClockReading { now: self.now(), wall: self.wall(), boot }
    }

    /// An instant of a clock that, unlike the one of timers, counts suspends: for deadlines that are looked at again and again.
    pub fn instant(&self) -> Instant {
        Instant::now() + self.source.suspended()
    }

    /// What [`now`](Self::now) shows at an instant that [`instant`](Self::instant) will give.
    pub fn at(&self, instant: Instant) -> SystemTime {
        self.now() + instant.saturating_duration_since(self.instant())
    }

    /// The time of day of an instant of a timer as RFC 3339 in UTC with milliseconds.
    pub fn text(&self, instant: Instant) -> String {
        let (now, wall) = (Instant::now(), self.wall());
        rfc3339(match instant.checked_duration_since(now) {
            Some(left) => wall + left,
            None => wall - now.duration_since(instant),
        })
    }
}

/// How far the time of day is from the time that ages count by; nothing, unless it was set.
#[derive(Debug, Clone, Copy)]
pub struct WallOffset {
    ahead: bool,
    by: Duration,
}

/// Two clocks that are read one after the other differ by less than a second if none of them was set.
fn significant(difference: Duration) -> Duration {
    if difference < Duration::from_secs(1) { Duration::ZERO } else { difference }
}

impl WallOffset {
    /// The time of day of a time that a store keeps.
    pub fn to_wall(self, time: SystemTime) -> SystemTime {
        let moved = if self.ahead { time.checked_add(self.by) } else { time.checked_sub(self.by) };
        moved.unwrap_or(time)
    }

    /// The time that a store keeps for a time of day.
    pub fn from_wall(self, wall: SystemTime) -> SystemTime {
        Self { ahead: !self.ahead, ..self }.to_wall(wall)
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

/// Timer of one task for deadlines that move often and are seldom reached. The runtime's timer is reset only when it has
/// fired or would fire too late, since a reset takes a lock that all timers share.
#[derive(Debug, Default)]
pub struct ReusableSleep(Option<(Instant, Pin<Box<Sleep>>)>);

impl ReusableSleep {
    /// Completes at `until`. The deadline may change between polls.
    ///
    /// Cancel safe. An earlier deadline that is no longer polled may wake the task once for nothing.
    pub fn poll(&mut self, context: &mut Context<'_>, until: Instant) -> Poll<()> {
        let now = Instant::now();
        loop {
            if now >= until {
                return Poll::Ready(());
            }
            match &mut self.0 {
                // It has the waker of the task already.
                Some((fires, _)) if *fires <= until && now < *fires => return Poll::Pending,
                Some((fires, sleep)) => {
                    *fires = until;
                    sleep.as_mut().reset(until);
                }
                None => self.0 = Some((until, Box::pin(sleep_until(until)))),
            }
            if let Some((_, sleep)) = &mut self.0 {
                ready!(sleep.as_mut().poll(context));
            }
        }
    }
}
