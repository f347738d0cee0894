//! Options of `simulate`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::values::setting;
use crate::network::Profile;
use crate::simulate::{Day, Fuzz, Network, Reader, Simulation};

/// Options of `simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateOptions {
    /// Number of phones, each with a stream of its own
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=PHONES_MAX))]
    pub phones: u32,
    /// How the phones read: fallback (the client's choice), short-poll:INTERVAL, long-poll:HOLD, sse, ndjson or websocket, the last
    /// three also with :HEARTBEAT; websocket:mars; repeatable [default: fallback, short-poll:5m, long-poll:25s, long-poll:4m, sse and websocket]
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
    /// Instead of a day, play short scenarios with faults, one for each seed: the gateway is killed, its store fails, connections are
    /// cut; every message that was acknowledged must arrive once and in order, and readers that wait must be woken
    #[arg(long, conflicts_with_all = ["phones", "strategy", "day", "network", "hours", "every", "output"])]
    pub fuzz: bool,
    /// Number of seeds [default: 10000, or 1 with --seed]
    #[arg(long, value_name = "N", requires = "fuzz", value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// Seed of everything that is random; with --fuzz the first one [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Folder for simulate.json and simulate.html
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub output: PathBuf,
    /// Write what happened, a line each: seconds since the begin, phone, what, number [default of FILE: the standard output]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/dev/stdout")]
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

/// Seeds of `--fuzz` by default.
const SEEDS: u64 = 10_000;

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
            fuzz: false,
            seeds: None,
            seed: Some(seed),
            output: PathBuf::new(),
            trace: None,
        }
    }

    /// Returns the scenarios with faults, if they are wanted.
    pub fn fuzz(&self) -> Option<Fuzz> {
        let count = self.seeds.unwrap_or(if self.seed.is_some() { 1 } else { SEEDS });
        let first = self.seed.unwrap_or(1);
        self.fuzz.then_some(Fuzz { first, count, keeps_trace: self.trace.is_some() })
    }

    /// Returns the simulations, one for each strategy.
    pub fn simulations(&self) -> impl Iterator<Item = Simulation> {
        let defaults = || DEFAULTS.iter().filter_map(|text| text.parse().ok()).collect();
        let readers = if self.strategy.is_empty() { defaults() } else { self.strategy.clone() };
        let length = Duration::from_secs(3600) * self.hours;
        let day = match &self.network {
            Some(behind) => Day::within(Network::mobile_behind(behind.clone()), length),
            None => self.day.clone().unwrap_or_default().lasting(length),
        };
        readers.into_iter().map(move |reader| Simulation {
            day: day.clone(),
            phones: self.phones,
            reader,
            every: self.every,
            seed: self.seed.unwrap_or(1),
            keeps_trace: self.trace.is_some(),
        })
    }
}

fn day(path: &str) -> Result<Day, String> {
    Day::read(Path::new(path)).map_err(|error| error.to_string())
}
