//! A day of many phones in seconds: the gateway and the Rust client, unchanged, on tokio's paused clock, over sockets in memory whose
//! bytes a simulated network delays, drops and forgets.
//!
//! Phones are simulated in groups, each with a gateway and a thread of its own. Within a group one thing happens at a time, so
//! the same seed gives the same trace.

mod day;
mod deaths;
mod fuzz;
mod group;
mod heartbeats;
mod link;
mod mars;
mod outcome;
mod phone;
mod publisher;
mod table;
#[cfg(test)]
mod tests;
mod trace;

use std::time::Duration;

pub use day::{Day, DayError, Network};
pub use deaths::Deaths;
pub use fuzz::{Fuzz, Verdict};
pub use heartbeats::{HEARTBEATS_LEGEND, HeartbeatDay, Heartbeats};
pub use outcome::{Latencies, Outcome};
pub use phone::Reader;
pub(crate) use phone::{Text, stream};
pub(crate) use publisher::{Published, publish};
pub use table::{LEGEND, table};

/// Phones of one group. It does not depend on the machine, or else the trace would.
const GROUP: u32 = 500;

/// Groups at the same time: a phone has up to eight descriptors, and the process 20 000.
const GROUPS_AT_ONCE: usize = 4;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// The networks of the day.
    pub day: Day,
    /// Number of phones, each with a stream of its own.
    pub phones: u32,
    /// How they read.
    pub reader: Reader,
    /// Mean time between two messages to a phone, at random.
    pub every: Duration,
    /// Seed of everything that is random.
    pub seed: u64,
    /// Whether the trace is kept as text.
    pub keeps_trace: bool,
}

/// Why a simulation could not run.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The gateway did not start.
    #[error("the gateway: {0}")]
    Gateway(#[from] pollgate::server::BindError),
    /// A thread, a runtime or a socket could not be had.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The gateway holds no poll for so long.
    #[error("the hold: {0}")]
    Hold(String),
    /// The client refused its settings.
    #[error("the client: {0}")]
    Client(#[from] pollgate_client::BuildError),
}

impl Simulation {
    /// Simulates the day, on up to four processors.
    pub fn run(&self) -> Result<Outcome, SimulationError> {
        let groups: Vec<_> = (0..self.phones).step_by(GROUP as usize).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(GROUPS_AT_ONCE);
        let mut outcome = Outcome::default();
        for at_once in groups.chunks(threads) {
            let ended = std::thread::scope(|scope| {
                let running: Vec<_> = at_once
                    .iter()
                    .map(|first| {
                        let phones = *first..self.phones.min(first + GROUP);
                        std::thread::Builder::new().spawn_scoped(scope, || group::run(self, phones))
                    })
                    .collect();
                running
                    .into_iter()
                    .map(|thread| {
                        thread?.join().map_err(|_| std::io::Error::other("a group has panicked"))?
                    })
                    .collect::<Result<Vec<_>, SimulationError>>()
            })?;
            ended.into_iter().for_each(|group| outcome.add(group));
        }
        Ok(outcome)
    }
}
