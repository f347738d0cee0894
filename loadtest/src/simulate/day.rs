//! The day of a phone: the networks that it is in, one after the other.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use serde::{Deserialize, Deserializer};

use crate::model::radio::{RadioError, Radios};
use crate::network::Profile;

/// The embedded day, which documents the format.
const TYPICAL: &str = include_str!("day.toml");

/// Length of a day without a change to or from summer time.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The networks of a day, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Day {
    parts: Vec<Part>,
    length: Duration,
}

/// A time of the day in one network.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    from: Duration,
    /// `None`: there is no network.
    network: Option<Network>,
}

/// A network as a phone meets it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// Name, which the phone tells its client, too.
    pub name: String,
    /// Name of the radio in radios.toml.
    pub radio: String,
    /// Least round trip in seconds.
    pub round_trip: f64,
    /// Mean of what a packet takes longer, in seconds each way; exponential.
    #[serde(default)]
    pub jitter: f64,
    /// Share of packets that are lost, and sent again.
    #[serde(default)]
    pub loss: f64,
    /// Seconds without a packet after which the connection is forgotten, and further packets are dropped.
    #[serde(default)]
    pub nat_idle: Option<f64>,
    /// What is between the network and the gateway besides: a hostile network by its name in network/profiles.toml, such as a proxy.
    #[serde(default, deserialize_with = "profile")]
    pub behind: Option<Profile>,
}

fn profile<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Profile>, D::Error> {
    let name = String::deserialize(text)?;
    name.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Why a day cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DayError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        error: std::io::Error,
    },
    /// The file does not have the format of `day.toml`.
    #[error("not a day: {0}")]
    Shape(#[from] toml::de::Error),
    /// The parts do not begin at 00:00 and follow each other.
    #[error("the parts must begin with 00:00 and be in order: {0}")]
    Order(String),
    /// No network has that name.
    #[error("no [[network]] is called {0:?}")]
    Unknown(String),
    /// No radio profile has that name, so the energy would not be known.
    #[error("network {0:?}: {1}")]
    Radio(String, RadioError),
    /// A figure is negative, not finite, or no share.
    #[error("network {0:?}: times must not be negative, and loss is at most 0.5")]
    Figure(String),
}

impl Day {
    /// Reads a day from a user's file.
    pub fn read(path: &Path) -> Result<Self, DayError> {
        std::fs::read_to_string(path)
            .map_err(|error| DayError::File { path: path.to_owned(), error })?
            .parse()
    }

    /// How long the day is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Puts an hour more or less at the end, as on the days on which summer time ends or begins.
    pub fn lasting(self, length: Duration) -> Self {
        Self { length, ..self }
    }

    /// The network at a time of the day, and when it changes.
    pub fn at(&self, time: Duration) -> (Option<&Network>, Duration) {
        let next = self.parts.partition_point(|part| part.from <= time);
        let until = self.parts.get(next).map_or(self.length, |part| part.from);
        (self.parts.get(next.wrapping_sub(1)).and_then(|part| part.network.as_ref()), until)
    }

    /// One network all day.
    pub fn within(network: Network, length: Duration) -> Self {
        Self::changing([network].into_iter(), length, length)
    }

    /// One network after the other, each for `every`, as long as there are more.
    pub fn changing(networks: impl Iterator<Item = Network>, every: Duration, length: Duration) -> Self {
        let froms = (0..).map(|number| every * number);
        let parts = froms.zip(networks).map(|(from, network)| Part { from, network: Some(network) });
        Self { parts: parts.collect(), length }
    }
}

