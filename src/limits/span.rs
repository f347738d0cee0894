//! [`Span`]: a duration as people write it in settings.

use std::fmt;
use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanPrinter};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration whose text is `25s`, `1m30s` or `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// A duration of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration in whole seconds, rounded down.
    pub(super) fn whole_seconds(self) -> usize {
        usize::try_from(self.0.as_secs()).unwrap_or(usize::MAX)
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span: jiff::SignedDuration =
            text.parse().map_err(|error| format!("{text:?} is not a duration: {error}"))?;
        let span = Duration::try_from(span).map_err(|_| format!("{text:?} is negative"))?;
        if span > Duration::from_secs(7 * 24 * 3600) {
            Err(format!("{text:?} is longer than a week"))
        } else {
            Ok(Self(span))
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);
        let span = jiff::SignedDuration::try_from(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&PRINTER.duration_to_string(&span))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, millis) in [("25s", 25_000), ("250ms", 250), ("1m 30s", 90_000), ("0s", 0)] {
            assert_eq!(text.parse::<Span>().map(|span| span.get().as_millis()), Ok(millis));
        }
        for text in ["", "25", "-1s", "8d", "1e9h"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_span_is_written_as_it_is_read() {
        for text in ["25s", "250ms", "1m30s", "0s", "1h", "24h"] {
            assert_eq!(text.parse::<Span>().map(|span| span.to_string()).as_deref(), Ok(text));
        }
    }
}
