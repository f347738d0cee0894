//! [`OriginSettings`]: where a polled stream comes from, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest key of elements, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// The interval of an origin for which none is requested, and the longest one that can be.
const INTERVAL_MIN_DEFAULT: Duration = Duration::from_secs(5);
const INTERVAL_MAX_DEFAULT: Duration = Duration::from_secs(60);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where a polled stream comes from. Two origins with equal settings are polled in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginSettings {
    /// The URL that is polled.
    pub url: Box<str>,
    /// How often it is polled.
    pub interval: OriginInterval,
    /// The origin is polled without readers, too.
    pub is_always_polled: bool,
    /// Elements of its JSON array with another value of this key are different elements. `None`: the response is one thing.
    pub key: Option<ElementKey>,
}

/// The time between two polls. It becomes shorter when the origin changes, and longer when it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginInterval {
    /// The shortest time.
    pub min: Duration,
    /// The longest time, unless the origin asks for a longer one.
    pub max: Duration,
}

impl Default for OriginInterval {
    fn default() -> Self {
        Self { min: INTERVAL_MIN_DEFAULT, max: INTERVAL_MAX_DEFAULT }
    }
}

impl OriginInterval {
    /// Parses `5` or `5-60`, in seconds. `None`: it is neither, the second number is smaller, or one is 0 or more than a day.
    pub fn parse(text: &str) -> Option<Self> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let seconds = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_number.then(|| text.parse().ok()).flatten().filter(|number| *number > 0);
            number.map(Duration::from_secs).filter(|interval| *interval <= INTERVAL_MAX)
        };
        let (min, max) = (seconds(min.trim())?, seconds(max.trim())?);
        (min <= max).then_some(Self { min, max })
    }

    /// The text that [`parse`](Self::parse) accepts.
    pub fn to_text(self) -> String {
        let (min, max) = (self.min.as_secs(), self.max.as_secs());
        if min == max { min.to_string() } else { format!("{min}-{max}") }
    }

    /// The interval with both times at least `least`.
    #[must_use]
    pub fn at_least(self, least: Duration) -> Self {
        let min = self.min.max(least);
        Self { min, max: self.max.max(min) }
    }
}

/// Tells the elements of a JSON array apart: the name of a member, or a JSON pointer (RFC 6901) into each element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementKey(Box<str>);

impl ElementKey {
    /// Parses a name or a pointer. `None`: it is empty, too long, or has control characters.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = !text.is_empty() && text.len() <= KEY_BYTES_MAX && !text.chars().any(char::is_control);
        is_valid.then(|| Self(text.into()))
    }

    /// The name or the pointer.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of an element, as JSON. `None`: the element has no text, number or boolean there.
    pub fn of(&self, element: &Value) -> Option<String> {
        let found = if self.0.starts_with('/') { element.pointer(&self.0) } else { element.get(&*self.0) };
        let is_scalar = |value: &&Value| value.is_string() || value.is_number() || value.is_boolean();
        found.filter(is_scalar).map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_one_number_of_seconds_or_two_in_order() {
        let seconds = |text: &str| {
            OriginInterval::parse(text).map(|interval| (interval.min.as_secs(), interval.max.as_secs()))
        };
        assert_eq!(
            [seconds("5"), seconds("5-60"), seconds("1 - 86400")],
            [Some((5, 5)), Some((5, 60)), Some((1, 86_400))]
        );
        for text in ["", "0", "60-5", "1-86401", "-5", "5-", "1.5", "5s", "+5", "1-2-3"] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
        for text in ["5", "5-60"] {
            assert_eq!(OriginInterval::parse(text).unwrap().to_text(), text);
        }
        let least = OriginInterval::parse("1-2").unwrap().at_least(Duration::from_secs(9));
        assert_eq!(least.to_text(), "9");
    }

    #[test]
    fn a_key_is_a_member_or_a_pointer_to_a_scalar() {
        let element = serde_json::json!({"id": 7, "a/b": "x", "user": {"id": true}, "none": null});
        let key = |text: &str| ElementKey::parse(text).and_then(|key| key.of(&element));
        assert_eq!(key("id").as_deref(), Some("7"));
        assert_eq!(key("a/b").as_deref(), Some("\"x\""));
        assert_eq!(key("/user/id").as_deref(), Some("true"));
        for text in ["user", "none", "missing", "/user/name", ""] {
            assert_eq!(key(text), None, "{text:?}");
        }
    }
}
