//! A load on the gateway and its rivals in turn, round by round, each on a fresh server.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::CreationError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cli::Rounds;
use crate::cost::processor_time;
use crate::figures::{Figures, Standing};
use crate::generator::stopped;
use crate::loads::{HOLD, Load, ThreadError, messages, on_a_thread};
use crate::servers::{Running, Server, ServerError};
use crate::strategies::Strategy;
use crate::streams;
use crate::tally::Tally;
use crate::wire::WireError;

/// What the servers are started for.
const STRATEGY: Strategy = Strategy::LongPoll(HOLD);

/// What came of it.
pub struct Outcome {
    /// The gateway, then its rivals, with the rounds that all of them have.
    pub standings: Vec<Standing>,
    /// Where they kept messages.
    pub storage: String,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// No server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A server that is not what it should be.
    #[error("no {0} at {1}: {2}")]
    NoServer(&'static str, SocketAddr, WireError),
    /// A figure of a server that failed says nothing.
    #[error("{server}: {}", .troubles.join("; "))]
    Troubles {
        /// Which one.
        server: &'static str,
        /// What went wrong and how often.
        troubles: Vec<String>,
    },
    /// Nothing happened in the measured time.
    #[error("{0}: no {1} in the measured time")]
    Nothing(&'static str, &'static str),
    /// The generator.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// The recorder.
    #[error("the recorder: {0}")]
    Histogram(#[from] CreationError),
}

impl RoundError {
    /// Whether there was no server to measure.
    pub fn is_of_the_server(&self) -> bool {
        matches!(self, Self::Server(_) | Self::NoServer(..))
    }
}

/// Does all rounds, or those that are complete when `stop` turns true.
pub async fn rounds<L: Load>(
    load: &L,
    wanted: &Rounds,
    mut stop: watch::Receiver<bool>,
) -> Result<Outcome, RoundError> {
    let storage = wanted.store.ready()?;
    let mut entries = entries(wanted)?;
    'all: for number in 0..wanted.rounds {
        // Another one begins each time.
        let begins = number % entries.len().max(1);
        let (later, first) = entries.split_at_mut(begins);
        for (server, standing) in first.iter_mut().chain(later) {
            let round = tokio::select! {
                round = round(load, server, wanted) => round?,
                () = stopped(&mut stop) => break 'all,
            };
            let (name, rate, counts) = (server.name(), round.rate, L::COUNTS);
            eprintln!("round {} of {}: {name} {rate:.0} {counts}/s", number + 1, wanted.rounds);
            standing.rounds.push(round);
        }
    }
    let complete = entries.iter().map(|(_, standing)| standing.rounds.len()).min().unwrap_or(0);
    entries.iter_mut().for_each(|(_, standing)| standing.rounds.truncate(complete));
    Ok(Outcome { standings: entries.into_iter().map(|(_, standing)| standing).collect(), storage })
}

/// The gateway and its rivals, with no rounds yet.
fn entries(wanted: &Rounds) -> Result<Vec<(Server, Standing)>, ServerError> {
    let own = Server::own(wanted.target.as_deref(), wanted.gateway.as_deref(), None)?;
    let servers = std::iter::once(own).chain(wanted.rival.iter().cloned());
    let checked = servers.map(|server| {
        server.installed()?;
        server.keeps_in(&wanted.store)?;
        server.supports(STRATEGY)?;
        let standing = Standing { server: server.name(), rounds: Vec::new() };
        Ok((server, standing))
    });
    checked.collect()
}

/// One round of one server.
async fn round<L: Load>(load: &L, server: &Server, wanted: &Rounds) -> Result<Figures, RoundError> {
    let running = server.start(STRATEGY, &wanted.store).await?;
    let address = running.target.address;
    let messages = Arc::new(messages(wanted.size));
    streams::create(&running.target, messages.plan.run, load.streams())
        .await
        .map_err(|error| RoundError::NoServer(server.kind(), address, error))?;
    let start = Instant::now() + Duration::from_secs_f64(wanted.warm_up);
    let tally = Arc::new(Tally::new(start..start + Duration::from_secs_f64(wanted.seconds))?);
    let work = on_a_thread(tally.deadline(), load.put(running.target.clone(), messages, tally.clone()));
    let (ended, cost) = tokio::join!(work, watch_cost(&running, &tally.window));
    running.end().await;
    match ended {
        // What came before says more.
        Err(none @ ThreadError::NoAnswer) => tally.troubles.note(none.to_string()),
        ended => ended?,
    }
    let troubles = tally.troubles.all();
    if !troubles.is_empty() {
        let troubles = troubles.iter().map(|(trouble, count)| format!("{trouble} (x{count})")).collect();
        return Err(RoundError::Troubles { server: server.name(), troubles });
    }
    let times = tally.times();
    if times.is_empty() {
        return Err(RoundError::Nothing(server.name(), L::COUNTS));
    }
    Ok(Figures::new(&times, wanted.seconds, cost.server, cost.generator))
}

/// Processor time within the measured time, in seconds.
struct Cost {
    /// `None` for a server that somebody else has started.
    server: Option<f64>,
    generator: f64,
}

async fn watch_cost(running: &Running, window: &Range<Instant>) -> Cost {
    let now = || {
        let server = running.process.as_ref().map(|process| process.processor_time().as_secs_f64());
        (server, processor_time(std::process::id()).as_secs_f64())
    };
    sleep_until(window.start).await;
    let (server_before, generator_before) = now();
    sleep_until(window.end).await;
    let (server, generator) = now();
    Cost {
        server: server.zip(server_before).map(|(after, before)| after - before),
        generator: generator - generator_before,
    }
}
