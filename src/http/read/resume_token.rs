//! The resume token: a position over many streams. It is opaque to clients; the gateway writes it as parts joined by dots.
//!
//! A part is a version and one entry per stream: a hash of its name, the progress of the reader, and its offset, with the
//! epoch as the difference to the entry before. That takes about 16 characters per stream, because streams that were created
//! one after the other have close epochs. If a token has two entries for a stream, the later one counts. The entries are in the
//! order in which the streams take turns, so that no stream is passed over again and again when responses are full.
//!
//! Numbers are encoded as in postcard: seven bits per byte, lowest first, and differences in zigzag
//! (<https://postcard.jamesmunns.com/wire-format>).

#[cfg(test)]
#[path = "../../../fuzz/resume_token.rs"]
mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::stream::{Epoch, Offset, Position, Progress, StreamName};

const VERSION: u8 = 1;

/// The longest encoding of a 64-bit number, at seven bits per byte.
const NUMBER_BYTES_MAX: usize = 10;

/// A stable 64-bit hash of a stream's name, as its client knows it. Names can be made to collide, so a request must not name two that
/// do. If a request names one of them with the token of the other, the epoch differs, and the reader gets a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) struct NameHash(u64);

/// A parsed token: the turn and the progress of each stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::http) struct ResumeToken(HashMap<NameHash, (usize, Progress)>);

/// The text is not a resume token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid resume token; send the `resume` of an earlier response, and after it each later `resumeDelta`, joined by dots"
)]
pub(in crate::http) struct InvalidResumeToken;

impl NameHash {
    /// FNV-1a of 64 bits (Fowler, Noll and Vo).
    pub(in crate::http) fn of(name: &StreamName) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.local().bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }
}

impl ResumeToken {
    pub(in crate::http) fn parse(text: &str) -> Result<Self, InvalidResumeToken> {
        let mut token = Self::default();
        let mut turn = 0;
        for part in text.split('.') {
            let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidResumeToken)?;
            let mut entries = Entries::new(&bytes)?;
            while let Some((hash, progress)) = entries.next()? {
                token.0.insert(hash, (turn, progress));
                turn += 1;
            }
        }
        Ok(token)
    }

    /// Returns the turn and the progress of a stream, if the token has an entry for it.
    pub(in crate::http) fn get(&self, hash: NameHash) -> Option<(usize, Progress)> {
        self.0.get(&hash).copied()
    }
}

/// Writes positions, in the order of their turns, as one part; empty if there are none.
pub(in crate::http) fn part<'a>(positions: impl IntoIterator<Item = (&'a StreamName, Progress)>) -> String {
    let mut bytes = vec![VERSION];
    let mut epoch = 0;
    for (name, progress) in positions {
        bytes.extend(NameHash::of(name).0.to_le_bytes());
        let (kind, offset) = match progress {
            Progress::Earliest => (EntryKind::Earliest, None),
            Progress::At(offset) => (EntryKind::At, Some(offset)),
            Progress::Closed(offset) => (EntryKind::Closed, Some(offset)),
            Progress::Missing => (EntryKind::Missing, None),
        };
        bytes.push(kind as u8);
        if let Some(offset) = offset {
            let difference = offset.epoch.0.wrapping_sub(epoch) as i64;
            put_offset(&mut bytes, (difference, offset.position.0));
            epoch = offset.epoch.0;
        }
    }
    if bytes.len() > 1 { URL_SAFE_NO_PAD.encode(bytes) } else { String::new() }
}

/// The kind of an entry. An offset follows `At` and `Closed`.
#[derive(Debug, Clone, Copy)]
enum EntryKind {
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
    fn new(part: &'a [u8]) -> Result<Self, InvalidResumeToken> {
        match part.split_first() {
            Some((&VERSION, bytes)) => Ok(Self { bytes, epoch: 0 }),
            _ => Err(InvalidResumeToken),
        }
    }

    fn next(&mut self) -> Result<Option<(NameHash, Progress)>, InvalidResumeToken> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (hash, rest) = self.bytes.split_first_chunk().ok_or(InvalidResumeToken)?;
        self.bytes = rest;
        let hash = NameHash(u64::from_le_bytes(*hash));
        let progress = match self.take::<u8>()? {
            kind if kind == EntryKind::Earliest as u8 => Progress::Earliest,
            kind if kind == EntryKind::At as u8 => Progress::At(self.offset()?),
            kind if kind == EntryKind::Closed as u8 => Progress::Closed(self.offset()?),
            kind if kind == EntryKind::Missing as u8 => Progress::Missing,
            _ => return Err(InvalidResumeToken),
        };
        Ok(Some((hash, progress)))
    }

    fn offset(&mut self) -> Result<Offset, InvalidResumeToken> {
        let (difference, position) = self.take::<(i64, u64)>()?;
        self.epoch = self.epoch.wrapping_add_signed(difference);
        Ok(Offset { epoch: Epoch(self.epoch), position: Position(position) })
    }

    fn take<T: Deserialize<'a>>(&mut self) -> Result<T, InvalidResumeToken> {
        let (value, rest) = postcard::take_from_bytes(self.bytes).map_err(|_| InvalidResumeToken)?;
        self.bytes = rest;
        Ok(value)
    }
}

/// Writes an offset, as the difference of its epoch and its position.
fn put_offset(bytes: &mut Vec<u8>, offset: (i64, u64)) {
    let mut room = [0; 2 * NUMBER_BYTES_MAX];
    let written = postcard::to_slice(&offset, &mut room);
    debug_assert!(written.is_ok(), "there is room for two numbers");
    bytes.extend_from_slice(written.as_deref().unwrap_or_default());
}
