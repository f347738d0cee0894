//! The matrix: every reader through every hostile network, all at the same time on one gateway.
//!
//! Each cell has its own stream, middlebox and reader. Messages come in bursts, so that idle timeouts expire in the pauses. All
//! times of the gateway, the readers and the networks are scaled by one factor: ten minutes of a real path take two.

mod cell;
mod contender;
mod fallback;
mod row;
mod scale;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hdrhistogram::CreationError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::generator::stopped;
use crate::network::Profile;
use crate::publisher::Publisher;
use crate::recorder::Recorder;
use crate::servers::{ServerError, gateway_with};
use crate::streams;
use crate::wire::WireError;
use crate::workload::{Bursts, Plan, Workload};

use cell::Cell;

pub use contender::Contender;
pub use row::{Row, Rows};
pub use scale::Scale;
pub use table::table;

/// Length of a burst of messages and of the pause after it, on a real path.
const BURST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(90);

/// Time for the last messages to arrive and for readers to settle, on a real path. A client that searches for the longest
/// heartbeat tries 120 s where the path allows 60 s, and abandons the connection after 1.5 heartbeats.
const GRACE: Duration = Duration::from_secs(240);

/// Minimum wait for late messages: duplicates arrive later than their first copy.
const GRACE_MIN: Duration = Duration::from_millis(500);

/// Bytes of a message.
const MESSAGE_BYTES: usize = 100;

/// Time from the creation of the readers to the start of the schedule.
const RUN_UP: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Networks, with their real times.
    pub networks: Vec<Profile>,
    /// Readers that read through each network.
    pub readers: Vec<Contender>,
    /// Factor for all times.
    pub scale: Scale,
    /// Messages per second to each stream during a burst; not scaled.
    pub rate: f64,
    /// Number of bursts.
    pub bursts: u32,
    /// Seed of the schedule.
    pub seed: u64,
    /// The gateway's program; `None` for the one beside this program.
    pub gateway: Option<PathBuf>,
}

/// Why the matrix failed.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The gateway could not be started.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The gateway refused a request.
    #[error("the gateway: {0}")]
    Wire(#[from] WireError),
    /// A middlebox could not listen.
    #[error("the middlebox does not listen: {0}")]
    Network(#[from] std::io::Error),
    /// From the histograms.
    #[error(transparent)]
    Histogram(#[from] CreationError),
    /// Some messages were not published, so that losses cannot be counted.
    #[error("not all messages were published: {0}")]
    Publishing(String),
    /// The user stopped it.
    #[error("stopped before the end")]
    Stopped,
}

/// Runs the matrix. A `stop` of true ends it with an error.
pub async fn matrix(wanted: &Matrix, mut stop: watch::Receiver<bool>) -> Result<Rows, MatrixError> {
    let readers = |network| wanted.readers.iter().map(move |reader| (network, *reader));
    let pairs: Vec<_> = wanted.networks.iter().flat_map(readers).collect();
    let workload = Arc::new(workload(wanted, u32::try_from(pairs.len()).unwrap_or(u32::MAX)));
    let plan = &workload.plan;
    let running = gateway_with(wanted.gateway.as_deref(), &wanted.scale.gateway()).await?;
    streams::create(&running.target, plan.run, plan.streams, None).await?;
    let start = watch::Sender::new(None);
    let mut cells = Vec::new();
    for (number, (network, contender)) in (0..).zip(pairs) {
        let network = network.clone().scaled(wanted.scale.get());
        cells.push(Cell::start(number, network, contender, &running.target, &workload, wanted, &start)?);
    }
    // The publisher uses only the schedule and the troubles of this recorder.
    let recorder = Arc::new(Recorder::new(workload.clone(), std::iter::empty())?);
    let publisher = Arc::new(Publisher::new(running.target.clone(), recorder.clone())?);
    let began = Instant::now() + RUN_UP;
    start.send_replace(Some(began));
    tokio::select! {
        () = publisher.run(began, |_| true) => {}
        () = stopped(&mut stop) => return Err(MatrixError::Stopped),
    }
    let troubles = recorder.troubles.all();
    if !troubles.is_empty() {
        return Err(MatrixError::Publishing(troubles.into_keys().collect::<Vec<_>>().join("; ")));
    }
    let complete = timeout(wanted.scale.of(GRACE), join_all(cells.iter().map(Cell::complete)));
    tokio::select! {
        _all_or_not = complete => sleep_until(Instant::now() + GRACE_MIN).await,
        () = stopped(&mut stop) => return Err(MatrixError::Stopped),
    }
    Ok(Rows::new(wanted, plan, cells.iter().map(|cell| cell.row(&workload)).collect()))
}

fn workload(wanted: &Matrix, cells: u32) -> Workload {
    let Matrix { scale, rate, seed, .. } = *wanted;
    let bursts = Bursts { lasting: scale.of(BURST), pause: scale.of(PAUSE) };
    let plan = Plan {
        clients: cells,
        streams: cells,
        rate,
        message_bytes: MESSAGE_BYTES,
        warm_up: Duration::ZERO,
        measured: (bursts.lasting + bursts.pause) * wanted.bursts,
        seed,
        run: fastrand::u64(..),
    };
    Workload::in_bursts(plan, bursts)
}
