//! One factor for all times: those of the networks, of the gateway, and of whoever reads.

use std::str::FromStr;
use std::time::Duration;

/// Scaled seconds for one of a real path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale(f64);

/// The gateway's defaults: of a bound or setting, and how long it is.
const LIMITS: [(&str, u64); 5] = [
    ("live_heartbeat", 15),
    ("live_life", 60),
    ("websocket_ping", 25),
    ("websocket_pong_timeout", 8),
    ("idle_timeout", 75),
];
const HOLD: Duration = Duration::from_secs(25);
const HOLD_MAX: Duration = Duration::from_secs(55);

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let factor = text.parse().ok().filter(|factor| (0.1..=1.0).contains(factor));
        // A heartbeat of 15 s that is scaled further than that falls below the second that is the least on the wire.
        factor.map(Self).ok_or_else(|| "want 0.1 to 1".to_owned())
    }
}

impl Scale {
    /// As a factor.
    pub fn get(self) -> f64 {
        self.0
    }

    /// A time of a real path as it is here.
    pub fn of(self, time: Duration) -> Duration {
        time.mul_f64(self.0)
    }

    /// The same in whole seconds, as holds and heartbeats are on the wire.
    pub fn whole(self, time: Duration) -> Duration {
        Duration::from_secs((self.of(time).as_secs_f64().round() as u64).max(1))
    }

    /// The gateway's settings.
    pub(super) fn gateway(self) -> Vec<String> {
        let millis = |time: Duration| format!("{}ms", self.of(time).as_millis());
        let limits = LIMITS.iter().flat_map(|(name, seconds)| {
            ["--limit".to_owned(), format!("{name}={}", millis(Duration::from_secs(*seconds)))]
        });
        let holds = [("--hold", HOLD), ("--hold-max", HOLD_MAX)];
        let holds = holds
            .into_iter()
            .flat_map(|(name, time)| [name.to_owned(), format!("{}s", self.whole(time).as_secs())]);
        limits.chain(holds).collect()
    }
}
