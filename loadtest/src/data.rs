//! The measured figures of a comparison, in the shape of `report.json`; the table and the page are made from them.
//!
//! Durations are microseconds, sizes are bytes, energies are joules. "Per client-hour" is per client and per hour of the
//! measured time (without warm-up). `loadtest/README.md` defines every figure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One invocation of the command and its results.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this format.
    pub format: u32,
    /// The command line.
    pub command: String,
    /// When it began (RFC 3339).
    pub began: String,
    /// The machine it ran on.
    pub machine: Machine,
    /// The workload of every run.
    pub workload: Workload,
    /// The answer in a few sentences; `None` if nothing could be compared.
    #[serde(default)]
    pub verdict: Option<String>,
    /// One per strategy, server and setting, in the order of the table: medians over the repeats.
    pub runs: Vec<Run>,
    /// A simulated day of phones beside the measured runs, if there was one.
    #[serde(default)]
    pub day: Option<SimulatedDay>,
    /// Remarks for the reader: a rival that is not installed, an interrupted run, a generator that was too busy.
    pub notes: Vec<String>,
}

/// The machine and its installed programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Number of logical cores.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Name and version of the kernel.
    pub kernel: String,
    /// Name and version of each program that took part.
    pub versions: Vec<(String, String)>,
}

/// The workload of every run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Number of reading clients.
    pub clients: u32,
    /// Streams that the clients share; `None` if each has its own.
    pub streams_shared: Option<u32>,
    /// Messages per second published to each stream, on average (Poisson).
    pub rate: f64,
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Measured seconds.
    pub seconds: f64,
    /// Seconds of warm-up before the measured time.
    pub warm_up_seconds: f64,
    /// Seed of the random schedule.
    pub seed: u64,
    /// How many times each run was repeated; runs of different strategies took turns.
    pub repeat: u32,
    /// Network profile between clients and server, if any.
    pub network: Option<String>,
}

/// One strategy on one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// `pollgate` or the rival's name.
    pub server: String,
    /// The strategy as on the command line, such as `short-poll:1s`, `long-poll:25s`, `sse`.
    pub strategy: String,
    /// What carried its requests, such as `HTTP/2 and TLS`; `None` is HTTP/1.1 without TLS, and what is not HTTP.
    #[serde(default)]
    pub transport: Option<String>,
    /// Whether the run was cut short.
    pub interrupted: bool,
    /// Counts of deliveries.
    pub deliveries: Deliveries,
    /// From the intended publish time to the receipt; `None` if nothing arrived.
    pub latency: Option<Latency>,
    /// Counts of requests.
    pub requests: Requests,
    /// Wakes of clients that sleep; `None` for other strategies.
    #[serde(default)]
    pub wakes: Option<Wakes>,
    /// Bytes on the wire per client-hour.
    pub bytes: Bytes,
    /// TCP connections that were opened, over all clients.
    pub connections: u64,
    /// Cost of opening a connection.
    #[serde(default)]
    pub opening: Opening,
    /// Cost of the server; `None` for a `--target` on another machine.
    pub server_cost: Option<ServerCost>,
    /// Energy of a phone's radio, one entry per radio profile.
    pub energy: Vec<Energy>,
    /// Figures of the cost model's formulas, for short and long poll.
    pub prediction: Option<Prediction>,
    /// Processor time of the load generator, as a share of one core.
    pub generator_cores: f64,
    /// Late sends as a share of the intended ones (the run fails above 0.01); `None` if none was intended.
    pub late_sends: Option<f64>,
    /// Range of each compared figure over the repeats, by its name (`report/columns.rs`); empty for a run that was not repeated.
    #[serde(default)]
    pub bands: BTreeMap<String, Band>,
    /// Names of the figures that are the best of all runs, or that the repeats do not tell from the best.
    #[serde(default)]
    pub best: Vec<String>,
    /// Remarks about this run.
    pub notes: Vec<String>,
}

impl Run {
    /// Returns the energy of a radio by its name.
    pub fn of_radio(&self, name: &str) -> Option<&Energy> {
        self.energy.iter().find(|energy| energy.radio == name)
    }
}

/// Range of a figure over repeated runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Least value.
    pub least: f64,
    /// Greatest value.
    pub greatest: f64,
}

/// A simulated day of phones (`simulate`): the code of gateway and client is real, networks and radios are models.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedDay {
    /// Number of phones.
    pub phones: u32,
    /// Hours of the day.
    pub hours: f64,
    /// Seconds between two messages to a phone, on average.
    pub seconds_between_messages: f64,
    /// One per strategy.
    pub rows: Vec<DayRow>,
}

