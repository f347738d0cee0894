//! What a comparison has measured, as `report.json` holds it and the table and the page show it.
//!
//! Durations are microseconds, sizes bytes, energies joules; "per client-hour" is per client and per hour of the
//! measured time (without warm-up). `loadtest/README.md` defines every figure.

use serde::{Deserialize, Serialize};

/// One call of the command and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Of this format.
    pub format: u32,
    /// The exact command.
    pub command: String,
    /// When it began (RFC 3339).
    pub began: String,
    /// Where it ran.
    pub machine: Machine,
    /// What every run had to do.
    pub workload: Workload,
    /// One a strategy, server and setting, in the order of the table: medians over the repeats.
    pub runs: Vec<Run>,
    /// What a reader has to know: rivals that are not installed, an interrupted run, a generator that was too busy.
    pub notes: Vec<String>,
}

/// The machine and what is installed on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Its logical cores.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's name and version.
    pub kernel: String,
    /// Each program that took part, with its version.
    pub versions: Vec<(String, String)>,
}

/// What every run had to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Clients that read.
    pub clients: u32,
    /// Streams that they share; `None`: each has its own.
    pub streams_shared: Option<u32>,
    /// Messages a second that are published to each stream, on average (Poisson).
    pub rate: f64,
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Seconds before that.
    pub warm_up_seconds: f64,
    /// Of the random schedule.
    pub seed: u64,
    /// How often each run was done; runs of different strategies took turns.
    pub repeat: u32,
    /// The network profile between clients and server, if there was one.
    pub network: Option<String>,
}

/// One strategy on one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// `pollgate` or the rival's name.
    pub server: String,
    /// As on the command line, such as `short-poll:1s`, `long-poll:25s`, `sse`.
    pub strategy: String,
    /// Whether it was cut short.
    pub interrupted: bool,
    /// What arrived.
    pub deliveries: Deliveries,
    /// From the intended publish time to the receipt.
    pub latency: Latency,
    /// What was asked.
    pub requests: Requests,
    /// What went over the wire, a client-hour.
    pub bytes: Bytes,
    /// TCP connections that were opened, all clients together.
    pub connections: u64,
    /// What it cost the server; `None` for a target that runs elsewhere.
    pub server_cost: Option<ServerCost>,
    /// What it cost a phone, one entry a radio profile.
    pub energy: Vec<Energy>,
    /// What the formulas say, for short and long poll.
    pub prediction: Option<Prediction>,
    /// Processor time of the load generator, as a share of one core.
    pub generator_cores: f64,
    /// Sends that went out late, as a share of the intended ones (the run fails above 0.01).
    pub late_sends: f64,
    /// What a reader has to know about this run.
    pub notes: Vec<String>,
}

/// Counts of messages times readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deliveries {
    /// That should have arrived.
    pub intended: u64,
    /// That arrived, each counted once.
    pub delivered: u64,
    /// That did not.
    pub lost: u64,
    /// That arrived once more.
    pub doubled: u64,
    /// That arrived behind a later one of their stream.
    pub out_of_order: u64,
}

/// A distribution, in microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// Percentiles.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The largest.
    pub max: f64,
    /// The distribution as points (microseconds, share of deliveries at or below), rising.
    pub cdf: Vec<(f64, f64)>,
}

/// Requests of the readers.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// A client-hour.
    pub per_client_hour: f64,
    /// Of those, the ones whose answer held no message.
    pub empty_per_client_hour: f64,
    /// A delivered message.
    pub per_delivery: f64,
}

/// Bytes of the readers, a client-hour.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bytes {
    /// TCP payload from clients.
    pub up: f64,
    /// TCP payload to clients.
    pub down: f64,
    /// The same with the headers of TCP and IP for each packet, acknowledgements included.
    pub up_with_packets: f64,
    /// To clients, likewise.
    pub down_with_packets: f64,
}

/// What the server's process used.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerCost {
    /// Microseconds of processor time a client and second.
    pub cpu_per_client_second: f64,
    /// Microseconds of processor time a delivery.
    pub cpu_per_delivery: f64,
    /// Proportional set size a client, above that of the idle server.
    pub user_bytes_per_client: f64,
    /// Socket buffers in the kernel, a client.
    pub kernel_bytes_per_client: f64,
}

/// A phone's radio under one profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Energy {
    /// The profile, such as `LTE`.
    pub radio: String,
    /// Joules a client-hour above an idle radio.
    pub joules_per_client_hour: f64,
    /// Share of a 4000 mAh, 3.85 V battery that a day of it takes.
    pub battery_per_day: f64,
}

/// What the formulas of the cost model say, and how far the measured figure is from it: (measured - predicted) /
/// predicted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    /// Requests a client-hour.
    pub requests_per_client_hour: f64,
    /// Mean latency in microseconds.
    pub mean_latency: f64,
    /// Of the requests.
    pub requests_deviation: f64,
    /// Of the mean latency.
    pub latency_deviation: f64,
}
