//! Options of `recommend`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{message_bytes, networks, radios, rate_above_zero, report, setting};
use crate::data::Report;
use crate::model::asleep::WakeDelays;
use crate::model::network::{Network, NetworkError, Networks};
use crate::model::radio::Radio;
use crate::model::radio::Radios;
use crate::model::recommend::{Cost, Promise};
use crate::network::Profiles;

/// The latency target and what the user knows about the clients and the network.
#[derive(Debug, Clone, Args)]
pub struct Promised {
    /// Latency that 95 % of the messages must not exceed
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub p95: Duration,
    /// Number of clients
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Messages to one client: a number a second, or such as '1 per 10 min' or '3 per day'
    #[arg(long, value_name = "RATE", default_value = "0.2", value_parser = rate_above_zero)]
    pub rate: f64,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = message_bytes)]
    pub size: usize,
    /// A part of the path between client and gateway: a profile of src/model/networks.toml such as nginx or carrier-5min, or of the
    /// middlebox (src/network/profiles.toml); `none` is a direct connection; repeatable, and the parts combine [default: unknown]
    #[arg(long, value_name = "NAME")]
    pub network: Vec<String>,
    /// Usual round trip [default: 30 ms and what the parts of the path add, or 1 ms on a direct connection]
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
    /// Messages come from an HTTP API (an origin) that the gateway polls this often; the answer then has clients that poll it
    /// themselves, too [default: messages are published to the gateway]
    #[arg(long, value_name = "DURATION", value_parser = setting)]
    pub origin_every: Option<Duration>,
    /// A strategy that is out of the question: sms, push, push:fcm, mqtt, websocket, …; repeatable
    #[arg(long, value_name = "FORM")]
    pub without: Vec<String>,
    /// Maximum requests per client-hour
    #[arg(long, value_name = "N")]
    pub requests_max: Option<f64>,
    /// Maximum joules per client-hour
    #[arg(long, value_name = "JOULES")]
    pub energy_max: Option<f64>,
    /// Cost to minimize
    #[arg(long, value_enum, default_value_t = CheapestBy::Energy)]
    pub cheapest_by: CheapestBy,
    /// Radio of the clients, by name [default: the first profile, LTE]
    #[arg(long)]
    pub radio: Option<String>,
    /// Simulate this many hours of five clients with each strategy that keeps the promise by formula, and use the simulated figures;
    /// a latency up to 5 % above --p95 then keeps the promise
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=168))]
    pub simulate: Option<u32>,
    /// A report.json; its measured figures replace predicted ones where a run fits
    #[arg(long, value_name = "FILE", value_parser = report)]
    pub report: Option<Report>,
    /// Radio profiles that replace the built-in ones, in the format of src/model/radios.toml
    #[arg(long, value_name = "FILE", value_parser = radios)]
    pub radios: Option<Radios>,
    /// Network profiles that replace the built-in ones, in the format of src/model/networks.toml
    #[arg(long, value_name = "FILE", value_parser = networks)]
    pub networks: Option<Networks>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
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

/// The path if the user names none.
const UNKNOWN: &str = "unknown";

impl Promised {
    /// Returns the promise over the chosen path, with energy figures for `radio`.
    pub fn promise(&self, radio: Radio) -> Result<Promise, NetworkError> {
        let networks = self.networks.clone().unwrap_or_default();
        let names = if self.network.is_empty() { vec![UNKNOWN.to_owned()] } else { self.network.clone() };
        let parts = names.iter().map(|name| part(&networks, name)).collect::<Result<Vec<_>, _>>()?;
        Ok(Promise {
            clients: self.clients,
            p95: self.p95,
            rate: self.rate,
            message_bytes: self.size as f64,
            networks: parts,
            round_trip: self.round_trip,
            round_trip_p99: self.round_trip_p99,
            requests_max: self.requests_max,
            energy_max: self.energy_max,
            wake_delays: WakeDelays { push: self.push_delay, sms: self.sms_delay },
            cheapest_by: match self.cheapest_by {
                CheapestBy::Energy => Cost::Energy,
                CheapestBy::Requests => Cost::Requests,
                CheapestBy::Bytes => Cost::Bytes,
            },
            radio,
            without: self.without.clone(),
            origin: self.origin_every,
        })
    }
}

/// Finds a part of the path among the networks of the cost model, then among those of the middlebox.
fn part(networks: &Networks, name: &str) -> Result<Network, NetworkError> {
    networks.get(name).cloned().or_else(|unknown| match Profiles::default().get(name) {
        Ok(profile) => profile.as_path().map_err(NetworkError::NoFormula),
        Err(_) => Err(unknown),
    })
}
