//! What all runs of a call have in common.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{message_bytes, radios, seconds, setting};
use crate::model::radio::Radios;
use crate::network::Profile;
use crate::workload::Plan;

/// Workload, server and generators of every run.
#[derive(Debug, Clone, Args)]
pub struct Conditions {
    /// Clients that read
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Streams that the clients share [default: each client has its own]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub streams_shared: Option<u32>,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = message_bytes)]
    pub size: usize,
    /// Seconds that are measured, each run
    #[arg(long, default_value_t = 13.0, value_parser = seconds)]
    pub seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub warm_up: f64,
    /// Of the random schedule
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often to do each run; different ones take turns, and the report has medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// A gateway that runs already, http://HOST:PORT [default: one is started]
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// The gateway's program [default: the one beside this program, built anew if its sources are newer]
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    pub gateway: Option<PathBuf>,
    /// Where the gateway listens [default: any free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "target")]
    pub listen: Option<SocketAddr>,
    /// Readers come through this hostile network: NAME or NAME:TIME of src/network/profiles.toml, FILE#NAME of a file like
    /// it [default: nothing in between]
    #[arg(long, value_name = "NAME")]
    pub network: Option<Profile>,
    /// Radio profiles in place of the built-in ones, as src/model/radios.toml
    #[arg(long, value_name = "FILE", value_parser = radios)]
    pub radios: Option<Radios>,
    /// A send is late after this; a run of which 1 % is late fails [default: 5ms, or 1 % of a short poll's interval]
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub late_after: Option<Duration>,
    /// Clients, and streams, of one load generator process; more are shared among several
    #[arg(long, value_name = "N", default_value_t = 9000, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients_a_process: u32,
    /// Where the report is written, as JSON and as a page
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub output: PathBuf,
}

impl Conditions {
    /// What a run has to do. `run` tells its messages from those of other runs.
    pub fn plan(&self, rate: f64, run: u64) -> Plan {
        Plan {
            clients: self.clients,
            streams: self.streams_shared.unwrap_or(self.clients),
            rate,
            message_bytes: self.size,
            warm_up: Duration::from_secs_f64(self.warm_up),
            measured: Duration::from_secs_f64(self.seconds),
            seed: self.seed,
            run,
        }
    }

    /// The user's profiles, or the built-in ones.
    pub fn radios(&self) -> Radios {
        self.radios.clone().unwrap_or_default()
    }
}
