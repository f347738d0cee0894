//! When what was written is synced, which is what an acknowledgement promises.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// When the log is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before anything is acknowledged: that survives a power cut.
    Always,
    /// At most so long after it was acknowledged: a power cut loses as much, a kill of the process nothing.
    Interval(Duration),
    /// When the system likes to: a power cut loses some seconds, a kill of the process nothing.
    Never,
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
