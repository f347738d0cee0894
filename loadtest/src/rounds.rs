//! Runs a load on the gateway and its rivals in turn, round by round, each time on a fresh server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::CreationError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::Rounds;
use crate::figures::{ServerFigures, in_short};
use crate::generator::stopped;
use crate::loads::{EngineCallError, EngineCalls, Load, Scene, ThreadError, messages};
use crate::servers::{Running, Server, ServerError, Storage};
use crate::streams;
use crate::tally::Tally;
use crate::target::Target;
use crate::wire::WireError;
use crate::wrk::WrkError;

/// Result of all rounds.
pub struct Outcome<F> {
    /// The gateway, then its rivals, with the rounds that all of them completed.
    pub standings: Vec<ServerFigures<F>>,
    /// Where the servers kept messages.
    pub storage: String,
}

/// Why the rounds failed.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// A server could not be started.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A server refused the creation of streams; holds its kind and address.
    #[error("no {0} at {1}: {2}")]
    NoServer(&'static str, SocketAddr, WireError),
    /// The load had errors on a server, so that its figures are worthless.
    #[error("{server}: {}", .troubles.join("; "))]
    Troubles {
        /// Name of the server.
        server: &'static str,
        /// The errors and their counts.
        troubles: Vec<String>,
    },
    /// Nothing completed in the measured time.
    #[error("{0}: no {1} in the measured time")]
    Nothing(&'static str, &'static str),
    /// From wrk.
    #[error(transparent)]
    Wrk(#[from] WrkError),
    /// From the engine that is called directly.
    #[error("--rival engine: {0}")]
    Engine(#[from] EngineCallError),
    /// From the generator's thread.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// From the histogram.
    #[error("the recorder: {0}")]
    Histogram(#[from] CreationError),
}

impl RoundError {
    /// Whether nothing could be measured at all.
    pub fn is_unusable(&self) -> bool {
        matches!(self, Self::Server(_) | Self::NoServer(..) | Self::Wrk(_) | Self::Engine(_))
    }
}

/// Runs all rounds. A `stop` of true ends them; the completed rounds are returned.
pub async fn rounds<L: Load>(
    load: &L,
    wanted: &Rounds,
    mut stop: watch::Receiver<bool>,
) -> Result<Outcome<L::Figures>, RoundError> {
    load.allows(wanted.seconds)?;
    if wanted.gateways > 1 && !matches!(wanted.store, Storage::Engine(..)) {
        return Err(ServerError::NothingShared.into());
    }
    let storage = wanted.storage().ready()?;
    let mut entries = entries(wanted, load)?;
    for (rival, _) in entries.iter().skip(1) {
        rival.rehearse(load.strategy(), &wanted.storage()).await?;
    }
    'all: for number in 0..wanted.rounds {
        // Each round begins with another server.
        let begins = number % entries.len().max(1);
        let (later, first) = entries.split_at_mut(begins);
        for (server, standing) in first.iter_mut().chain(later) {
            let round = tokio::select! {
                round = round(load, server, wanted) => round?,
                () = stopped(&mut stop) => break 'all,
            };
            let (name, said) = (server.name(), in_short(L::COUNTS, &round));
            eprintln!("round {} of {}: {name} {said}", number + 1, wanted.rounds);
            standing.rounds.push(round);
        }
    }
    let complete = entries.iter().map(|(_, standing)| standing.rounds.len()).min().unwrap_or(0);
    entries.iter_mut().for_each(|(_, standing)| standing.rounds.truncate(complete));
    Ok(Outcome { standings: entries.into_iter().map(|(_, standing)| standing).collect(), storage })
}

/// A server and its rounds.
type Entry<L> = (Server, ServerFigures<<L as Load>::Figures>);

/// Returns the gateway and its rivals, without rounds.
fn entries<L: Load>(wanted: &Rounds, load: &L) -> Result<Vec<Entry<L>>, ServerError> {
    let target = wanted.target.as_deref().map(|url| Target::parse(url, None)).transpose()?;
    let own = Server::own(target, wanted.gateway.as_deref(), None)?;
    let rivals = wanted.rival.iter().map(|rival| rival.server(&own)).collect::<Result<Vec<_>, _>>()?;
    let checked = std::iter::once(own).chain(rivals).map(|server| {
        server.installed()?;
        if matches!(server, Server::Engine(_)) && !load.calls_engine() {
            return Err(ServerError::NoEngine);
        }
        server.keeps_in(&wanted.storage())?;
        server.supports(load.strategy())?;
        let standing = ServerFigures { server: server.name(), rounds: Vec::new() };
        Ok((server, standing))
    });
    checked.collect()
}

async fn end(running: Option<Running>) {
    if let Some(running) = running {
        running.end().await;
    }
}

/// Runs one round on one server.
async fn round<L: Load>(load: &L, server: &Server, wanted: &Rounds) -> Result<L::Figures, RoundError> {
    let running = server.start(load.strategy(), &wanted.storage()).await?;
    let address = running.target.address;
    let messages = Arc::new(messages(wanted.size));
    streams::create(&running.target, messages.plan.run, load.streams(), load.messages_max())
        .await
        .map_err(|error| RoundError::NoServer(server.kind(), address, error))?;
    let start = Instant::now() + Duration::from_secs_f64(wanted.warm_up);
    let tally = Tally::new(start..start + Duration::from_secs_f64(wanted.seconds))?;
    let mut scene = Scene::new(&running, load.strategy(), messages, tally);
    let mut running = Some(running);
    if let (Server::Engine(_), Storage::Engine(url, instances)) = (server, wanted.storage()) {
        scene.engine = Some(EngineCalls::learn(&url, instances, &scene, load.streams()).await?.into());
        scene.servers.clear();
        // Its gateway would follow the news of the calls.
        end(running.take()).await;
    }
    let scene = Arc::new(scene);
    let came_to = load.put(scene.clone()).await;
    end(running).await;
    let figures = match came_to {
        // Earlier troubles are more specific, so this is one of several.
        Err(none @ ThreadError::NoAnswer) => {
            scene.tally.troubles.note(none.to_string());
            None
        }
        came_to => came_to?,
    };
    let troubles = scene.tally.troubles.all();
    if !troubles.is_empty() {
        let troubles = troubles.iter().map(|(trouble, count)| format!("{trouble} (x{count})")).collect();
        return Err(RoundError::Troubles { server: server.name(), troubles });
    }
    figures.ok_or(RoundError::Nothing(server.name(), L::COUNTS))
}
