//! Network profiles: the timeouts that end an idle connection, and the settings that they allow.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// The network profiles by name. The default is the embedded `networks.toml`, which gives the source of each figure;
/// [`Networks::read`] reads a replacement of the same format.
#[derive(Debug, Clone, PartialEq)]
pub struct Networks(Vec<Network>);

/// Timeouts and restrictions of a path between client and gateway. A timeout of `None` does not exist.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Name on the command line.
    pub name: String,
    /// Source and certainty of the figures.
    pub source: String,
    /// Time without a packet in either direction.
    #[serde(default, deserialize_with = "seconds")]
    pub idle: Option<Duration>,
    /// Time from the request to the first byte of its response.
    #[serde(default, deserialize_with = "seconds")]
    pub first_byte: Option<Duration>,
    /// Time between two bytes of a response.
    #[serde(default, deserialize_with = "seconds")]
    pub next_byte: Option<Duration>,
    /// Lifetime of a connection, regardless of its traffic.
    #[serde(default, deserialize_with = "seconds")]
    pub lifetime: Option<Duration>,
    /// What this part of a path adds to the usual round trip.
    #[serde(default, deserialize_with = "seconds")]
    pub round_trip: Option<Duration>,
    /// Whether the parts of a response arrive as they are sent.
    #[serde(default = "yes")]
    pub streaming: bool,
    /// Whether WebSocket upgrades pass.
    #[serde(default = "yes")]
    pub websocket: bool,
    /// Whether ports and protocols other than HTTP pass, as MQTT requires.
    #[serde(default = "yes")]
    pub raw_tcp: bool,
}

/// Why a network profile could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        error: std::io::Error,
    },
    /// The file does not have the format of `networks.toml`.
    #[error("not a file of network profiles: {0}")]
    Shape(#[from] toml::de::Error),
    /// The middlebox has it, and no formula describes it.
    #[error("{0}")]
    NoFormula(String),
    /// No profile has that name.
    #[error("no network {name:?}; there are {}, and those of the middlebox", known.join(", "))]
    Unknown {
        /// The requested name.
        name: String,
        /// The known names.
        known: Vec<String>,
    },
}

impl Networks {
    /// Reads the profiles of a user's file.
    pub fn read(path: &Path) -> Result<Self, NetworkError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| NetworkError::File { path: path.to_owned(), error })?;
        text.parse()
    }

    /// Returns the profile named `name`.
    pub fn get(&self, name: &str) -> Result<&Network, NetworkError> {
        self.0.iter().find(|network| network.name == name).ok_or_else(|| NetworkError::Unknown {
            name: name.to_owned(),
            known: self.0.iter().map(|network| network.name.clone()).collect(),
        })
    }
}

impl Default for Networks {
    fn default() -> Self {
        // A test asserts that the embedded table parses, so the fallback is never used.
        include_str!("networks.toml").parse().unwrap_or(Self(Vec::new()))
    }
}

impl FromStr for Networks {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            network: Vec<Network>,
        }
        let Table { network } = toml::from_str(text)?;
        Ok(Self(network))
    }
}

/// Round trip of the internet between a client and the gateway, without the parts of the path that have a profile: a setting of
/// this model, not a measurement.
const INTERNET: Duration = Duration::from_millis(30);

/// Round trip of a direct connection, such as loopback or a local network.
const DIRECT: Duration = Duration::from_millis(1);

impl Network {
    /// The profile of a direct connection.
    pub fn direct() -> Self {
        Self {
            name: "none".to_owned(),
            source: "A direct connection of client and gateway, such as loopback or a local network."
                .to_owned(),
            idle: None,
            first_byte: None,
            next_byte: None,
            lifetime: None,
            round_trip: None,
            streaming: true,
            websocket: true,
            raw_tcp: true,
        }
    }

    /// Combines the parts of one path: each timeout is the least of all parts, what one part blocks is blocked, and the round
    /// trips add up. Without parts, the connection is direct.
    pub fn path(parts: &[Self]) -> Self {
        let others = |part: &&Self| part.name != "none";
        let combined = parts.iter().filter(others).cloned().reduce(|path, part| {
            let least = |a: Option<Duration>, b: Option<Duration>| [a, b].into_iter().flatten().min();
            Self {
                name: format!("{} + {}", path.name, part.name),
                source: format!("{} {}", path.source, part.source),
                idle: least(path.idle, part.idle),
                first_byte: least(path.first_byte, part.first_byte),
                next_byte: least(path.next_byte, part.next_byte),
                lifetime: least(path.lifetime, part.lifetime),
                round_trip: Some(path.added_round_trip() + part.added_round_trip()),
                streaming: path.streaming && part.streaming,
                websocket: path.websocket && part.websocket,
                raw_tcp: path.raw_tcp && part.raw_tcp,
            }
        });
        combined.unwrap_or_else(Self::direct)
    }

    /// Returns the usual round trip over this path.
    pub fn usual_round_trip(&self) -> Duration {
        if self.name == "none" { DIRECT } else { INTERNET + self.added_round_trip() }
    }

