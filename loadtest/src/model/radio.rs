//! Radio profiles: the powers and times of a phone's radio, as data.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The profiles that a report covers. The default is the embedded `radios.toml`, which says where each figure comes
/// from; [`Radios::read`] takes a file of the same shape in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Radios(Vec<Radio>);

/// What a radio draws, and for how long (COST-MODEL section 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Radio {
    /// As reports show it.
    pub name: String,
    /// Where the figures come from and how sure they are.
    pub source: String,
    /// Watts of the sleeping radio.
    pub idle_w: f64,
    /// The way out of sleep, before the first packet.
    pub promotion: Stage,
    /// What follows a packet, stage after stage, unless the next packet comes before.
    pub tail: Vec<Stage>,
    /// Milliwatts per megabit a second, to the network.
    pub up_mw_per_mbps: f64,
    /// Milliwatts per megabit a second, from the network.
    pub down_mw_per_mbps: f64,
}

/// A time at one power.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Watts, the sleeping radio's included.
    pub power_w: f64,
    /// Its length.
    pub seconds: f64,
}

/// Why a file holds no radio profiles.
#[derive(Debug, thiserror::Error)]
pub enum RadioError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It is not of the shape of `radios.toml`.
    #[error("not a file of radio profiles: {0}")]
    Shape(#[from] toml::de::Error),
    /// It names no radio.
    #[error("no [[radio]] in it")]
    Empty,
    /// A power, time or slope is negative or not finite.
    #[error("radio {0:?}: every figure must be finite and not negative")]
    Figure(String),
    /// No profile has that name.
    #[error("no radio {name:?}; there are {}", known.join(", "))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
}

impl Radios {
    /// The profiles of a user's own file.
    pub fn read(path: &Path) -> Result<Self, RadioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| RadioError::File { path: path.to_owned(), error })?;
        text.parse()
    }

    /// The name of the profile that is asked for; of the first one if none is.
    pub fn named(&self, name: Option<&str>) -> Result<String, RadioError> {
        let wanted = |radio: &&Radio| name.is_none_or(|name| radio.name == name);
        let found = self.iter().find(wanted).map(|radio| radio.name.clone());
        found.ok_or_else(|| RadioError::Unknown {
            name: name.unwrap_or_default().to_owned(),
            known: self.iter().map(|radio| radio.name.clone()).collect(),
        })
    }

    /// Each profile, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Radio> {
        self.0.iter()
    }
}

impl Default for Radios {
    fn default() -> Self {
        // A test holds that the embedded table parses, so that the fallback is never taken.
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
    /// Joules above sleep of one way out of it.
    pub fn promotion_joules(&self) -> f64 {
        self.promotion.seconds * (self.promotion.power_w - self.idle_w)
    }

    /// How long a packet keeps the radio awake.
    pub fn tail_time(&self) -> Duration {
        Duration::try_from_secs_f64(self.tail.iter().map(|stage| stage.seconds).sum())
            .unwrap_or(Duration::MAX)
    }

    /// Each stage of the tail: when it begins and ends (seconds after the packet), and its watts above sleep.
    pub fn stages(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        self.tail.iter().scan(0.0, |begin, stage| {
            let from = *begin;
            *begin += stage.seconds;
            Some((from, *begin, stage.power_w - self.idle_w))
        })
    }

    /// Joules of so many bytes on the air.
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
    fn a_file_of_the_user_takes_its_place_or_says_what_is_wrong() {
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
