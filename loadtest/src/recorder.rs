//! Records received messages: counts them by their place in the schedule, and times them from the intended publish time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::data::Deliveries;
use crate::troubles::Troubles;
use crate::workload::{MessageId, Workload, within};

/// The longest time that is recorded exactly, in microseconds: one hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// Creates a histogram of times in microseconds with three significant digits.
pub fn times() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_max(MICROS_MAX, 3)
}

/// Adds a time to a histogram.
pub fn add_time(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(MICROS_MAX));
}

/// Latencies and missing messages of all readers of a process.
#[derive(Debug)]
pub struct Recorder {
    /// The schedule of the messages.
    pub workload: Arc<Workload>,
    latency: Mutex<Histogram<u64>>,
    wake_to_poll: Mutex<Histogram<u64>>,
    missing: AtomicU64,
    nothing_missing: Notify,
    /// Errors of the readers and publishers.
    pub troubles: Troubles,
}

/// The messages that one reader has received.
#[derive(Debug)]
pub struct Reception {
    stream: u32,
    seen: Vec<bool>,
    highest: Option<u32>,
    doubled: u64,
    out_of_order: u64,
}

impl Recorder {
    /// Creates a recorder; `streams` yields the stream of each reader.
    pub fn new(workload: Arc<Workload>, streams: impl Iterator<Item = u32>) -> Result<Self, CreationError> {
        let window = workload.plan.window();
        let missing: usize = streams.map(|stream| within(workload.schedule(stream), &window)).sum();
        Ok(Self {
            workload,
            latency: Mutex::new(times()?),
            wake_to_poll: Mutex::new(times()?),
            missing: AtomicU64::new(missing as u64),
            nothing_missing: Notify::new(),
            troubles: Troubles::default(),
        })
    }

    /// Records a message that a reader received `since_start` after the start of the run.
    pub fn receive(&self, reception: &mut Reception, message: MessageId, since_start: Duration) {
        let Some(intended) = self.workload.intended(message).filter(|_| message.stream == reception.stream)
        else {
            self.troubles.note("a message of another stream".to_owned());
            return;
        };
        if !self.workload.plan.window().contains(&intended) {
            reception.mark(message.sequence);
            return;
        }
        let later_was_there = reception.highest.is_some_and(|highest| highest > message.sequence);
        if reception.mark(message.sequence) {
            reception.doubled += 1;
            return;
        }
        reception.out_of_order += u64::from(later_was_there);
        add_time(&mut self.latency.lock(), since_start.saturating_sub(intended));
        if self.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.nothing_missing.notify_one();
        }
    }

    /// Records the time from a wake, which arrived `since_start`, to the answer of the poll after it.
    pub fn woken(&self, since_start: Duration, took: Duration) {
        if self.workload.plan.window().contains(&since_start) {
            add_time(&mut self.wake_to_poll.lock(), took);
        }
    }

    /// Returns the times from a wake to the answer of the poll after it until now.
    pub fn wake_to_poll(&self) -> Histogram<u64> {
        self.wake_to_poll.lock().clone()
    }

    /// Waits until every reader has every message of the measured time.
    pub async fn complete(&self) {
        if self.missing.load(Ordering::Relaxed) > 0 {
            self.nothing_missing.notified().await;
        }
    }

    /// Returns the latencies until now.
    pub fn latency(&self) -> Histogram<u64> {
        self.latency.lock().clone()
    }
}

impl Reception {
    /// Creates an empty reception.
    pub fn new(workload: &Workload, stream: u32) -> Self {
        let seen = vec![false; workload.schedule(stream).len()];
        Self { stream, seen, highest: None, doubled: 0, out_of_order: 0 }
    }

    /// Counts the messages intended for `window`. A missing message intended for `too_recent` or later had no time to arrive
    /// and does not count.
    pub fn counts(&self, workload: &Workload, window: &Range<Duration>, too_recent: Duration) -> Deliveries {
        let all = workload.schedule(self.stream).iter().zip(&self.seen);
        let inside = all.filter(|(intended, _)| window.contains(intended));
        let (mut delivered, mut lost) = (0, 0);
        for (intended, seen) in inside {
            delivered += u64::from(*seen);
            lost += u64::from(!seen && *intended < too_recent);
        }
        let (doubled, out_of_order) = (self.doubled, self.out_of_order);
        Deliveries { intended: delivered + lost, delivered, lost, doubled, out_of_order }
    }

    /// Marks a message as received. Returns whether it was received before.
    fn mark(&mut self, sequence: u32) -> bool {
        self.highest = self.highest.max(Some(sequence));
        self.seen.get_mut(sequence as usize).is_some_and(|seen| std::mem::replace(seen, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Plan;

    #[test]
    fn losses_duplicates_and_reordering_are_counted_exactly() {
        let (warm_up, measured) = (Duration::from_secs(1), Duration::from_secs(10));
        let plan = Plan {
            clients: 1,
            streams: 1,
            rate: 10.0,
            message_bytes: 64,
            warm_up,
            measured,
            seed: 1,
            run: 1,
        };
        let workload = Arc::new(Workload::new(plan));
        let recorder = Recorder::new(workload.clone(), std::iter::once(0)).unwrap();
        let mut reception = Reception::new(&workload, 0);
        let all: Vec<_> = workload.in_order(|_| true);
        let first = all.iter().position(|(at, _)| *at >= warm_up).unwrap();
        let lost = [first + 5, first + 9];
        for (index, (at, message)) in all.iter().enumerate() {
            let later = if index == first + 2 { all[index + 1].1 } else { *message };
            let earlier = if index == first + 3 { all[index - 1].1 } else { later };
            if !lost.contains(&index) {
                recorder.receive(&mut reception, earlier, *at + Duration::from_millis(3));
            }
        }
        let (at, again) = all[first + 7];
        recorder.receive(&mut reception, again, at);
        let intended = (all.len() - first) as u64;
        let counts = reception.counts(&workload, &workload.plan.window(), Duration::MAX);
        let expected = Deliveries { intended, delivered: intended - 2, lost: 2, doubled: 1, out_of_order: 1 };
        assert_eq!(counts, expected);
        assert_eq!(recorder.latency().len(), intended - 2);
    }
}
