//! The cursor over many streams: opaque to clients, a list of parts joined by dots to us.
//!
//! A part is a version and then an entry for each stream: a hash of its name, how far the reader has come, and the
//! offset there, with the epoch as the difference to the entry before. That takes about 16 characters a stream, since
//! streams that were created one after the other have epochs close to each other. Of two entries for a stream the
//! later one counts. The order of the entries is that in which the streams have their turn, so that in a full answer
//! none of them is passed over again and again.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::stream::{Epoch, Offset, Position, Progress, StreamName};

const VERSION: u8 = 1;

/// A stable 64-bit hash of a stream's name. Names can be made to collide, so a request may not name two that do; and
/// if one takes the place of the other, its epoch is another one, which shows as a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) struct NameHash(u64);

/// What a cursor says, by stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::http) struct Known(HashMap<NameHash, (usize, Progress)>);

/// The text is no cursor of many streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cursor over many streams is what an earlier answer said, with what followed it")]
pub(in crate::http) struct InvalidCursor;

impl NameHash {
    /// FNV-1a of 64 bits (Fowler, Noll and Vo).
    pub(in crate::http) fn of(name: &StreamName) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }
}

impl Known {
    /// Reads a cursor.
    pub(in crate::http) fn parse(text: &str) -> Result<Self, InvalidCursor> {
        let mut known = Self::default();
        let mut turn = 0..;
        for part in text.split('.') {
            let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidCursor)?;
            let mut entries = Entries::of(&bytes)?;
            while let Some((hash, progress)) = entries.next()? {
                known.0.insert(hash, (turn.next().unwrap_or_default(), progress));
            }
        }
        Ok(known)
    }

    /// The turn of a stream and how far its reader has come, if the cursor speaks of it.
    pub(in crate::http) fn get(&self, hash: NameHash) -> Option<(usize, Progress)> {
        self.0.get(&hash).copied()
    }
}

/// Writes one part, in the order of the turns; empty if it speaks of no stream.
pub(in crate::http) fn part<'a>(places: impl IntoIterator<Item = (&'a StreamName, Progress)>) -> String {
    let mut bytes = vec![VERSION];
    let mut epoch = 0;
    for (name, progress) in places {
        bytes.extend(NameHash::of(name).0.to_le_bytes());
        let (kind, offset) = match progress {
            Progress::Earliest => (Kind::Earliest, None),
            Progress::At(offset) => (Kind::At, Some(offset)),
            Progress::Closed(offset) => (Kind::Closed, Some(offset)),
            Progress::Missing => (Kind::Missing, None),
        };
        bytes.push(kind as u8);
        if let Some(offset) = offset {
            put_number(&mut bytes, zigzag(offset.epoch.0.wrapping_sub(epoch)));
            put_number(&mut bytes, offset.position.0);
            epoch = offset.epoch.0;
        }
    }
    if bytes.len() > 1 { URL_SAFE_NO_PAD.encode(bytes) } else { String::new() }
}

/// How an entry goes on.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Earliest,
    At,
    Closed,
    Missing,
}

/// The entries of one part.
struct Entries<'a> {
    bytes: &'a [u8],
    epoch: u64,
}

impl<'a> Entries<'a> {
    fn of(part: &'a [u8]) -> Result<Self, InvalidCursor> {
        match part.split_first() {
            Some((&VERSION, bytes)) => Ok(Self { bytes, epoch: 0 }),
            _ => Err(InvalidCursor),
        }
    }

    fn next(&mut self) -> Result<Option<(NameHash, Progress)>, InvalidCursor> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (hash, rest) = self.bytes.split_first_chunk().ok_or(InvalidCursor)?;
        self.bytes = rest;
        let hash = NameHash(u64::from_le_bytes(*hash));
        let progress = match self.byte()? {
            kind if kind == Kind::Earliest as u8 => Progress::Earliest,
            kind if kind == Kind::At as u8 => Progress::At(self.offset()?),
            kind if kind == Kind::Closed as u8 => Progress::Closed(self.offset()?),
            kind if kind == Kind::Missing as u8 => Progress::Missing,
            _ => return Err(InvalidCursor),
        };
        Ok(Some((hash, progress)))
    }

    fn offset(&mut self) -> Result<Offset, InvalidCursor> {
        self.epoch = self.epoch.wrapping_add(unzigzag(self.number()?));
        let position = Position(self.number()?);
        Ok(Offset { epoch: Epoch(self.epoch), position })
    }

    fn byte(&mut self) -> Result<u8, InvalidCursor> {
        let (byte, rest) = self.bytes.split_first().ok_or(InvalidCursor)?;
        self.bytes = rest;
        Ok(*byte)
    }

    /// Seven bits a byte, the lowest first, and whether another follows.
    fn number(&mut self) -> Result<u64, InvalidCursor> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(InvalidCursor);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(InvalidCursor)
    }
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A difference as a number that is small if the difference is, to either side.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (difference as i64 >> 63) as u64
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
mod tests;
