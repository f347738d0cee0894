//! Settings whose text is a keyword or a value: the MQTT address, the place of the store, the sync policy, and the place of the
//! access log.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::stream::SyncPolicy;

/// Address of the MQTT listener: `off`, or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttAddress {
    /// No MQTT over TCP. MQTT over WebSocket is served on the gateway's HTTP address in any case.
    Off,
    /// The address to listen on.
    At(SocketAddr),
}

/// Where messages are stored: `memory`, a directory, or the URL of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// In memory, for the lifetime of the process.
    Memory,
    /// In a directory, which is created if it does not exist.
    Directory(PathBuf),
    /// In Redis or Valkey, which other gateways may share.
    Engine(EngineUrl),
}

/// The URL of an engine, which may contain a password.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineUrl(String);

/// What the URLs of engines begin with.
const ENGINE_SCHEMES: [&str; 13] = [
    "redis://",
    "rediss://",
    "redis+unix://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
    "valkey://",
    "valkeys://",
    "valkey+sentinel://",
    "valkeys+sentinel://",
    "valkey+cluster://",
    "valkeys+cluster://",
];

impl EngineUrl {
    /// The text of the URL if it is one of an engine.
    fn parse(text: &str) -> Option<Self> {
        let is_engine = ENGINE_SCHEMES.iter().any(|scheme| text.starts_with(scheme));
        is_engine.then(|| Self(text.to_owned()))
    }

    /// The whole URL, with the password.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EngineUrl {
    /// Writes the URL without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let shown = rest.rsplit_once('@').map_or(rest, |(_, shown)| shown);
        write!(f, "{scheme}://{shown}")
    }
}

impl fmt::Debug for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the access log is written: `off`, `-`, or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogPlace {
    /// Nowhere.
    Off,
    /// To standard output.
    StandardOutput,
    /// To the end of a file, which is created if it does not exist.
    File(PathBuf),
}

/// One path, or a list of them.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Paths {
        One(PathBuf),
        Many(Vec<PathBuf>),
    }
    Ok(match Paths::deserialize(deserializer)? {
        Paths::One(path) => vec![path],
        Paths::Many(paths) => paths,
    })
}

impl Serialize for MqttAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::At(address) => serializer.collect_str(address),
        }
    }
}

impl<'de> Deserialize<'de> for MqttAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = text.parse().map_err(|_| format!("{text:?} is neither an address nor off"));
        address.map(Self::At).map_err(serde::de::Error::custom)
    }
}

impl Serialize for StorePlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Memory => serializer.serialize_str("memory"),
            Self::Directory(path) => serializer.collect_str(&path.display()),
            Self::Engine(url) => serializer.serialize_str(url.secret()),
        }
    }
}

impl<'de> Deserialize<'de> for StorePlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Err(serde::de::Error::custom("the store must be a directory, memory, or a URL")),
            "memory" => Ok(Self::Memory),
            text => Ok(match EngineUrl::parse(text) {
                Some(url) => Self::Engine(url),
                None if text.contains("://") => {
                    let schemes = ENGINE_SCHEMES.join(", ");
                    let why =
                        format!("the store is a directory, memory, or a URL that begins with {schemes}");
                    return Err(serde::de::Error::custom(why));
                }
                None => Self::Directory(text.into()),
            }),
        }
    }
}

impl Serialize for AccessLogPlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::StandardOutput => serializer.serialize_str("-"),
            Self::File(path) => serializer.collect_str(&path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for AccessLogPlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Err(serde::de::Error::custom("the access log must be a file, - (standard output) or off")),
            "off" => Ok(Self::Off),
            "-" => Ok(Self::StandardOutput),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// The text is not a sync policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sync policy; use always, interval:100ms or never")]
pub struct InvalidSync(String);

impl FromStr for SyncPolicy {
    type Err = InvalidSync;

    fn from_str(text: &str) -> Result<Self, InvalidSync> {
        let invalid = || InvalidSync(text.to_owned());
        match text.split_once(':') {
            None if text == "always" => Ok(Self::Always),
            None if text == "never" => Ok(Self::Never),
            Some(("interval", interval)) => {
                let interval: jiff::SignedDuration = interval.parse().map_err(|_| invalid())?;
                let interval = Duration::try_from(interval).map_err(|_| invalid())?;
                if interval.is_zero() { Err(invalid()) } else { Ok(Self::Interval(interval)) }
            }
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Interval(interval) => write!(f, "interval:{interval:?}"),
            Self::Never => f.write_str("never"),
        }
    }
}

impl Serialize for SyncPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SyncPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
