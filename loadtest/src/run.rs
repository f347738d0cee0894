//! One run: one strategy on one server, from a fresh server to a line of the report.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::data;
use crate::generator::{GeneratorError, stopped};
use crate::generators::{Generators, Task};
use crate::measured::{Measured, ratio};
use crate::network::Route;
use crate::predicted::prediction;
use crate::servers::{Running, Server, ServerError, Storage};
use crate::sockets::socket_bytes;
use crate::strategies::Strategy;
use crate::streams;
use crate::wire::WireError;
use crate::workload::{Plan, Workload};

/// Above this share of late sends, a run measures its generator rather than the server.
const LATE_SHARE_MAX: f64 = 0.01;

/// Above this 99th percentile of the lateness, the generator affects the latencies.
const LATENESS_P99_MAX: Duration = Duration::from_millis(2);

/// Deviations of requests and mean latency from the formulas above which a run gets a note. Differences below a millisecond are
/// ignored: they are the machine's own.
const REQUESTS_DEVIATION_MAX: f64 = 0.03;
const LATENCY_DEVIATION_MAX: f64 = 0.1;
const LATENCY_OFF_MICROS_MAX: f64 = 1000.0;

/// Time between the last connect and the start, in which every process gets ready.
const RUN_UP: Duration = Duration::from_millis(50);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A server could not be started.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A middlebox could not listen.
    #[error("the middlebox does not listen: {0}")]
    Network(#[from] std::io::Error),
    /// A server refused the creation of streams; holds its kind and address.
    #[error("no {0} at {1}: {2}")]
    NoServer(&'static str, SocketAddr, WireError),
    /// From a generator.
    #[error(transparent)]
    Generator(#[from] GeneratorError),
    /// No message was published in the measured time.
    #[error(
        "no message was published in the {0:?} that were measured, so there is no result; use a higher --rate or more \
         --seconds"
    )]
    NothingPublished(Duration),
    /// Too many sends were late: the results would measure the generator.
    #[error(
        "the generator fell behind: {:.1} % of {intended} sends were over {late_after:?} late (at most 1 % may be), \
         1 % of them over {p99:.1?}; use a quieter machine, a lower --rate or fewer --clients",
        share * 100.0
    )]
    FellBehind {
        /// Share of late sends.
        share: f64,
        /// Number of sends.
        intended: u64,
        /// A send counts as late after this.
        late_after: Duration,
        /// 99th percentile of the lateness.
        p99: Duration,
    },
}

impl RunError {
    /// Whether further runs are pointless.
    pub fn is_of_the_server(&self) -> bool {
        matches!(self, Self::Server(_) | Self::NoServer(..))
    }
}

/// Runs a strategy. A `stop` of true ends it early, with the measurements until then.
pub async fn run(server: &Server, task: &Task, stop: watch::Receiver<bool>) -> Result<data::Run, RunError> {
    let Task { plan, strategy, .. } = task;
    let running = server.start_over(task.transport, *strategy, &Storage::Memory).await?;
    let idle_memory = running.process.as_ref().map_or(0, |process| process.family().memory_bytes());
    streams::create(&running.target, plan.run, plan.streams, None)
        .await
        .map_err(|error| RunError::NoServer(server.kind(), running.target.address, error))?;
    let route = match &task.network {
        Some(network) => Some(Route::to(&running.target, network)?),
        None => None,
    };
    let reading = route.as_ref().map_or(&running.target, |route| &route.target);
    let server_time = || running.process.as_ref().map(|process| process.family().processor_time());
    let before_opening = server_time();
    let generators = Generators::ready(&running.target, reading, task, stop.clone()).await?;
    let opening_time = server_time().zip(before_opening).map(|(after, before)| after.saturating_sub(before));
    let start = Instant::now() + RUN_UP;
    let mut stop_watching = stop;
    let watching = async {
        tokio::select! {
            cost = watch_cost(&running, start, plan) => Some(cost),
            () = stopped(&mut stop_watching) => None,
        }
    };
    let (measured, cost) = tokio::join!(generators.begin(start), watching);
    let measured = measured?;
    if measured.measured.is_zero() {
        return Err(GeneratorError::Stopped.into());
    }
    match measured.lateness.share() {
        Some(share) if share > LATE_SHARE_MAX => {
            let (intended, p99) = (measured.lateness.intended, measured.lateness.p99);
            return Err(RunError::FellBehind { share, intended, late_after: task.late_after, p99 });
        }
        None if !measured.interrupted => return Err(RunError::NothingPublished(plan.measured)),
        _ => {}
    }
    let clients = f64::from(plan.clients.max(1));
    let server_cost = cost.flatten().map(|cost| {
        let micros = cost.processor.as_secs_f64() * 1e6;
        data::ServerCost {
            cpu_per_client_second: micros / (clients * plan.measured.as_secs_f64()),
            cpu_per_delivery: ratio(micros, measured.deliveries.delivered as f64),
            user_bytes_per_client: cost.memory_bytes.saturating_sub(idle_memory) as f64 / clients,
            kernel_bytes_per_client: cost.socket_bytes.map(|bytes| bytes as f64 / clients),
        }
    });
    let mut run = line(server, task, measured, server_cost);
    run.opening.cpu = opening_time.map(|time| time.as_secs_f64() * 1e6 / clients);
    Ok(run)
}

