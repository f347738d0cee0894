//! Loads that are put on one server after the other, one file each, and the [`Load`] trait.

pub mod appends;
mod by_wrk;
mod closed_loop;
mod crowd;
mod engine_calls;
pub mod fan_out;
pub mod hold;
mod pace;
mod poller;
mod scene;
pub mod short_polls;
pub mod wake;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};

use crate::figures::Figures;
use crate::strategies::Strategy;
use crate::workload::{Plan, Workload};
use crate::wrk::WrkError;

pub use by_wrk::Generator;
pub use engine_calls::{EngineCallError, EngineCalls};
pub use scene::Scene;

/// Hold time of long polls: longer than any measurement.
pub const HOLD: Duration = Duration::from_secs(55);

/// Long enough for several answers to arrive, short compared with a fan-out.
const NAP: Duration = Duration::from_micros(50);

/// A kind of load. Its messages are those of the scene's workload, whose schedule is not used.
pub trait Load: Sync {
    /// The figures that it measures.
    type Figures: Figures;

    /// What it counts, in the plural.
    const COUNTS: &'static str;

    /// Number of streams that it needs.
    fn streams(&self) -> u32;

    /// Maximum messages per stream, for servers that take this setting from clients; `None` keeps all.
    fn messages_max(&self) -> Option<u32> {
        None
    }

    /// Whether the load can call the engine of the gateways directly.
    fn calls_engine(&self) -> bool {
        false
    }

    /// Checks that the load can run for `seconds`; the error says why not.
    fn allows(&self, _seconds: f64) -> Result<(), WrkError> {
        Ok(())
    }

    /// The strategy that servers are configured for.
    fn strategy(&self) -> Strategy {
        Strategy::LongPoll(HOLD)
    }

    /// Runs the load on a server and returns its figures. `None` if nothing completed in the measured time, or if the load
    /// failed: the causes are in the troubles of the scene's tally.
    fn put(
        &self,
        scene: Arc<Scene>,
    ) -> impl Future<Output = Result<Option<Self::Figures>, ThreadError>> + Send;
}

/// Creates the messages of a round; a random number tells them from those of other rounds.
pub fn messages(message_bytes: usize) -> Workload {
    Workload::new(Plan {
        clients: 0,
        streams: 0,
        rate: 0.0,
        message_bytes,
        warm_up: Duration::ZERO,
        measured: Duration::ZERO,
        seed: 0,
        run: fastrand::u64(..),
    })
}

/// Runs `work` on a runtime with one thread, so that no message moves between cores before it is sent. If the future is
/// dropped, the thread runs on until `deadline`.
pub async fn on_a_thread<T: Send + 'static>(
    deadline: Instant,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, ThreadError> {
    on(Builder::new_current_thread().enable_all().build()?, deadline, work).await
}

/// Like [`on_a_thread`], for many readers. Its thread sleeps 50 us before it waits for the sockets: otherwise a server that
/// answers one reader after the other would wake it for each answer, at the cost of the server's own time.
pub async fn on_an_unhurried_thread<T: Send + 'static>(
    deadline: Instant,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, ThreadError> {
    let nap = || std::thread::sleep(NAP);
    on(Builder::new_current_thread().on_thread_park(nap).enable_all().build()?, deadline, work).await
}

async fn on<T: Send + 'static>(
    runtime: Runtime,
    deadline: Instant,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, ThreadError> {
    let thread =
        tokio::task::spawn_blocking(move || runtime.block_on(async { timeout_at(deadline, work).await }));
    thread.await?.map_err(|_| ThreadError::NoAnswer)
}

/// Why a generator's thread did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The runtime could not be created.
    #[error("the runtime of the generator cannot be created: {0}")]
    Runtime(#[from] io::Error),
    /// The task panicked or was cancelled.
    #[error("the generator failed: {0}")]
    Broken(#[from] JoinError),
    /// The deadline passed while it waited for a server.
    #[error("an answer that never came")]
    NoAnswer,
}
