//! Loads that one server after the other is put under, one file each.

pub mod appends;
mod by_wrk;
mod closed_loop;
mod crowd;
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
pub use scene::Scene;

/// How long polls are held: longer than anything that is measured.
pub const HOLD: Duration = Duration::from_secs(55);

/// Long enough for some answers, short beside what a fan-out takes.
const NAP: Duration = Duration::from_micros(50);

/// See the module. Messages are those of the scene's workload, whose schedule is not used.
pub trait Load: Sync {
    /// What it comes to.
    type Figures: Figures;

    /// What it counts, in the plural.
    const COUNTS: &'static str;

    /// How many streams it needs.
    fn streams(&self) -> u32;

    /// The most messages that a stream keeps, where servers let those say that make it; `None`: all.
    fn messages_max(&self) -> Option<u32> {
        None
    }

    /// Whether it can be put onto a server for so many seconds; an error says why not.
    fn allows(&self, _seconds: f64) -> Result<(), WrkError> {
        Ok(())
    }

    /// What servers are started for.
    fn strategy(&self) -> Strategy {
        Strategy::LongPoll(HOLD)
    }

    /// Puts it onto a server and says what it came to: `None` if there was nothing in the measured time, or if something
    /// went wrong that the troubles of the scene's tally say.
    fn put(
        &self,
        scene: Arc<Scene>,
    ) -> impl Future<Output = Result<Option<Self::Figures>, ThreadError>> + Send;
}

/// The messages of a round, told from those of others by a number that nobody else draws.
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

/// Runs `work` on a runtime with one thread, so that a message is not handed from core to core before it is on its way.
/// Dropping the future leaves the thread behind until `deadline`.
pub async fn on_a_thread<T: Send + 'static>(
    deadline: Instant,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, ThreadError> {
    on(Builder::new_current_thread().enable_all().build()?, deadline, work).await
}

/// The same for many who read. Before its thread waits for something to read it sleeps for 50 us: a server that answers
/// them one after the other would else wake it for each one, and pay for that in its own time.
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

/// A thread of the generator that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// Never began.
    #[error("the generator has no runtime: {0}")]
    Runtime(#[from] io::Error),
    /// Broke off.
    #[error("the generator broke off: {0}")]
    Broken(#[from] JoinError),
    /// Still waits for a server.
    #[error("an answer that never came")]
    NoAnswer,
}
