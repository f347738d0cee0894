//! What `recommend` is asked.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{message_bytes, networks, radios, rate, report, setting};
use crate::data::Report;
use crate::model::candidate::Load;
use crate::model::network::{Network, NetworkError, Networks};
use crate::model::radio::Radios;
use crate::model::recommend::{Cost, Promise};

/// The round trip over a network unless the user knows better, and with nothing in between.
const ROUND_TRIP: Duration = Duration::from_millis(100);
const ROUND_TRIP_NEAR: Duration = Duration::from_millis(1);

/// How many usual round trips the slowest one in a hundred takes, unless the user knows better.
const ROUND_TRIP_P99_FACTOR: u32 = 10;

/// The network profile with nothing in between.
const NEAR: &str = "none";

/// The promise, and what is known.
#[derive(Debug, Clone, Args)]
pub struct Promised {
    /// 95 % of the messages are to take no longer
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub p95: Duration,
    /// Messages a second to one client
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.2, value_parser = rate)]
    pub rate: f64,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = message_bytes)]
    pub size: usize,
    /// The path between client and gateway, by the name of its profile; `none`: nothing in between
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    pub network: String,
    /// The usual round trip [default: 100ms, on the network `none` 1ms]
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub round_trip: Option<Duration>,
    /// The round trip that 1 % exceed [default: ten usual ones]
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub round_trip_p99: Option<Duration>,
    /// Requests a client-hour at most
    #[arg(long, value_name = "N")]
    pub requests_max: Option<f64>,
    /// Joules a client-hour at most
    #[arg(long, value_name = "JOULES")]
    pub energy_max: Option<f64>,
    /// What cheap means
    #[arg(long, value_enum, default_value_t = CheapestBy::Energy)]
    pub cheapest_by: CheapestBy,
    /// The radio of the energies, by name [default: the first profile]
    #[arg(long)]
    pub radio: Option<String>,
    /// A report.json whose measured figures take the place of predicted ones where they fit
    #[arg(long, value_name = "FILE", value_parser = report)]
    pub report: Option<Report>,
    /// Radio profiles in place of the built-in ones, as src/model/radios.toml
    #[arg(long, value_name = "FILE", value_parser = radios)]
    pub radios: Option<Radios>,
    /// Network profiles in place of the built-in ones, as src/model/networks.toml
    #[arg(long, value_name = "FILE", value_parser = networks)]
    pub networks: Option<Networks>,
}

/// What cheap means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheapestBy {
    /// Joules of the radio
    Energy,
    /// Requests
    Requests,
    /// Bytes
    Bytes,
}

impl Promised {
    /// The promise over that network, with energies on that radio.
    pub fn promise(&self, radio: String) -> Result<Promise, NetworkError> {
        let networks = self.networks.clone().unwrap_or_default();
        let network: Network = networks.get(&self.network)?.clone();
        let near = network.name == NEAR;
        let round_trip = self.round_trip.unwrap_or(if near { ROUND_TRIP_NEAR } else { ROUND_TRIP });
        Ok(Promise {
            p95: self.p95,
            load: Load { rate: self.rate, message_bytes: self.size as f64, round_trip },
            round_trip_p99: self.round_trip_p99.unwrap_or(round_trip * ROUND_TRIP_P99_FACTOR),
            network,
            requests_max: self.requests_max,
            energy_max: self.energy_max,
            cheapest_by: match self.cheapest_by {
                CheapestBy::Energy => Cost::Energy(radio),
                CheapestBy::Requests => Cost::Requests,
                CheapestBy::Bytes => Cost::Bytes,
            },
        })
    }
}
