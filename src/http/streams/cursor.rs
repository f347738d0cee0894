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

/// What the step of an epoch and a position take at the most, as postcard writes them: ten bytes each.
const PLACE_BYTES_MAX: usize = 20;

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
            let step = offset.epoch.0.wrapping_sub(epoch).cast_signed();
            let mut room = [0; PLACE_BYTES_MAX];
            let place = postcard::to_slice(&(step, offset.position.0), &mut room);
            debug_assert!(place.is_ok(), "two numbers have room in {PLACE_BYTES_MAX} bytes");
            bytes.extend_from_slice(place.as_deref().unwrap_or_default());
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
        let ((step, position), rest): ((i64, u64), _) =
            postcard::take_from_bytes(self.bytes).map_err(|_| InvalidCursor)?;
        self.bytes = rest;
        self.epoch = self.epoch.wrapping_add_signed(step);
        Ok(Offset { epoch: Epoch(self.epoch), position: Position(position) })
    }

    fn byte(&mut self) -> Result<u8, InvalidCursor> {
        let (byte, rest) = self.bytes.split_first().ok_or(InvalidCursor)?;
        self.bytes = rest;
        Ok(*byte)
    }
}

#[cfg(test)]
mod tests;
