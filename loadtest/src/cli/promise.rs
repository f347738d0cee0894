//! Options of `recommend`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{message_bytes, networks, radios, rate, report, setting};
use crate::data::Report;
use crate::model::asleep::WakeDelays;
use crate::model::candidate::Load;
use crate::model::network::{Network, NetworkError, Networks};
use crate::model::radio::Radios;
use crate::model::recommend::{Cost, Promise};

/// Default round trip: over a network, and with no network in between.
const ROUND_TRIP: Duration = Duration::from_millis(100);
const ROUND_TRIP_NEAR: Duration = Duration::from_millis(1);

/// Default ratio of the 99th percentile of the round trip to the usual round trip.
const ROUND_TRIP_P99_FACTOR: u32 = 10;

/// Name of the network profile for a direct connection.
const NEAR: &str = "none";

/// The latency target and what the user knows about the network.
#[derive(Debug, Clone, Args)]
pub struct Promised {
    /// Latency that 95 % of the messages must not exceed
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub p95: Duration,
    /// Messages per second to one client
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.2, value_parser = rate)]
    pub rate: f64,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = message_bytes)]
    pub size: usize,
    /// Network profile of the path between client and gateway, by name; `none` is a direct connection
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    pub network: String,
    /// Usual round trip [default: 100ms, or 1ms on the network `none`]
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub round_trip: Option<Duration>,
    /// Round trip that 1 % exceed [default: ten times the usual one]
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub round_trip_p99: Option<Duration>,
    /// Time from a push to the phone's first packet that 5 % exceed
    #[arg(long, value_name = "DURATION", value_parser = setting, default_value = "3s")]
    pub push_delay: Duration,
    /// Time from an SMS to the phone's first packet that 5 % exceed
    #[arg(long, value_name = "DURATION", value_parser = setting, default_value = "15s")]
    pub sms_delay: Duration,
    /// Maximum requests per client-hour
    #[arg(long, value_name = "N")]
    pub requests_max: Option<f64>,
    /// Maximum joules per client-hour
    #[arg(long, value_name = "JOULES")]
    pub energy_max: Option<f64>,
    /// Cost to minimize
    #[arg(long, value_enum, default_value_t = CheapestBy::Energy)]
    pub cheapest_by: CheapestBy,
    /// Radio profile for the energy figures, by name [default: the first profile]
    #[arg(long)]
    pub radio: Option<String>,
    /// A report.json; its measured figures replace predicted ones where a run fits
    #[arg(long, value_name = "FILE", value_parser = report)]
    pub report: Option<Report>,
    /// Radio profiles that replace the built-in ones, in the format of src/model/radios.toml
    #[arg(long, value_name = "FILE", value_parser = radios)]
    pub radios: Option<Radios>,
    /// Network profiles that replace the built-in ones, in the format of src/model/networks.toml
    #[arg(long, value_name = "FILE", value_parser = networks)]
    pub networks: Option<Networks>,
}

/// The cost to minimize.
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
    /// Returns the promise over the chosen network, with energy figures for `radio`.
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
            wake_delays: WakeDelays { push: self.push_delay, sms: self.sms_delay },
            cheapest_by: match self.cheapest_by {
                CheapestBy::Energy => Cost::Energy(radio),
                CheapestBy::Requests => Cost::Requests,
                CheapestBy::Bytes => Cost::Bytes,
            },
        })
    }
}
