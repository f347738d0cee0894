//! Parsers of option values.

use std::path::Path;
use std::time::Duration;

use crate::data::Report;
use crate::model::network::Networks;
use crate::model::radio::Radios;
use crate::strategies::{positive, whole_seconds};
use crate::workload::MESSAGE_BYTES_MIN;

/// Parses messages per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (0.0..=1e6).contains(rate));
    rate.ok_or_else(|| "want 0 to 1000000 messages a second".to_owned())
}

/// Parses messages per second, for commands that need at least some.
pub(super) fn rate_above_zero(text: &str) -> Result<f64, String> {
    rate(text)?.gt(&0.0).then_some(rate(text)?).ok_or_else(|| "want more than 0 messages a second".to_owned())
}

/// Parses a time in seconds.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| (0.1..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "want 0.1 to 86400 seconds".to_owned())
}

/// Parses the size of a message in bytes.
pub(super) fn message_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| (MESSAGE_BYTES_MIN..=1_000_000).contains(bytes));
    bytes.ok_or_else(|| {
        format!("want {MESSAGE_BYTES_MIN} to 1000000 bytes: a message carries its place and its run")
    })
}

/// Parses a duration with its unit.
pub(super) fn setting(text: &str) -> Result<Duration, String> {
    positive(text)
}

/// Parses a duration of whole seconds with its unit.
pub(super) fn whole_setting(text: &str) -> Result<Duration, String> {
    whole_seconds(text)
}

/// Reads a file of radio profiles.
pub(super) fn radios(path: &str) -> Result<Radios, String> {
    Radios::read(Path::new(path)).map_err(|error| error.to_string())
}

/// Reads a file of network profiles.
pub(super) fn networks(path: &str) -> Result<Networks, String> {
    Networks::read(Path::new(path)).map_err(|error| error.to_string())
}

/// Reads a `report.json`.
pub(super) fn report(path: &str) -> Result<Report, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| format!("not a report in this format: {error}"))
}
