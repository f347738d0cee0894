//! Radio profiles: powers and times of a phone's radio.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The radio profiles of a report. The default is the embedded `radios.toml`, which gives the source of each figure;
/// [`Radios::read`] reads a replacement of the same format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Radios(Vec<Radio>);

/// Powers and times of one kind of radio (docs/design/cost-model.md, "Radio energy").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Radio {
    /// Name in reports.
    pub name: String,
    /// Source and certainty of the figures.
    pub source: String,
    /// Watts of the sleeping radio.
    pub idle_w: f64,
    /// Transition out of sleep, before the first packet.
    pub promotion: Stage,
    /// Stages after a packet, in order, until the next packet.
    pub tail: Vec<Stage>,
    /// Milliwatts per megabit a second, for sent data.
    pub up_mw_per_mbps: f64,
    /// Milliwatts per megabit a second, for received data.
    pub down_mw_per_mbps: f64,
}

/// A time at one power.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Watts, including those of the sleeping radio.
    pub power_w: f64,
    /// Length in seconds.
    pub seconds: f64,
}

/// Why radio profiles could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RadioError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        error: std::io::Error,
    },
    /// The file does not have the format of `radios.toml`.
    #[error("not a file of radio profiles: {0}")]
    Shape(#[from] toml::de::Error),
    /// The file has no radio.
    #[error("no [[radio]] in it")]
    Empty,
    /// A power, time or slope is negative or not finite.
    #[error("radio {0:?}: every figure must be finite and not negative")]
    Figure(String),
    /// No profile has that name.
    #[error("no radio {name:?}; there are {}", known.join(", "))]
    Unknown {
        /// The requested name.
        name: String,
        /// The known names.
        known: Vec<String>,
    },
}

impl Radios {
    /// Reads the profiles of a user's file.
    pub fn read(path: &Path) -> Result<Self, RadioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| RadioError::File { path: path.to_owned(), error })?;
        text.parse()
    }

    /// Returns the name of the given profile if it exists; without a name that of the first profile.
    pub fn named(&self, name: Option<&str>) -> Result<String, RadioError> {
        self.radio(name).map(|radio| radio.name.clone())
    }

    /// Returns the given profile; without a name the first one.
    pub fn radio(&self, name: Option<&str>) -> Result<&Radio, RadioError> {
        let wanted = |radio: &&Radio| name.is_none_or(|name| radio.name == name);
        self.iter().find(wanted).ok_or_else(|| RadioError::Unknown {
            name: name.unwrap_or_default().to_owned(),
            known: self.iter().map(|radio| radio.name.clone()).collect(),
        })
    }

    /// Iterates over the profiles in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Radio> {
        self.0.iter()
    }
}

impl Default for Radios {
    fn default() -> Self {
        // A test asserts that the embedded table parses, so the fallback is never used.
        include_str!("radios.toml").parse().unwrap_or(Self(Vec::new()))
    }
}

impl FromStr for Radios {
    type Err = RadioError;

    fn from_str(text: &str) -> Result<Self, RadioError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(default)]
            radio: Vec<Radio>,
        }
        let Table { radio: radios } = toml::from_str(text)?;
        if radios.is_empty() {
            return Err(RadioError::Empty);
        }
        match radios.iter().find(|radio| !radio.is_sound()) {
            Some(radio) => Err(RadioError::Figure(radio.name.clone())),
            None => Ok(Self(radios)),
        }
    }
}

impl Radio {
    /// Returns the joules above sleep of one transition out of sleep.
    pub fn promotion_joules(&self) -> f64 {
        self.promotion.seconds * (self.promotion.power_w - self.idle_w)
    }

    /// Returns how long the radio takes to wake up before its first packet.
    pub fn promotion_time(&self) -> Duration {
        Duration::try_from_secs_f64(self.promotion.seconds).unwrap_or(Duration::MAX)
    }

    /// Returns how long a packet keeps the radio awake.
    pub fn tail_time(&self) -> Duration {
        Duration::try_from_secs_f64(self.tail.iter().map(|stage| stage.seconds).sum())
            .unwrap_or(Duration::MAX)
    }

    /// Returns for each stage of the tail its begin and end (seconds after the packet) and its watts above sleep.
    pub fn stages(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        self.tail.iter().scan(0.0, |begin, stage| {
            let from = *begin;
            *begin += stage.seconds;
            Some((from, *begin, stage.power_w - self.idle_w))
        })
    }

    /// Returns the joules to send `up_bytes` and receive `down_bytes`.
    pub fn transfer_joules(&self, up_bytes: f64, down_bytes: f64) -> f64 {
        // mW per Mbit/s is mJ per Mbit, and a byte is 8e-6 Mbit.
        8e-9 * (up_bytes * self.up_mw_per_mbps + down_bytes * self.down_mw_per_mbps)
    }

    fn is_sound(&self) -> bool {
        let stages =
            self.tail.iter().chain([&self.promotion]).flat_map(|stage| [stage.power_w, stage.seconds]);
        let mut figures = stages.chain([self.idle_w, self.up_mw_per_mbps, self.down_mw_per_mbps]);
        figures.all(|figure| figure.is_finite() && figure >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_table_parses() {
        let names: Vec<_> = Radios::default().iter().map(|radio| radio.name.clone()).collect();
        assert_eq!(names.len(), 7);
        assert_eq!(names[..3], ["LTE", "3G", "Wi-Fi"]);
    }

    #[test]
    fn a_users_file_replaces_the_table_or_its_error_is_reported() {
        let good = r#"
            [[radio]]
            name = "lab"
            source = "measured"
            idle_w = 0.1
            promotion = { power_w = 1.1, seconds = 0.5 }
            tail = [{ power_w = 0.6, seconds = 2 }]
            up_mw_per_mbps = 1
            down_mw_per_mbps = 1
        "#;
        let radios: Radios = good.parse().unwrap();
        let radio = radios.iter().next().unwrap();
        assert_eq!((radio.promotion_joules(), radio.tail_time()), (0.5, Duration::from_secs(2)));

        let wrong = |text: &str| text.parse::<Radios>().unwrap_err().to_string();
        assert!(wrong("").contains("no [[radio]]"));
        assert!(wrong(&good.replace("0.6", "-0.6")).contains("\"lab\""));
        assert!(wrong(&good.replace("idle_w", "idle_mw")).contains("idle_mw"));
        assert_eq!(radios.named(None).unwrap(), "lab");
        assert_eq!(radios.named(Some("LTE")).unwrap_err().to_string(), "no radio \"LTE\"; there are lab");
        let missing = Radios::read(Path::new("/does/not/exist.toml")).unwrap_err();
        assert!(missing.to_string().starts_with("/does/not/exist.toml: "));
    }
}
