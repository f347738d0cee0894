//! The command `recommend`: finds the cheapest strategies that keep a promise, and simulates them if that is wanted.

use std::cell::RefCell;
use std::time::Duration;

use crate::cli::Promised;
use crate::model::candidate::{Figures, Overheads};
use crate::model::energy::per_client_hour;
use crate::model::network::NetworkError;
use crate::model::radio::{RadioError, Radios};
use crate::model::recommend::{Basis, Choice, Promise, Recommendation, Simulated, Source, recommend};
use crate::simulate::{Day, Network, Reader, Simulation, SimulationError};

/// Why `recommend` has no result.
#[derive(Debug, thiserror::Error)]
pub enum AdviceError {
    /// From `--network`.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// From `--radio`.
    #[error(transparent)]
    Radio(#[from] RadioError),
    /// From `--simulate`.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    /// A simulation needs a radio that it knows.
    #[error("a simulation has the built-in radios alone, and {0:?} is none of them")]
    SimulatedRadio(String),
}

/// Result of `recommend`, with a remark for the user.
pub struct Advice {
    /// The strategies, cheapest first.
    pub recommendation: Recommendation,
    /// Set if the given report has no run that fits the promise.
    pub note: Option<String>,
}

/// Simulated clients of each strategy.
const CLIENTS: u32 = 5;

/// Finds the cheapest strategies that keep the promise.
pub fn advise(wanted: &Promised) -> Result<Advice, AdviceError> {
    let radios = wanted.radios.clone().unwrap_or_default();
    let promise = wanted.promise(radios.radio(wanted.radio.as_deref())?.clone())?;
    let overheads = Overheads::default();
    let basis = Basis { measured: wanted.report.as_ref(), overheads: &overheads, radios: &radios };
    let recommendation = match wanted.simulate {
        None => recommend(&promise, basis, None),
        Some(hours) => simulated(&promise, basis, Duration::from_secs(3600) * hours)?,
    };
    let is_measured = recommendation.kept.iter().any(|choice| choice.source == Source::Measured);
    let note = wanted.report.as_ref().filter(|_| !is_measured).map(|report| {
        format!(
            "the report has no run that keeps this promise: it was measured at {} messages a second over the network \
             {:?}, and the promise is for {} over {:?}",
            report.workload.rate,
            report.workload.network.as_deref().unwrap_or("none"),
            promise.rate,
            promise.path().network.name
        )
    });
    Ok(Advice { recommendation, note })
}

/// Recommends by simulated figures, for strategies that the simulation has a model of.
fn simulated(promise: &Promise, basis: Basis<'_>, length: Duration) -> Result<Recommendation, AdviceError> {
    let radio = &promise.radio.name;
    if Radios::default().radio(Some(radio)).is_err() {
        return Err(AdviceError::SimulatedRadio(radio.clone()));
    }
    let failure = RefCell::new(None);
    let simulate = |choice: &Choice| match simulate(promise, choice, length)? {
        Ok(simulated) => Some(simulated),
        Err(error) => {
            failure.replace(Some(error));
            None
        }
    };
    let recommendation = recommend(promise, basis, Some(&simulate));
    match failure.take() {
        None => Ok(recommendation),
        Some(error) => Err(error.into()),
    }
}

/// Simulates the clients of one strategy over the promise's path. `None`: there is no model of the strategy, or no message in that
/// time.
///
/// The simulated network has no proxies: what a proxy ends after a time without a byte, it forgets as a NAT does. How long a radio takes to
/// wake up, and the wait for the poll of an API, are added by formula.
fn simulate(
    promise: &Promise,
    choice: &Choice,
    length: Duration,
) -> Option<Result<Simulated, SimulationError>> {
    let reader: Reader = choice.strategy.parse().ok()?;
    let path = promise.path();
    let idle = [path.network.idle, path.network.next_byte].into_iter().flatten().min();
    let network = Network {
        name: path.network.name,
        radio: promise.radio.name.clone(),
        round_trip: path.round_trip.as_secs_f64(),
        jitter: 0.0,
        loss: 0.0,
        nat_idle: idle.map(|idle| idle.as_secs_f64()),
        behind: None,
    };
    let simulation = Simulation {
        day: Day::within(network, length),
        phones: CLIENTS,
        reader,
        every: Duration::try_from_secs_f64(promise.rate.recip()).unwrap_or(length),
        seed: 1,
        keeps_trace: false,
    };
    let outcome = match simulation.run() {
        Ok(outcome) => outcome,
        Err(error) => return Some(Err(error)),
    };
    let (lost, published) = (outcome.lost(), outcome.published);
    if published == 0 {
        return None;
    }
    let Some([p95]) = outcome.latencies.quantiles([0.95]).filter(|_| lost * 100 <= published) else {
        return Some(Ok(Simulated::Lost { lost, published }));
    };
    let client_seconds = length.as_secs_f64() * f64::from(CLIENTS);
    let joules: f64 = outcome.joules.values().sum();
    Some(Ok(Simulated::Delivered(Figures {
        p95: p95 + choice.waits,
        requests_per_client_hour: 3600.0 * outcome.requests as f64 / client_seconds,
        // Messages of a simulation are short.
        bytes_per_client_hour: choice.figures.bytes_per_client_hour,
        energy: vec![per_client_hour(&promise.radio.name, joules / client_seconds)],
        wakes_per_client_hour: None,
    })))
}

#[cfg(test)]
mod tests;
