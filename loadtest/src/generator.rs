//! One process's share of a run: its readers, its publishers, and what they measured.

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

/// After the measured time: for messages on their way, beyond the strategy's own pause.
const GRACE: Duration = Duration::from_secs(3);

/// The least of it: doubles come later than what they double, and the server is looked at with its clients
/// still there.
const GRACE_MIN: Duration = Duration::from_millis(500);

/// What a process has to do: the clients and streams whose number has the remainder `part` among `parts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The whole run's.
    pub plan: Plan,
    /// The server, as publishers reach it.
    pub target: Target,
    /// The same as readers do.
    pub reading: Target,
    /// Whether there is a network between them that may let nobody through.
    pub is_hostile: bool,
    /// How to read.
    pub strategy: Strategy,
    /// What the readers' packets cost.
    pub radios: Radios,
    /// A send is late after this.
    pub late_after: Duration,
    /// This share.
    pub part: u32,
    /// Among so many.
    pub parts: u32,
}

/// How a run is led: told when its clients are connected, tells the start, and may tell a stop before the
/// end.
pub struct Lead {
    /// Told once.
    pub ready: oneshot::Sender<()>,
    /// Awaited once.
    pub start: oneshot::Receiver<Instant>,
    /// True: report what there is.
    pub stop: watch::Receiver<bool>,
}

/// Why a share could not be done.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// The clients do not get connected; what went wrong.
    #[error("not all clients connected within a minute: {0}")]
    NotConnected(String),
    /// Stopped before the measured time.
    #[error("stopped before anything was measured")]
    Stopped,
    /// Of another process.
    #[error("a generator process: {0}")]
    Elsewhere(String),
    /// Of the histogram.
    #[error(transparent)]
    Histogram(#[from] CreationError),
}

impl Job {
    /// Whether a client or stream belongs to this share.
    pub fn is_mine(&self, number: u32) -> bool {
        number % self.parts == self.part
    }
}

/// Does a share of a run.
pub async fn generate(job: Job, lead: Lead) -> Result<Measured, GeneratorError> {
    let workload = Arc::new(Workload::new(job.plan.clone()));
    let Lead { ready, start, mut stop } = lead;
    let readers = Readers::connect(&job, &workload).await?;
    // If nobody waits for this, then nobody starts either, which the next line finds.
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
        totals: TotalsAt { connections: totals.connections, ..totals.since(totals_before) },
        energy: readers.energy(&job.radios, began, measured),
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

/// Messages of this share that were meant to be sent by now.
fn sends_due(job: &Job, workload: &Workload, since_start: Duration) -> u64 {
    let streams = (0..job.plan.streams).filter(|stream| job.is_mine(*stream));
    let now = Duration::ZERO..since_start;
    streams.map(|stream| within(workload.schedule(stream), &now) as u64).sum()
}

/// Waits until a stop is told.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Whoever could stop this is gone and does not want to.
        std::future::pending().await
    }
}

fn own_processor_time() -> Duration {
    processor_time(std::process::id())
}
