//! Time: the wall clock, which is read here alone, and a timer for deadlines that move.
//!
//! The wall clock is read once; from then on wall time advances with `tokio::time`. So it never jumps, and a test that pauses
//! tokio's clock has paused this one too.

#[cfg(test)]
mod in_time;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};

#[cfg(test)]
pub(crate) use in_time::in_time;

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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;
    use crate::clock::in_time;

    async fn rings_at(alarm: &mut ReusableSleep, since: Instant, seconds: u64) {
        let until = since + Duration::from_secs(seconds);
        in_time("the alarm rings", poll_fn(|context| alarm.poll(context, until))).await;
        assert_eq!(Instant::now().duration_since(since).as_secs(), seconds);
    }

    fn is_pending(alarm: &mut ReusableSleep, context: &mut Context<'_>, until: Instant) -> Poll<bool> {
        Poll::Ready(alarm.poll(context, until).is_pending())
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_it_was_set_to_last() {
        let (mut alarm, since) = (ReusableSleep::default(), Instant::now());
        rings_at(&mut alarm, since, 5).await;
        rings_at(&mut alarm, since, 7).await;
        let late = since + Duration::from_secs(100);
        assert!(poll_fn(|context| is_pending(&mut alarm, context, late)).await);
        rings_at(&mut alarm, since, 10).await;
        let soon = since + Duration::from_secs(11);
        assert!(poll_fn(|context| is_pending(&mut alarm, context, soon)).await);
        rings_at(&mut alarm, since, 20).await;
        rings_at(&mut alarm, since, 20).await;
    }
}
