//! Settings that are a word, or a place or duration in its stead.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::stream::SyncPolicy;

/// Where MQTT is served: `off`, or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttAddress {
    /// Nowhere over TCP; only over WebSocket at the gateway's own address.
    Off,
    /// At an address.
    At(SocketAddr),
}

/// Where messages are kept: `memory`, or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// As long as the process lives.
    Memory,
    /// In a directory, which is made if it is not there.
    Directory(PathBuf),
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
        }
    }
}

impl<'de> Deserialize<'de> for StorePlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Err(serde::de::Error::custom("a store is a directory, or memory")),
            "memory" => Ok(Self::Memory),
            path => Ok(Self::Directory(path.into())),
        }
    }
}

/// The text is none of `always`, `interval:100ms` and `never`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of always, interval:100ms and never")]
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
