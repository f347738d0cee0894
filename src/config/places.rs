//! Settings that are either a place or a word.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