/// A strategy on a simulated day. Requests, connections, bytes and energy are those of one phone, on average.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DayRow {
    /// The strategy as on the command line.
    pub strategy: String,
    /// Messages that the gateway acknowledged.
    pub published: u64,
    /// Messages that did not arrive, or that the gateway refused.
    pub lost: u64,
    /// Messages that arrived again, or after a later one.
    pub doubled: u64,
    /// Seconds from publishing to the arrival: median, 95th percentile and longest; `None` if nothing arrived.
    pub delays: Option<[f64; 3]>,
    /// HTTP requests.
    pub requests: f64,
    /// Connections that were opened.
    pub connections: f64,
    /// Connections that a network dropped in silence.
    pub forgotten: f64,
    /// Content bytes in both directions.
    pub bytes: f64,
    /// Joules of the radios above sleep, by the radio; `None` for a radio without a profile.
    pub joules: Vec<(String, Option<f64>)>,
    /// Share of a battery that all radios took; `None` if one of them has no profile.
    pub battery: Option<f64>,
}

impl DayRow {
    /// Whether its cost can be compared with that of other strategies.
    pub fn is_whole(&self) -> bool {
        self.published > 0 && self.lost + self.doubled == 0
    }
}

/// Counts of deliveries: messages times readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deliveries {
    /// Deliveries that should have arrived.
    pub intended: u64,
    /// Deliveries that arrived, each counted once.
    pub delivered: u64,
    /// Deliveries that did not arrive.
    pub lost: u64,
    /// Deliveries that arrived again.
    pub doubled: u64,
    /// Deliveries that arrived after a later message of their stream.
    pub out_of_order: u64,
}

impl Deliveries {
    /// Whether a latency and a cost can be compared with those of other runs: a strategy that loses more than 1 % of the
    /// messages is cheap and fast only because of what it does not deliver.
    pub fn are_comparable(&self) -> bool {
        self.delivered > 0 && self.lost.saturating_mul(100) <= self.intended
    }
}

/// A latency distribution, in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// 50th percentile.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The largest.
    pub max: f64,
    /// The distribution as points (microseconds, share of deliveries at or below), ascending.
    pub cdf: Vec<(f64, f64)>,
}

/// Requests of the readers.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Requests per client-hour.
    pub per_client_hour: f64,
    /// Requests per client-hour whose answer held no message.
    pub empty_per_client_hour: f64,
    /// Requests per delivered message; `None` if nothing arrived.
    pub per_delivery: Option<f64>,
}

/// Wakes of clients that sleep.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wakes {
    /// Wakes per client-hour.
    pub per_client_hour: f64,
    /// Median time from the arrival of a wake to the answer of the poll after it, in microseconds.
    pub to_poll_p50: f64,
    /// The 99th percentile of it.
    pub to_poll_p99: f64,
}

/// Bytes of the readers per client-hour.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bytes {
    /// TCP payload from clients.
    pub up: f64,
    /// TCP payload to clients.
    pub down: f64,
    /// Bytes from clients with the TCP and IP headers of each packet, acknowledgements included.
    pub up_with_packets: f64,
    /// Bytes to clients with the TCP and IP headers of each packet, acknowledgements included.
    pub down_with_packets: f64,
}

/// Cost of opening a connection until its client is ready: handshakes, logins, and the requests of forms whose response does not end.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// Bytes in both directions with the TCP and IP headers of each packet; `None` if no connection was opened.
    pub bytes: Option<f64>,
    /// Microseconds of the server's processor time per client; `None` for a server that was not started.
    pub cpu: Option<f64>,
}

/// Resources that the server's process used.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerCost {
    /// Microseconds of processor time per client and second.
    pub cpu_per_client_second: f64,
    /// Microseconds of processor time per delivery; `None` if nothing arrived.
    pub cpu_per_delivery: Option<f64>,
    /// Proportional set size per client, above that of the idle server.
    pub user_bytes_per_client: f64,
    /// Bytes of the kernel's socket buffers per client; `None` without `ss`.
    pub kernel_bytes_per_client: Option<f64>,
}

/// Energy of a phone's radio under one profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Energy {
    /// Name of the profile, such as `LTE`.
    pub radio: String,
    /// Joules per client-hour above an idle radio.
    pub joules_per_client_hour: f64,
    /// Share of a 4000 mAh, 3.85 V battery that one day takes.
    pub battery_per_day: f64,
}

/// Figures of the cost model's formulas, and the deviation of the measured figures: (measured - predicted) / predicted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    /// Predicted requests per client-hour.
    pub requests_per_client_hour: f64,
    /// Predicted mean latency in microseconds.
    pub mean_latency: f64,
    /// Deviation of the requests.
    pub requests_deviation: Option<f64>,
    /// Deviation of the mean latency; `None` if nothing arrived.
    pub latency_deviation: Option<f64>,
}
