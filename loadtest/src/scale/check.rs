//! Compares what is predicted for a number of clients with a real gateway that serves as many.

use std::time::Duration;

use serde::Serialize;

use super::events::Events;
use super::measure::Bench;
use super::need::{Machine, Need};
use super::{PHONES, ScaleError};
use crate::data;
use crate::model::server_load::ServerCosts;
use crate::run::RunError;
use crate::simulate::{Day, Network, Reader, Simulation};
use crate::strategies::Strategy;

/// Messages of a simulation: their number has a standard deviation of 1.4 %.
const MESSAGES: f64 = 5000.0;

/// Shortest and longest simulation.
const LENGTHS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(24 * 3600)];

/// A strategy with a number of clients.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// The strategy as on the command line.
    pub strategy: String,
    /// Number of clients.
    pub clients: u32,
    /// Messages a second to all of them that were drawn.
    pub messages: f64,
    /// Messages that did not arrive.
    pub lost: u64,
    /// Busy cores: predicted and measured.
    pub cores: Pair,
    /// Bytes of the gateway's memory, without what it takes without clients.
    pub memory: Pair,
    /// Requests a second.
    pub requests: Pair,
    /// Bytes a second in both directions, with the headers of packets.
    pub bytes: Pair,
}

/// A predicted figure and the measured one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// From the simulation and the costs of events.
    pub predicted: f64,
    /// From the real gateway.
    pub measured: f64,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// From the prediction.
    #[error(transparent)]
    Scale(#[from] ScaleError),
    /// From a run of the real gateway.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The embedded table of costs cannot be read, which a test excludes.
    #[error("src/model/server_load.toml cannot be read")]
    NoCosts,
    /// The costs of the events could not be told apart.
    #[error("{0}: the runs do not tell what its events cost; use more --seconds, or a quieter machine")]
    Vague(String),
}

impl Pair {
    /// How far the prediction is from what was measured, as a part of it; `None` if both are next to nothing.
    pub fn deviation(self) -> Option<f64> {
        (self.measured.abs() > 1e-3).then(|| self.predicted / self.measured - 1.0)
    }
}

/// Measures the costs of the events of all forms anew, and puts them into `costs`.
pub async fn measure(bench: &Bench, readers: &[Reader], costs: &mut ServerCosts) -> Result<(), CheckError> {
    costs.connection = bench.connection().await?;
    for &reader in readers {
        let known = costs.events(reader.form()).map_or(0.0, |known| known.request);
        let measured = bench.costs(reader, known).await?;
        costs.set_events(reader.form(), measured.ok_or_else(|| CheckError::Vague(reader.to_string()))?);
    }
    Ok(())
}

/// Predicts what `clients` clients cost, and measures it.
pub async fn check(
    bench: &Bench,
    reader: Reader,
    clients: u32,
    costs: &ServerCosts,
) -> Result<Checked, CheckError> {
    let strategy = reader.strategy().unwrap_or(Strategy::WebSocket(None));
    let run = bench.run(strategy, clients, bench.rate).await?;
    let seconds = bench.measured.as_secs_f64();
    // What was drawn, so that chance does not count as a deviation.
    let messages = run.deliveries.intended as f64 / seconds;
    let each = messages.max(0.1) / f64::from(clients);
    let [shortest, longest] = LENGTHS;
    let length = Duration::from_secs_f64(MESSAGES / each / f64::from(PHONES)).clamp(shortest, longest);
    let simulation = Simulation {
        day: Day::within(Network::direct(), length),
        phones: PHONES,
        reader,
        every: Duration::from_secs_f64(1.0 / each),
        seed: 1,
        keeps_trace: false,
    };
    let simulated = tokio::task::spawn_blocking(move || simulation.run()).await;
    let simulated = simulated.map_err(|error| ScaleError::Simulation(std::io::Error::other(error).into()))?;
    let events = Events::of(&simulated.map_err(ScaleError::from)?, reader, length);
    let need = Need::of(reader, clients, &events, costs, &Machine::this());
    let need = need.ok_or_else(|| ScaleError::NotMeasured(reader.form().to_owned()))?;
    Ok(compared(&need, &run, clients, messages))
}

fn compared(need: &Need, run: &data::Run, clients: u32, messages: f64) -> Checked {
    let all = f64::from(clients);
    let cost = run.server_cost.as_ref();
    let pair = |predicted, measured| Pair { predicted, measured };
    let bytes = run.bytes.up_with_packets + run.bytes.down_with_packets;
    Checked {
        strategy: need.strategy.clone(),
        clients,
        messages,
        lost: run.deliveries.lost,
        cores: pair(need.cores, cost.map_or(0.0, |cost| cost.cpu_per_client_second * all / 1e6)),
        memory: pair(need.memory, cost.map_or(0.0, |cost| cost.user_bytes_per_client * all)),
        requests: pair(need.requests, run.requests.per_client_hour * all / 3600.0),
        bytes: pair(need.bytes, bytes * all / 3600.0),
    }
}
