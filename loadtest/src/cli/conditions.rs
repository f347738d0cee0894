//! Options that all runs of one invocation share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{message_bytes, radios, seconds, setting};
use crate::model::radio::Radios;
use crate::network::Profile;
use crate::target::{Target, TargetError};
use crate::workload::Plan;

/// Workload, server and generators of every run.
#[derive(Debug, Clone, Args)]
pub struct Conditions {
    /// Number of reading clients
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Streams that the clients share [default: each client has its own]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub streams_shared: Option<u32>,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = message_bytes)]
    pub size: usize,
    /// Measured seconds of each run
    #[arg(long, default_value_t = 3.5, value_parser = seconds)]
    pub seconds: f64,
    /// Seconds of warm-up before the measured time
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    pub warm_up: f64,
    /// Seed of the random schedule
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many times each run is repeated; different runs take turns, and the report has medians and ranges. Strategies whose ranges
    /// overlap are not ranked
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// A gateway that is already running, or a proxy in front of it: http://HOST:PORT, or https:// [default: one is started]
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// Certificate of an https:// target, in PEM: the only one that is trusted. It has to be valid for the address of the target
    #[arg(long, value_name = "FILE", requires = "target")]
    pub target_certificate: Option<PathBuf>,
    /// Path of the gateway's program [default: the one beside this program, rebuilt if its sources are newer]
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    pub gateway: Option<PathBuf>,
    /// Address that the gateway listens on [default: any free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "target")]
    pub listen: Option<SocketAddr>,
    /// Hostile network in front of the readers: NAME or NAME:TIME of src/network/profiles.toml, or FILE#NAME of a file in the
    /// same format [default: none]
    #[arg(long, value_name = "NAME")]
    pub network: Option<Profile>,
    /// Radio profiles that replace the built-in ones, in the format of src/model/radios.toml
    #[arg(long, value_name = "FILE", value_parser = radios)]
    pub radios: Option<Radios>,
    /// A send counts as late after this; a run with 1 % of late sends fails [default: 5ms, or 1 % of a short poll's interval]
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub late_after: Option<Duration>,
    /// Clients, and streams, per load generator process; more are split over several processes
    #[arg(long, value_name = "N", default_value_t = 9000, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients_a_process: u32,
    /// Print all columns of the table instead of eight
    #[arg(long)]
    pub all_columns: bool,
    /// Folder for the report, as JSON and as an HTML page
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub output: PathBuf,
}

impl Conditions {
    /// Returns the plan of one run. `run` is the number that tells its messages from those of other runs.
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

    /// Returns the running gateway, if there is one.
    pub fn target(&self) -> Result<Option<Target>, TargetError> {
        let certificate = self.target_certificate.as_deref();
        self.target.as_deref().map(|url| Target::parse(url, certificate)).transpose()
    }

    /// Returns the user's radio profiles, or the built-in ones.
    pub fn radios(&self) -> Radios {
        self.radios.clone().unwrap_or_default()
    }
}