    fn added_round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(Duration::ZERO)
    }

    /// Returns the longest hold of a long poll: the least of the timeout of the next byte, that of the first byte, the
    /// lifetime, and 0.9 of the idle timeout, minus the slowest round trip and 3 s. `None` if there is no timeout; zero if no
    /// hold is safe.
    pub fn hold(&self, round_trip_p99: Duration) -> Option<Duration> {
        let clock = [self.quiet_clock(), self.first_byte, self.lifetime].into_iter().flatten().min()?;
        Some(neat(clock.saturating_sub(round_trip_p99 + MARGIN)))
    }

    /// Returns the longest heartbeat of an open response or connection. Same rule as [`Self::hold`], without the first byte's
    /// timeout and the lifetime.
    pub fn heartbeat(&self, round_trip_p99: Duration) -> Option<Duration> {
        Some(neat(self.quiet_clock()?.saturating_sub(round_trip_p99 + MARGIN)))
    }

    fn quiet_clock(&self) -> Option<Duration> {
        [self.next_byte, self.idle.map(|idle| idle.mul_f64(0.9))].into_iter().flatten().min()
    }
}

/// Time that the rule reserves for late timers.
const MARGIN: Duration = Duration::from_secs(3);

/// Rounds down to a customary value: whole seconds below 10 s, then steps of 5 s, 10 s from a minute, 50 s from 100 s.
fn neat(duration: Duration) -> Duration {
    let seconds = duration.as_secs();
    let step = match seconds {
        0..10 => 1,
        10..60 => 5,
        60..100 => 10,
        _ => 50,
    };
    Duration::from_secs(seconds - seconds % step)
}

fn yes() -> bool {
    true
}

fn seconds<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let seconds = f64::deserialize(input)?;
    Duration::try_from_secs_f64(seconds).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(name: &str) -> Option<u64> {
        let hold = Networks::default().get(name).unwrap().hold(Duration::from_secs(1));
        hold.map(|hold| hold.as_secs())
    }

    #[test]
    fn holds_agree_with_the_cost_model_document() {
        assert_eq!(hold("unknown"), Some(25));
        assert_eq!(hold("nginx"), Some(55));
        assert_eq!(hold("alb"), Some(50));
        assert_eq!(hold("cloudflare"), Some(90));
        assert_eq!(hold("cellular-direct"), Some(200));
        assert_eq!(hold("heroku"), Some(25));
        assert_eq!(hold("carrier-5min"), Some(250));
        assert_eq!(hold("none"), None);
    }

    #[test]
    fn a_path_is_as_strict_as_its_strictest_part_and_as_slow_as_all_of_them() {
        let networks = Networks::default();
        let part = |name: &str| networks.get(name).unwrap().clone();
        let path = Network::path(&[part("carrier-5min"), part("none"), part("nginx")]);
        assert_eq!(path.name, "carrier-5min + nginx");
        assert_eq!(path.idle, Some(Duration::from_secs(300)));
        assert_eq!(
            (path.first_byte, path.raw_tcp, path.websocket),
            (Some(Duration::from_secs(60)), false, true)
        );
        assert_eq!(path.hold(Duration::from_secs(1)), Some(Duration::from_secs(55)));
        assert_eq!(path.usual_round_trip(), Duration::from_millis(101));
        assert_eq!(Network::path(&[part("none")]), part("none"));
        assert_eq!(Network::path(&[]).usual_round_trip(), Duration::from_millis(1));
    }

    #[test]
    fn the_first_byte_timeout_does_not_limit_heartbeats() {
        let heartbeat =
            |name| Networks::default().get(name).unwrap().heartbeat(Duration::from_secs(1)).unwrap();
        assert_eq!(heartbeat("heroku"), Duration::from_secs(45));
        assert_eq!(heartbeat("cellular-direct"), Duration::from_secs(200));
    }

    #[test]
    fn a_slow_path_can_leave_no_safe_hold() {
        let networks = Networks::default();
        assert_eq!(networks.get("unknown").unwrap().hold(Duration::from_secs(40)), Some(Duration::ZERO));
    }

    #[test]
    fn a_users_file_replaces_the_table_or_its_error_is_reported() {
        let networks: Networks = "[[network]]\nname = 'lab'\nsource = ''\nidle = 0.5".parse().unwrap();
        assert_eq!(networks.get("lab").unwrap().idle, Some(Duration::from_millis(500)));
        let unknown = networks.get("moon").unwrap_err().to_string();
        assert_eq!(unknown, r#"no network "moon"; there are lab, and those of the middlebox"#);
        for wrong in ["", "[[network]]\nname = 'lab'\nsource = ''\nidle = -1", "[[network]]\nname = 'lab'"] {
            assert!(wrong.parse::<Networks>().is_err(), "{wrong:?}");
        }
        assert!(Networks::read(Path::new("/does/not/exist.toml")).is_err());
    }
}
