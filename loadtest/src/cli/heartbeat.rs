//! Options of `heartbeat`.

use std::time::Duration;

use clap::Args;

use super::values::{setting, whole_setting};
use crate::simulate::{Heartbeats, Reader};

/// Options of `heartbeat`.
#[derive(Debug, Clone, Args)]
pub struct HeartbeatOptions {
    /// Times without a packet after which the mobile network forgets a connection
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1m,2m,3m,5m,10m,15m,30m", value_parser = whole_setting)]
    pub nat: Vec<Duration>,
    /// sse, ndjson or websocket, which search for a heartbeat, or with a fixed one as websocket:30s; or websocket:mars, with heartbeats by
    /// the rule of Mars, WeChat's client; repeatable [default: websocket:30s, websocket:270s, websocket:mars and websocket]
    #[arg(long, value_name = "STRATEGY")]
    pub strategy: Vec<Reader>,
    /// Names of radio profiles (src/model/radios.toml)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "LTE,3G")]
    pub radio: Vec<String>,
    /// Number of phones in each simulation
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub phones: u32,
    /// Hours of each simulation
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=168))]
    pub hours: u32,
    /// Time between two messages to a phone, on average (Poisson)
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = setting)]
    pub every: Duration,
    /// Seed of everything that is random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The heartbeats that apps are known to use, and the client's search.
const DEFAULTS: [&str; 4] = ["websocket:30s", "websocket:270s", "websocket:mars", "websocket"];

impl HeartbeatOptions {
    /// Returns what is to be simulated.
    pub fn heartbeats(&self) -> Heartbeats {
        let defaults = || DEFAULTS.iter().filter_map(|text| text.parse().ok()).collect();
        Heartbeats {
            nats: self.nat.clone(),
            readers: if self.strategy.is_empty() { defaults() } else { self.strategy.clone() },
            radios: self.radio.clone(),
            phones: self.phones,
            length: Duration::from_secs(3600) * self.hours,
            every: self.every,
            seed: self.seed,
        }
    }
}