impl Default for Day {
    fn default() -> Self {
        // A test asserts that the embedded day parses, so the fallback is never used.
        TYPICAL.parse().unwrap_or(Self { parts: Vec::new(), length: DAY })
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            network: Vec<Network>,
            part: Vec<Written>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            from: String,
            network: Option<String>,
        }
        let File { network: networks, part: written } = toml::from_str(text)?;
        if let Some(network) = networks.iter().find(|network| !network.is_sound()) {
            return Err(DayError::Figure(network.name.clone()));
        }
        let radios = Radios::default();
        for network in &networks {
            radios
                .radio(Some(&network.radio))
                .map_err(|error| DayError::Radio(network.name.clone(), error))?;
        }
        let mut parts: Vec<Part> = Vec::new();
        for Written { from, network } in written {
            let time: Time = from.parse().map_err(|_| DayError::Order(from.clone()))?;
            let begin =
                Duration::try_from(time - Time::midnight()).map_err(|_| DayError::Order(from.clone()))?;
            let follows = parts.last().map_or(begin.is_zero(), |last| last.from < begin);
            if !follows {
                return Err(DayError::Order(from));
            }
            let named = |name: String| {
                let found = networks.iter().find(|network| network.name == name);
                found.cloned().ok_or(DayError::Unknown(name))
            };
            parts.push(Part { from: begin, network: network.map(named).transpose()? });
        }
        if parts.is_empty() {
            return Err(DayError::Order("there is none".to_owned()));
        }
        Ok(Self { parts, length: DAY })
    }
}

impl Network {
    /// Mobile data of the embedded day, behind a hostile network.
    pub fn mobile_behind(behind: Profile) -> Self {
        Self { name: behind.name.clone(), behind: Some(behind), ..Self::mobile("LTE") }
    }

    /// Mobile data of the embedded day, with another radio and a NAT that forgets nothing.
    pub fn mobile(radio: &str) -> Self {
        Self {
            name: "mobile".to_owned(),
            radio: radio.to_owned(),
            round_trip: 0.07,
            jitter: 0.02,
            loss: 0.005,
            nat_idle: None,
            behind: None,
        }
    }

    /// A network without delays, as between processes of one machine.
    pub(crate) fn direct() -> Self {
        let name = "direct".to_owned();
        Self {
            name,
            radio: "Wi-Fi".to_owned(),
            round_trip: 0.0002,
            jitter: 0.0,
            loss: 0.0,
            nat_idle: None,
            behind: None,
        }
    }

    fn is_sound(&self) -> bool {
        let times = [Some(self.round_trip), Some(self.jitter), self.nat_idle];
        let sound =
            times.into_iter().flatten().all(|time| time.is_finite() && (0.0..=86_400.0).contains(&time));
        sound && (0.0..=0.5).contains(&self.loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_day_has_a_night_a_train_and_an_office() {
        let day: Day = TYPICAL.parse().unwrap();
        let name =
            |hour: f64| day.at(Duration::from_secs_f64(hour * 3600.0)).0.map(|network| network.name.clone());
        assert_eq!(name(3.0).as_deref(), Some("home"));
        assert_eq!(name(7.9).as_deref(), Some("train"));
        assert_eq!(name(8.02), None);
        assert_eq!(name(12.0).as_deref(), Some("office"));
        assert_eq!(day.at(Duration::from_secs(23 * 3600)).1, DAY);
    }

    #[test]
    fn a_day_with_a_mistake_is_refused_with_the_reason() {
        let network = "[[network]]\nname = \"a\"\nradio = \"LTE\"\nround-trip = 0.1\n";
        let wrong = |text: &str| format!("{network}{text}").parse::<Day>().unwrap_err().to_string();
        assert!(wrong("[[part]]\nfrom = \"01:00\"").contains("begin with 00:00"));
        assert!(wrong("[[part]]\nfrom = \"00:00\"\nnetwork = \"b\"").contains("\"b\""));
        let no_radio = network.replace("LTE", "carrier pigeon") + "[[part]]\nfrom = \"00:00\"";
        assert!(no_radio.parse::<Day>().unwrap_err().to_string().contains("carrier pigeon"));
        assert!(wrong("loss = 0.6\n[[part]]\nfrom = \"00:00\"").contains("\"a\""));
        let twice = "[[part]]\nfrom = \"00:00\"\n[[part]]\nfrom = \"00:00\"";
        assert!(wrong(twice).contains("in order"));
    }
}
