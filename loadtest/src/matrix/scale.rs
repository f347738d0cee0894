//! [`Scale`]: one factor for the times of networks, gateway and readers.

use std::str::FromStr;
use std::time::Duration;

/// Factor from seconds of a real path to measured seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale(f64);

/// The gateway's default limits and holds, in seconds.
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
        // A smaller factor would scale a heartbeat of 15 s below one second, the minimum on the wire.
        factor.map(Self).ok_or_else(|| "want 0.1 to 1".to_owned())
    }
}

impl Scale {
    /// Returns the factor.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Scales a time of a real path.
    pub fn of(self, time: Duration) -> Duration {
        time.mul_f64(self.0)
    }

    /// Scales a time and rounds it to whole seconds, at least 1, as holds and heartbeats are on the wire.
    pub fn whole(self, time: Duration) -> Duration {
        Duration::from_secs((self.of(time).as_secs_f64().round() as u64).max(1))
    }

    /// Returns the gateway's options for the scaled times.
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
