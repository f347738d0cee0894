//! Load: measures the time from a publish to the answer of a held poll. Each poll waits on a stream of its own and is known to
//! be held; the publish times are fixed in advance, or each message follows the one before.

mod closed_loop;
mod holder;
mod publisher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::pace::pace;
use super::{Load, Scene, ThreadError, on_a_thread};
use crate::figures::Pace;
use crate::workload::MessageId;

use holder::Holder;
use publisher::publish;

/// Interval between two checks whether the last answers have arrived.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// Allowed share of messages without a held poll: a short stall of this machine delays a poll. A larger share is caused by the
/// server.
const UNHELD_SHARE_MAX: f64 = 0.01;

/// A load of held polls that are woken one at a time.
#[derive(Debug, Clone, Copy)]
pub struct Wake {
    /// Number of held polls, each on its own stream.
    pub held: u32,
    /// Messages per second, over all streams. `None`: a closed loop.
    pub rate: Option<f64>,
}

/// State shared by the publisher and the holders of polls.
struct Stage {
    scene: Arc<Scene>,
    /// When each message is due, by its number. Message `n` goes to stream `n % streams`.
    due: Vec<Instant>,
    /// Per stream: its poll is held, and nothing has been published to it since.
    held: Vec<AtomicBool>,
    /// Messages of the measured time that were due while no poll was held.
    unheld: AtomicU32,
    /// Number of messages that have arrived.
    arrived: AtomicUsize,
}

impl Load for Wake {
    type Figures = Pace;

    const COUNTS: &'static str = "wakes";

    fn streams(&self) -> u32 {
        self.held
    }

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<Pace>, ThreadError> {
        let stage = Arc::new(Stage {
            due: self
                .rate
                .map_or_else(Vec::new, |rate| due_times(rate, Instant::now(), scene.tally.window.end)),
            held: (0..self.held).map(|_| AtomicBool::new(false)).collect(),
            unheld: AtomicU32::new(0),
            arrived: AtomicUsize::new(0),
            scene: scene.clone(),
        });
        match self.rate {
            Some(_) => pace(&scene, stage.play()).await,
            None => pace(&scene, stage.play_closed_loop()).await,
        }
    }
}

/// One message every `1 / rate` seconds, delayed by a random part of half that time, so that it does not coincide with periodic
/// work of the server.
fn due_times(rate: f64, from: Instant, until: Instant) -> Vec<Instant> {
    let mut random = Rng::new();
    let at = |number: u32| {
        let seconds = (f64::from(number) + random.f64() / 2.0) / rate;
        Some(from + Duration::try_from_secs_f64(seconds).ok()?)
    };
    (0..).map_while(at).take_while(|due| *due < until).collect()
}

impl Stage {
    async fn play(self: Arc<Self>) {
        let holders: JoinSet<()> =
            (0..self.streams()).map(|stream| Holder::new(self.clone(), stream).run()).collect();
        let tally = &self.scene.tally;
        // A runtime of its own, since its thread sleeps: tokio's timer has a resolution of one millisecond.
        match on_a_thread(tally.deadline(), publish(self.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tally.troubles.note(format!("publishing: {error}")),
            Err(error) => tally.troubles.note(format!("publishing: {error}")),
        }
        self.all_arrived().await;
        drop(holders);
        self.note_unheld();
    }

    async fn play_closed_loop(self: Arc<Self>) {
        if let Err(error) = closed_loop::play(&self).await {
            self.scene.tally.troubles.note(format!("closed loop: {error}"));
        }
    }

    fn streams(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    /// Returns the stream and the sequence number of message `number`.
    fn message(&self, number: u32) -> MessageId {
        MessageId { stream: number % self.streams(), sequence: number }
    }

    /// Records that the stream's poll is held.
    fn mark_held(&self, stream: u32) {
        if let Some(held) = self.held.get(stream as usize) {
            held.store(true, Ordering::Release);
        }
    }

    /// Records that the stream's poll is about to be answered. Returns whether it was held.
    fn release(&self, stream: u32) -> bool {
        self.held.get(stream as usize).is_some_and(|held| held.swap(false, Ordering::AcqRel))
    }

    /// Waits until every message has arrived.
    async fn all_arrived(&self) {
        sleep_until(self.scene.tally.window.end).await;
        while self.arrived.load(Ordering::Acquire) < self.due.len() {
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// Records a trouble if too many messages met no held poll, so that the figures are not those of held polls.
    fn note_unheld(&self) {
        let (unheld, all) = (self.unheld.load(Ordering::Relaxed), self.scene.tally.times().len());
        if f64::from(unheld) > UNHELD_SHARE_MAX * all as f64 {
            let what =
                format!("no poll was held when {unheld} of {all} messages were due: use a lower --rate");
            self.scene.tally.troubles.note(what);
        }
    }
}
