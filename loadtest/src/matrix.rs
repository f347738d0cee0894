//! The matrix: every way of reading through every hostile network, all at once on one gateway.
//!
//! Each cell has a stream, a middlebox and a reader of its own. The messages come in bursts, so that clocks of quiet
//! connections run out in between. All times, the gateway's and the readers' as well as the networks', are scaled
//! together, so that ten minutes of a real path take two.

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

/// Of a real path: messages come for so long, then there are none, and so on.
const BURST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(90);

/// Of a real path: for what is still on its way in the end, and for readers that have not found theirs yet. A client that
/// looks for the longest heartbeat tries 120 s where 60 s are borne, and gives a connection up after 1.5 of them.
const GRACE: Duration = Duration::from_secs(240);

/// Doubles come later than what they double.
const GRACE_MIN: Duration = Duration::from_millis(500);

/// Bytes of a message.
const MESSAGE_BYTES: usize = 100;

/// From the first request to the start.
const RUN_UP: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// With real times.
    pub networks: Vec<Profile>,
    /// Who reads through each of them.
    pub readers: Vec<Contender>,
    /// How all times are scaled.
    pub scale: Scale,
    /// Messages a second to each stream within a burst, as it is.
    pub rate: f64,
    /// How many of them.
    pub bursts: u32,
    /// Of the schedule.
    pub seed: u64,
    /// The gateway's program; `None`: the one beside this one.
    pub gateway: Option<PathBuf>,
}

/// Why there is no matrix.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// No server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A server that does not take what it is told.
    #[error("the gateway: {0}")]
    Wire(#[from] WireError),
    /// No middlebox.
    #[error("the middlebox does not listen: {0}")]
    Network(#[from] std::io::Error),
    /// Of the histograms.
    #[error(transparent)]
    Histogram(#[from] CreationError),
    /// Messages that were never there cannot be missed.
    #[error("not all messages were published: {0}")]
    Publishing(String),
    /// By the user.
    #[error("stopped before the end")]
    Stopped,
}

/// Does all of it. `stop` turning true ends it.
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
    // The publisher looks at the schedule alone, and notes its own troubles.
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