/// Builds the line of the report.
fn line(
    server: &Server,
    task: &Task,
    measured: Measured,
    server_cost: Option<data::ServerCost>,
) -> data::Run {
    let Task { plan, strategy, transport, .. } = task;
    let strategy = *strategy;
    let generator_cores = measured.processor.div_duration_f64(measured.measured);
    let mut notes: Vec<String> =
        measured.troubles.iter().map(|(trouble, count)| format!("{count} times {trouble}")).collect();
    notes.extend(distortion(generator_cores, measured.lateness.p99));
    notes.extend(too_short(strategy, plan.measured));
    let (latency, requests) = (measured.latency(), measured.requests(plan.clients));
    let rate = Workload::new(plan.clone()).drawn_rate();
    let round_trip = measured.round_trips.mean();
    let prediction = prediction(strategy, rate, round_trip, &requests, latency.as_ref());
    notes.extend(prediction.and_then(|prediction| disagreement(&prediction, latency.as_ref())));
    data::Run {
        server: server.name().to_owned(),
        strategy: strategy.to_string(),
        transport: transport.label().map(str::to_owned),
        interrupted: measured.interrupted,
        deliveries: measured.deliveries,
        latency,
        requests,
        bytes: measured.bytes(plan.clients),
        wakes: measured.wakes(plan.clients),
        connections: measured.totals.connections,
        opening: measured.opening(),
        server_cost,
        energy: measured.mean_energy(),
        prediction,
        generator_cores,
        late_sends: measured.lateness.share(),
        bands: BTreeMap::new(),
        best: Vec::new(),
        notes,
    }
}

/// Returns a note if the generator's own work affects the measurement.
fn distortion(generator_cores: f64, lateness_p99: Duration) -> Option<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let busy = generator_cores > cores / 2.0;
    let late = lateness_p99 > LATENESS_P99_MAX;
    (busy || late).then(|| {
        format!(
            "the load generator used {generator_cores:.2} of {cores} cores and its p99 lateness was \
             {lateness_p99:.1?}: latencies and CPU time include its own"
        )
    })
}

/// Returns a note if the measured figures deviate from the formulas.
fn disagreement(prediction: &data::Prediction, latency: Option<&data::Latency>) -> Option<String> {
    let off_micros = (latency?.mean - prediction.mean_latency).abs();
    let (by_requests, by_latency) = (prediction.requests_deviation?, prediction.latency_deviation?);
    let requests = by_requests.abs() > REQUESTS_DEVIATION_MAX;
    let latency = by_latency.abs() > LATENCY_DEVIATION_MAX && off_micros > LATENCY_OFF_MICROS_MAX;
    (requests || latency).then(|| {
        format!(
            "this run deviates from the formulas: requests by {:+.1} %, the mean latency by {:+.1} %",
            by_requests * 100.0,
            by_latency * 100.0
        )
    })
}

/// Returns a note if the measured time is so short that chance decides the number of heartbeats in it.
fn too_short(strategy: Strategy, measured: Duration) -> Option<String> {
    let heartbeat = strategy.heartbeat().filter(|heartbeat| *heartbeat * 2 > measured)?;
    Some(format!(
        "measured for {measured:?}, which is less than two heartbeats of {heartbeat:?}: where messages are rare, bytes and \
         energy differ from those of a longer run"
    ))
}

/// Resources of the server in the measured time.
struct Cost {
    processor: Duration,
    memory_bytes: u64,
    socket_bytes: Option<u64>,
}

/// Measures the server's cost in the measured time; `None` for a server that this program did not start. The generators keep
/// their connections open a moment longer, so that sockets are still counted.
async fn watch_cost(running: &Running, start: Instant, plan: &Plan) -> Option<Cost> {
    let server = running.process.as_ref()?.family();
    let window = plan.window();
    sleep_until(start + window.start).await;
    let before = server.processor_time();
    sleep_until(start + window.end).await;
    let (processor, memory_bytes) = (server.processor_time().saturating_sub(before), server.memory_bytes());
    let address = running.target.address;
    let socket_bytes = tokio::task::spawn_blocking(move || socket_bytes(&[address])).await.ok().flatten();
    Some(Cost { processor, memory_bytes, socket_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_deviates_from_the_formulas_gets_a_note() {
        let note = |requests: f64, predicted: f64, mean: f64| {
            let latency_deviation = (mean - predicted) / predicted;
            let prediction = data::Prediction {
                requests_per_client_hour: 100.0,
                mean_latency: predicted,
                requests_deviation: Some(requests),
                latency_deviation: Some(latency_deviation),
            };
            let [p50, p90, p95, p99, p999, max] = [mean; 6];
            let latency = data::Latency { mean, p50, p90, p95, p99, p999, max, cdf: Vec::new() };
            disagreement(&prediction, Some(&latency)).is_some()
        };
        assert!(!note(0.029, 500_000.0, 540_000.0));
        assert!(!note(0.0, 400.0, 1_300.0), "within a millisecond");
        assert!(note(-0.031, 500_000.0, 500_000.0));
        assert!(note(0.0, 500_000.0, 560_000.0));
    }
}
