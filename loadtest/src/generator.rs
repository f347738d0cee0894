//! One process's share of a run: its readers, its publishers, and their measurements.

mod remote;

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::CreationError;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cost::processor_time;
use crate::measured::{Lateness, Measured, pairs};
use crate::model::radio::Radios;
use crate::publisher::Publisher;
use crate::readers::Readers;
use crate::strategies::Strategy;
use crate::target::Target;
use crate::wire::TotalsAt;
use crate::workload::{Plan, Workload, within};

pub use remote::{generate_elsewhere, serve};

/// Wait after the measured time for messages in flight, in addition to the strategy's own pause.
const GRACE: Duration = Duration::from_secs(3);

/// Minimum wait for late messages: duplicates arrive later than their first copy, and the server is inspected while its clients are
/// still connected.
const GRACE_MIN: Duration = Duration::from_millis(500);

/// Work of one process: the clients and streams with `number % parts == part`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Plan of the whole run.
    pub plan: Plan,
    /// The server's address for publishers.
    pub target: Target,
    /// The server's address for readers.
    pub reading: Target,
    /// Whether the readers' network may block some clients completely.
    pub is_hostile: bool,
    /// Strategy of the readers.
    pub strategy: Strategy,
    /// Radio profiles for the energy of the readers' packets.
    pub radios: Radios,
    /// A send counts as late after this.
    pub late_after: Duration,
    /// Index of this share, from 0.
    pub part: u32,
    /// Number of shares.
    pub parts: u32,
}

/// Channels between a run and one generator: it reports that its clients are connected, receives the start, and may be told to
/// stop early.
pub struct Lead {
    /// Sent once when the clients are connected.
    pub ready: oneshot::Sender<()>,
    /// Received once.
    pub start: oneshot::Receiver<Instant>,
    /// True tells the generator to report what it has.
    pub stop: watch::Receiver<bool>,
}

/// Why a share of a run failed.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// The clients could not connect; holds the first cause.
    #[error("not all clients connected within a minute: {0}")]
    NotConnected(String),
    /// Stopped before the measured time began.
    #[error("stopped before anything was measured")]
    Stopped,
    /// An error of another generator process.
    #[error("a generator process: {0}")]
    Elsewhere(String),
    /// From the histogram.
    #[error(transparent)]
    Histogram(#[from] CreationError),
}

impl Job {
    /// Whether a client or stream belongs to this share.
    pub fn is_mine(&self, number: u32) -> bool {
        number % self.parts == self.part
    }
}

/// Runs a share.
pub async fn generate(job: Job, lead: Lead) -> Result<Measured, GeneratorError> {
    let workload = Arc::new(Workload::new(job.plan.clone()));
    let Lead { ready, start, mut stop } = lead;
    let readers = Readers::connect(&job, &workload).await?;
    let opening = readers.totals.now();
    // If the receiver is gone, no start follows, and the next line returns.
    let _unheard = ready.send(());
    let start = start.await.map_err(|_| GeneratorError::Stopped)?;
    readers.begin(start);
    let publisher = Arc::new(Publisher::new(job.target.clone(), readers.recorder.clone())?);
    let (publishes, sender) = (job.clone(), publisher.clone());
    let publishing = tokio::spawn(async move { sender.run(start, |stream| publishes.is_mine(stream)).await });

    let window = job.plan.window();
    tokio::select! {
        () = sleep_until(start + window.start) => {}
        () = stopped(&mut stop) => return Err(GeneratorError::Stopped),
    }
    let (began, processor_before, totals_before) =
        (Instant::now(), own_processor_time(), readers.totals.now());
    tokio::select! {
        () = sleep_until(start + window.end) => {}
        () = stopped(&mut stop) => {}
    }
    let (measured, interrupted) = (began.elapsed(), *stop.borrow());
    let (processor, totals) = (own_processor_time(), readers.totals.now());
    let grace = job.strategy.pause() + GRACE;
    tokio::select! {
        () = sleep(grace) => {}
        () = async { tokio::join!(sleep(GRACE_MIN), readers.recorder.complete()); } => {}
        () = stopped(&mut stop) => {}
    }
    let had_time = if *stop.borrow() { start.elapsed().saturating_sub(grace) } else { Duration::MAX };
    publishing.abort();
    Ok(Measured {
        interrupted,
        measured,
        deliveries: readers.deliveries(&workload, had_time),
        latency: pairs(&readers.recorder.latency()),
        wake_to_poll: pairs(&readers.recorder.wake_to_poll()),
        opening,
        totals: TotalsAt { connections: totals.connections, ..totals.since(totals_before) },
        energy: readers.energy(&job.radios, began, measured).into_iter().collect(),
        lateness: Lateness::of(
            sends_due(&job, &workload, start.elapsed()),
            &publisher.lateness(),
            job.late_after,
        ),
        round_trips: publisher.round_trips(),
        processor: processor.saturating_sub(processor_before),
        troubles: readers.recorder.troubles.all(),
    })
}

/// Counts the messages of this share that were due by now.
fn sends_due(job: &Job, workload: &Workload, since_start: Duration) -> u64 {
    let streams = (0..job.plan.streams).filter(|stream| job.is_mine(*stream));
    let now = Duration::ZERO..since_start;
    streams.map(|stream| within(workload.schedule(stream), &now) as u64).sum()
}

/// Waits until a stop is requested.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The sender was dropped without a stop, so none can follow.
        std::future::pending().await
    }
}

fn own_processor_time() -> Duration {
    processor_time(std::process::id())
}
