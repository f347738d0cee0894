//! Options of `simulate`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::values::setting;
use crate::network::Profile;
use crate::simulate::{Day, Network, Reader, Simulation};

/// Options of `simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateOptions {
    /// Number of phones, each with a stream of its own
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=PHONES_MAX))]
    pub phones: u32,
    /// How the phones read: fallback (the client's choice), short-poll:INTERVAL, long-poll:HOLD, sse, ndjson or websocket, the last
    /// three also with :HEARTBEAT; repeatable [default: fallback, short-poll:5m, long-poll:25s, long-poll:4m, sse and websocket]
    #[arg(long, value_name = "STRATEGY")]
    pub strategy: Vec<Reader>,
    /// Networks of the day: a file in the format of src/simulate/day.toml [default: that one, with a home, a train and an office]
    #[arg(long, value_name = "FILE", value_parser = day)]
    pub day: Option<Day>,
    /// Mobile data behind this hostile network all day: NAME or NAME:TIME of src/network/profiles.toml
    #[arg(long, value_name = "NAME", conflicts_with = "day")]
    pub network: Option<Profile>,
    /// Hours of the day: 25 and 23 are those on which summer time ends and begins
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=168))]
    pub hours: u32,
    /// Time between two messages to a phone, on average (Poisson)
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = setting)]
    pub every: Duration,
    /// Seed of everything that is random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for simulate.json and simulate.html
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub output: PathBuf,
    /// Write what happened, a line each: seconds since midnight, phone, what, number
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// Hours of a day without a change to or from summer time.
const HOURS: u32 = 24;

/// Default time between two messages.
const EVERY: Duration = Duration::from_secs(600);

/// A phone has up to four sockets in memory.
const PHONES_MAX: i64 = 100_000;

/// The strategies that are simulated by default.
const DEFAULTS: [&str; 6] =
    ["fallback", "short-poll:5m", "long-poll:25s", "long-poll:4m", "sse", "websocket"];

impl SimulateOptions {
    /// Returns the default options with this number of phones.
    pub fn typical(phones: u32, seed: u64) -> Self {
        Self {
            phones,
            strategy: Vec::new(),
            day: None,
            network: None,
            hours: HOURS,
            every: EVERY,
            seed,
            output: PathBuf::new(),
            trace: None,
        }
    }

    /// Returns the simulations, one for each strategy.
    pub fn simulations(&self) -> impl Iterator<Item = Simulation> {
        let defaults = || DEFAULTS.iter().filter_map(|text| text.parse().ok()).collect();
        let readers = if self.strategy.is_empty() { defaults() } else { self.strategy.clone() };
        let length = Duration::from_secs(3600) * self.hours;
        let day = match &self.network {
            Some(behind) => Day::within(Network::mobile(behind.clone()), length),
            None => self.day.clone().unwrap_or_default().lasting(length),
        };
        readers.into_iter().map(move |reader| Simulation {
            day: day.clone(),
            phones: self.phones,
            reader,
            every: self.every,
            seed: self.seed,
            keeps_trace: self.trace.is_some(),
        })
    }
}

fn day(path: &str) -> Result<Day, String> {
    Day::read(Path::new(path)).map_err(|error| error.to_string())
}
