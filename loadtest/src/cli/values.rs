//! How values of the command line read.

use std::path::Path;
use std::time::Duration;

use crate::data::Report;
use crate::model::network::Networks;
use crate::model::radio::Radios;
use crate::strategies::{positive, whole_seconds};
use crate::workload::MESSAGE_BYTES_MIN;

/// Messages a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (0.0..=1e6).contains(rate));
    rate.ok_or_else(|| "want 0 to 1000000 messages a second".to_owned())
}

/// The same, for what cannot go without messages.
pub(super) fn rate_above_zero(text: &str) -> Result<f64, String> {
    rate(text)?.gt(&0.0).then_some(rate(text)?).ok_or_else(|| "want more than 0 messages a second".to_owned())
}

/// A time in seconds.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| (0.1..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "want 0.1 to 86400 seconds".to_owned())
}

/// The size of a message.
pub(super) fn message_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| (MESSAGE_BYTES_MIN..=1_000_000).contains(bytes));
    bytes.ok_or_else(|| {
        format!("want {MESSAGE_BYTES_MIN} to 1000000 bytes: a message carries its place and its run")
    })
}

/// A duration with its unit.
pub(super) fn setting(text: &str) -> Result<Duration, String> {
    positive(text)
}

/// The same in whole seconds.
pub(super) fn whole_setting(text: &str) -> Result<Duration, String> {
    whole_seconds(text)
}

/// The radio profiles of a file.
pub(super) fn radios(path: &str) -> Result<Radios, String> {
    Radios::read(Path::new(path)).map_err(|error| error.to_string())
}

/// The network profiles of a file.
pub(super) fn networks(path: &str) -> Result<Networks, String> {
    Networks::read(Path::new(path)).map_err(|error| error.to_string())
}

/// A `report.json`.
pub(super) fn report(path: &str) -> Result<Report, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| format!("no report of this format: {error}"))
}
