//! Options of `scale`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{rate_above_zero, seconds};
use crate::scale::Scale;
use crate::scale::need::Machine;
use crate::simulate::{Day, Reader};

/// Options of `scale`.
#[derive(Debug, Clone, Args)]
pub struct ScaleOptions {
    /// Number of clients
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Messages to each client, a second or as '1 per 10 min'
    #[arg(long, value_name = "RATE", default_value = "1 per 10 min", value_parser = rate_above_zero)]
    pub rate: f64,
    /// How the clients read, as for simulate; repeatable [default: short-poll:1m, short-poll:5m, long-poll:25s, long-poll:4m, sse, ndjson and
    /// websocket]
    #[arg(long, value_name = "STRATEGY")]
    pub strategy: Vec<Reader>,
    /// Cores of a machine
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub cores: u32,
    /// Memory of a machine in GiB
    #[arg(long, value_name = "GIB", default_value_t = 32)]
    pub memory: u32,
    /// Descriptors of a process (fs.nr_open, which is the default, and ulimit -n)
    #[arg(long, value_name = "N", default_value_t = 1_048_576)]
    pub descriptors: u32,
    /// Uplink of a machine in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 1000)]
    pub uplink: u32,
    /// Measure what events cost on this machine, instead of taking it from src/model/server_load.toml
    #[arg(long)]
    pub measure: bool,
    /// Compare the prediction with a real gateway that serves these numbers of clients [default: 1000,10000,18000; strategies:
    /// short-poll:5s, long-poll:25s and websocket:2s; a response of sse or ndjson lasts a minute, so they need as many --seconds]
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 0..=1, default_missing_value = "1000,10000,18000",
          conflicts_with = "clients", value_parser = clap::value_parser!(u32).range(1..=18_000))]
    pub check: Vec<u32>,
    /// Messages a second over all clients of --check and --measure
    #[arg(long, value_name = "PER_SECOND", default_value_t = 500.0, value_parser = rate_above_zero)]
    pub messages: f64,
    /// Measured seconds of each run of --check and --measure
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub seconds: f64,
    /// Path of the gateway's program for --check and --measure [default: the one beside this program, rebuilt if its sources are newer]
    #[arg(long, value_name = "PATH")]
    pub gateway: Option<PathBuf>,
    /// Seed of everything that is random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print all figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// Strategies by default.
const DEFAULTS: [&str; 7] =
    ["short-poll:1m", "short-poll:5m", "long-poll:25s", "long-poll:4m", "sse", "ndjson", "websocket"];

/// Strategies of a check by default.
const CHECKED: [&str; 3] = ["short-poll:5s", "long-poll:25s", "websocket:2s"];

impl ScaleOptions {
    /// The strategies.
    pub fn readers(&self) -> Vec<Reader> {
        let parsed = |names: &[&str]| names.iter().filter_map(|name| name.parse().ok()).collect();
        match (self.strategy.is_empty(), self.check.is_empty()) {
            (false, _) => self.strategy.clone(),
            (true, true) => parsed(&DEFAULTS),
            (true, false) => parsed(&CHECKED),
        }
    }

    /// Returns the question.
    pub fn scale(&self) -> Scale {
        Scale {
            clients: self.clients,
            readers: self.readers(),
            every: Duration::from_secs_f64(1.0 / self.rate),
            day: Day::default(),
            machine: Machine {
                cores: self.cores.into(),
                memory: f64::from(self.memory) * f64::from(1 << 30),
                descriptors: self.descriptors.into(),
                uplink: f64::from(self.uplink) * 1e6,
            },
            seed: self.seed,
        }
    }
}
