//! Offsets of messages, as the gateway writes them.

use std::fmt;
use std::str::FromStr;

/// The offset behind a message: a read of its stream from there begins with the next message. Its text is that of the
/// gateway, 33 characters, which sort as the messages do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset {
    epoch: u64,
    /// Counts the messages of a JSON stream, and the bytes of others.
    position: u64,
}

/// The text is not an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an offset is two numbers of 16 hexadecimal digits, joined by an underscore")]
pub struct InvalidOffset;

impl Offset {
    /// The offset of a position that many before this one.
    pub(crate) fn before(self, positions: u64) -> Self {
        Self { position: self.position.saturating_sub(positions), ..self }
    }

    /// Whether this offset is not behind another one of the same life of the stream.
    pub fn is_at_or_before(self, other: Self) -> bool {
        self.epoch == other.epoch && self.position <= other.position
    }

    /// How many positions lie between an earlier offset and this one.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.position.saturating_sub(earlier.position)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}_{:016x}", self.epoch, self.position)
    }
}

impl FromStr for Offset {
    type Err = InvalidOffset;

    fn from_str(text: &str) -> Result<Self, InvalidOffset> {
        let is_number = |digits: &str| digits.len() == 16 && !digits.starts_with('+');
        let (epoch, position) = text.split_once('_').ok_or(InvalidOffset)?;
        let number = |digits: &str| {
            is_number(digits).then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or(InvalidOffset)
        };
        Ok(Self { epoch: number(epoch)?, position: number(position)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        let text = "31e1cc947a056239_000000000000000c";
        let offset: Offset = text.parse().unwrap();
        assert_eq!(offset.to_string(), text);
        assert_eq!(offset.before(2).to_string(), "31e1cc947a056239_000000000000000a");
        for text in ["", "1_2", "now", "+1e1cc947a056239_000000000000000c"] {
            assert_eq!(text.parse::<Offset>(), Err(InvalidOffset), "{text}");
        }
    }
}
