//! A deadline that is moved often and reached seldom, as that of a connection which is busy again each time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings for one task, all its life. Its timer is set anew only when it has fired, or when it would fire too late:
/// setting one takes the lock that all timers share.
#[derive(Debug, Default)]
pub struct Alarm(Option<(Instant, Pin<Box<Sleep>>)>);

impl Alarm {
    /// Ready at `until`. It is another one whenever the task likes.
    ///
    /// Cancel safe. While nobody polls, an earlier time may wake the task for nothing.
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

    async fn rings_at(alarm: &mut Alarm, since: Instant, seconds: u64) {
        let until = since + Duration::from_secs(seconds);
        in_time("the alarm rings", poll_fn(|context| alarm.poll(context, until))).await;
        assert_eq!(Instant::now().duration_since(since).as_secs(), seconds);
    }

    fn is_pending(alarm: &mut Alarm, context: &mut Context<'_>, until: Instant) -> Poll<bool> {
        Poll::Ready(alarm.poll(context, until).is_pending())
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_it_was_set_to_last() {
        let (mut alarm, since) = (Alarm::default(), Instant::now());
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
