//! Parsers of option values.

use std::path::Path;
use std::time::Duration;

use crate::data::Report;
use crate::model::network::Networks;
use crate::model::radio::Radios;
use crate::strategies::{positive, whole_seconds};
use crate::workload::MESSAGE_BYTES_MIN;

/// Parses messages per second: `0.2`, or messages in a time such as `1 per 10 min` or `30 per hour`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = match text.split_once(" per ") {
        None => text.parse().ok(),
        Some((count, time)) => {
            count.trim().parse::<f64>().ok().zip(period(time)).map(|(count, time)| count / time)
        }
    };
    let rate = rate.filter(|rate: &f64| (0.0..=1e6).contains(rate));
    rate.ok_or_else(|| "want 0 to 1000000 messages a second, such as 0.2 or '1 per 10 min'".to_owned())
}

/// Parses a time such as `10 min`, `hour` or `2h`, in seconds.
fn period(text: &str) -> Option<f64> {
    let text = text.trim();
    let (count, unit) = text.split_at(text.find(char::is_alphabetic)?);
    let count = if count.trim().is_empty() { 1.0 } else { count.trim().parse::<f64>().ok()? };
    let unit = match unit {
        "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    (count > 0.0).then_some(count * unit)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_messages_a_second_or_in_a_time() {
        let rates = ["0.2", "1 per 10 min", "30 per hour", "2 per day", "1 per 5s", "0"]
            .map(|text| rate(text).unwrap());
        assert_eq!(rates, [0.2, 1.0 / 600.0, 30.0 / 3600.0, 2.0 / 86_400.0, 0.2, 0.0]);
        for wrong in ["", "-1", "1 per", "1 per 0 s", "x per day", "1 per fortnight", "1 per 10", "1e9 per s"]
        {
            assert!(rate(wrong).is_err(), "{wrong:?}");
        }
    }
}
