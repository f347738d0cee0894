//! A memory size with a unit, such as `256M`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Smallest memory budget that a gateway can run with.
const BYTES_MIN: u64 = 32 << 20;

/// A size such as `256M` or `2G`, at least 32 MiB. Units are powers of 1024: `K`, `M`, `G` and `T`, or `KiB`, `MiB`, `GiB` and
/// `TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySize(u64);

/// The text is not a [`MemorySize`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size of at least 32M; write for example 256M or 2G")]
pub struct InvalidSize(String);

impl MemorySize {
    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let parse = || {
            let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
            let unit = match text.get(digits.len()..)? {
                "" => 0,
                "K" | "KiB" => 10,
                "M" | "MiB" => 20,
                "G" | "GiB" => 30,
                "T" | "TiB" => 40,
                _ => return None,
            };
            digits.parse::<u64>().ok()?.checked_mul(1 << unit).filter(|bytes| *bytes >= BYTES_MIN)
        };
        parse().map(Self).ok_or_else(|| InvalidSize(text.to_owned()))
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for MemorySize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemorySize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, mib) in [("256M", 256), ("2G", 2048), ("64MiB", 64), ("33554432", 32), ("65536K", 64)] {
            assert_eq!(text.parse::<MemorySize>().map(|size| size.bytes() >> 20), Ok(mib), "{text}");
        }
        for text in ["", "M", "31M", "1", "-1G", "1.5G", "2g", "99999999999T", "2 G"] {
            assert!(text.parse::<MemorySize>().is_err(), "{text:?}");
        }
    }
}
