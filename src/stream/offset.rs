//! Positions and offsets. An offset is opaque to clients. Its text is `{epoch}_{position}` in fixed width, so that offsets sort
//! as text.

use std::fmt;
use std::str::FromStr;

/// One life of a log. The epoch changes when a log is lost or created again, so that an offset of the old log is recognized
/// instead of pointing to an unrelated message. Stores assign epochs in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A position in a log: the number of messages before it in JSON mode, the number of bytes before it otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// A position in one stream, together with the epoch of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The position in the log.
    pub position: Position,
}

/// The point from which a reader wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// `-1`, or no offset: the earliest message that is kept.
    Earliest,
    /// `now`: the tail at the time when the request is served.
    Tail,
    /// An offset from an earlier response.
    At(Offset),
}

/// The text is not an offset of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidOffset;

/// Hexadecimal digits of an epoch and of a position.
const DIGITS: usize = 16;

impl Position {
    /// The position `count` further on. Saturates; no log reaches 2^64 bytes.
    pub fn after(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The distance from `earlier` to this position; 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Offset {
    /// The beginning of any log. Nothing comes before it, so it needs no epoch.
    pub const ZERO: Self = Self { epoch: Epoch(0), position: Position(0) };

    /// The text of the offset: 33 ASCII characters.
    pub fn to_text(self) -> [u8; 2 * DIGITS + 1] {
        let mut text = [b'_'; 2 * DIGITS + 1];
        let (epoch, rest) = text.split_at_mut(DIGITS);
        epoch.copy_from_slice(&hex(self.epoch.0));
        if let Some((_, position)) = rest.split_first_mut() {
            position.copy_from_slice(&hex(self.position.0));
        }
        text
    }
}

/// The 16 hexadecimal digits of a number. Each half becomes a word with a digit in each byte, as every response has several such numbers.
pub fn hex(number: u64) -> [u8; DIGITS] {
    let digits = |half: u64| {
        let halves = (half | half << 16) & 0x0000_ffff_0000_ffff;
        let bytes = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
        let values = (bytes | bytes << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let are_letters = (values + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        values + 0x3030_3030_3030_3030 + are_letters * u64::from(b'a' - b'9' - 1)
    };
    (u128::from(digits(number >> 32)) << 64 | u128::from(digits(number & 0xffff_ffff))).to_be_bytes()
}

/// Parses digits in lower case, so that each number has one spelling. Each half is a word with a digit in each byte, as every request has
/// several such numbers.
fn read_hex(digits: &[u8; DIGITS]) -> Option<u64> {
    let number = |text: u64| {
        let are_letters = text >> 6 & 0x0101_0101_0101_0101;
        let values = ((text & 0x0f0f_0f0f_0f0f_0f0f) + are_letters * 9) & 0x0f0f_0f0f_0f0f_0f0f;
        let bytes = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
        let halves = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
        (halves | halves >> 16) & 0xffff_ffff
    };
    let text = u128::from_be_bytes(*digits);
    let number = number((text >> 64) as u64) << 32 | number(text as u64);
    // Other characters give some number, whose digits these are not.
    (hex(number) == *digits).then_some(number)
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).unwrap_or_default())
    }
}

impl FromStr for Offset {
    type Err = InvalidOffset;

    fn from_str(text: &str) -> Result<Self, InvalidOffset> {
        let (epoch, rest) = text.as_bytes().split_first_chunk().ok_or(InvalidOffset)?;
        let position = rest.strip_prefix(b"_").and_then(|rest| rest.try_into().ok()).ok_or(InvalidOffset)?;
        let epoch = Epoch(read_hex(epoch).ok_or(InvalidOffset)?);
        let position = Position(read_hex(position).ok_or(InvalidOffset)?);
        Ok(Self { epoch, position })
    }
}

impl FromStr for Start {
    type Err = InvalidOffset;

    fn from_str(text: &str) -> Result<Self, InvalidOffset> {
        match text {
            "-1" => Ok(Self::Earliest),
            "now" => Ok(Self::Tail),
            _ => text
                .parse()
                .map(|offset| if offset == Offset::ZERO { Self::Earliest } else { Self::At(offset) }),
        }
    }
}

impl fmt::Display for InvalidOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an offset is -1, now, or a value of Stream-Next-Offset")
    }
}

impl std::error::Error for InvalidOffset {}

/// What a reader of many streams has received of one stream. Its resume token contains this, so that it is told everything
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing yet; the reader begins at the earliest message that is kept.
    Earliest,
    /// All messages before the offset.
    At(Offset),
    /// All messages before the offset, and that the stream is closed.
    Closed(Offset),
    /// That the stream does not exist. When it is created, the reader gets all of its messages.
    Missing,
}

impl Progress {
    /// The point from which to continue. A reader that waits for the stream to be created reads from the zero offset, so that
    /// the store reports a gap if messages were trimmed before the reader received them.
    pub fn start(self) -> Start {
        match self {
            Self::Earliest => Start::Earliest,
            Self::At(offset) | Self::Closed(offset) => Start::At(offset),
            Self::Missing => Start::At(Offset::ZERO),
        }
    }

    /// Whether the reader has been told something about the stream.
    pub fn is_known(self) -> bool {
        self != Self::Earliest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back_and_sorts_as_the_offset_does() {
        let offsets =
            [(0, 0), (0, 1), (1, 0), (1, 15), (1, 16), (0xabc, 9), (u64::MAX, 3), (u64::MAX, u64::MAX)]
                .map(|(epoch, position)| Offset { epoch: Epoch(epoch), position: Position(position) });
        for pair in offsets.windows(2) {
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        for offset in offsets {
            assert_eq!(offset.to_string().parse(), Ok(offset));
        }
    }

    #[test]
    fn only_the_one_spelling_is_an_offset() {
        let good = Offset { epoch: Epoch(0xab), position: Position(1) }.to_string();
        let bad =
            ["", "0", "-2", "Now", "0_0", &good.to_uppercase(), &format!("{good}0"), &good[1..], "+1_1"];
        for text in bad {
            assert_eq!(text.parse::<Start>(), Err(InvalidOffset), "{text:?}");
        }
        for byte in (0..128).filter(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            for at in (0..good.len()).filter(|at| good.as_bytes()[*at] != byte) {
                let mut text = good.clone().into_bytes();
                text[at] = byte;
                let text = String::from_utf8(text).unwrap();
                assert_eq!(text.parse::<Offset>(), Err(InvalidOffset), "{text:?}");
            }
        }
    }

    #[test]
    fn the_zero_offset_is_the_beginning_of_every_log() {
        assert_eq!(Offset::ZERO.to_string().parse(), Ok(Start::Earliest));
        assert_eq!("-1".parse(), Ok(Start::Earliest));
        assert_eq!("now".parse(), Ok(Start::Tail));
    }
}
