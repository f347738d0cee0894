//! Identifies damaged frames, so that their readers are told what is missing even if no later record shows a hole.
//!
//! The result is which messages were lost and how many, and a change of a session if only one bit of its record was flipped. No
//! message of a damaged frame is served.

use super::frame::{self, FrameHeader, FrameLocation};
use super::record::{LogRecord, StreamId};
use super::scan::Damaged;
use crate::stream::Position;

/// A record that a damaged frame probably had.
#[derive(Debug)]
pub(super) struct SuspectedRecord {
    pub(super) record: LogRecord,
    /// Bytes of its content.
    pub(super) content: usize,
}

impl SuspectedRecord {
    /// The stream of its messages, and their first and end positions; `None` if it has no messages.
    pub(super) fn messages(&self) -> Option<(StreamId, Position, Position)> {
        let (stream, start, ends) = match &self.record {
            LogRecord::Created { stream, ends, .. } | LogRecord::CreatedWith { stream, ends, .. } => {
                (stream.id, stream.tail, ends)
            }
            LogRecord::Appended { stream, start, ends, .. }
            | LogRecord::Moved { stream, start, ends, .. } => (*stream, *start, ends),
            LogRecord::Opened { .. }
            | LogRecord::Closed
            | LogRecord::Run { .. }
            | LogRecord::State { .. }
            | LogRecord::Ended { .. }
            | LogRecord::Cleared { .. }
            | LogRecord::Renewed { .. }
            | LogRecord::Session { .. }
            | LogRecord::SessionChanged { .. } => return None,
        };
        let start = Position(start);
        let end = start.after(ends.clone().shape(self.content).positions());
        (end > start).then_some((stream, start, end))
    }
}

/// The record, if exactly one flipped bit explains the checksum.
pub(super) fn with_bit_restored(damaged: &Damaged) -> Option<SuspectedRecord> {
    let (FrameHeader { length, sum }, rest) = frame::header(&damaged.bytes)?;
    let (place, body) = (damaged.place, rest.get(..frame::bytes_of(length)));
    body.and_then(|body| by_sum(place, length, sum, body))
        .or_else(|| by_length(place, length, sum, rest))
        .or_else(|| by_body(place, length, sum, body?))
}

/// The record as it can be decoded without a valid checksum. It may differ from the one that was written.
pub(super) fn decode_unchecked(damaged: &Damaged) -> Option<SuspectedRecord> {
    let (FrameHeader { length, .. }, rest) = frame::header(&damaged.bytes)?;
    suspect(rest.get(..frame::bytes_of(length)).unwrap_or(rest))
}

fn suspect(body: &[u8]) -> Option<SuspectedRecord> {
    let (record, content) = frame::split(body)?;
    Some(SuspectedRecord { record, content: content.len() })
}

/// Tries whether a bit of the checksum was flipped.
fn by_sum(place: FrameLocation, length: u32, sum: u32, body: &[u8]) -> Option<SuspectedRecord> {
    let flipped = frame::checksum(place, length, body) ^ sum;
    (flipped.count_ones() == 1).then(|| suspect(body))?
}

/// Tries whether a bit of the length was flipped.
fn by_length(place: FrameLocation, length: u32, sum: u32, rest: &[u8]) -> Option<SuspectedRecord> {
    let lengths = (0..u32::BITS).map(|bit| length ^ 1 << bit);
    let mut bodies = lengths.filter_map(|length| Some((length, rest.get(..frame::bytes_of(length))?)));
    bodies
        .find(|(length, body)| frame::checksum(place, *length, body) == sum)
        .and_then(|(_, body)| suspect(body))
}

/// Tries whether a bit of the body was flipped. The effect of a bit on a CRC depends only on its distance to the end, so this
/// takes linear time.
fn by_body(place: FrameLocation, length: u32, sum: u32, body: &[u8]) -> Option<SuspectedRecord> {
    let difference = frame::checksum(place, length, body) ^ sum;
    let mut bits: [u32; 8] = std::array::from_fn(|bit| crc_after(0, 1 << bit));
    for byte in (0..body.len()).rev() {
        if let Some(bit) = bits.iter().position(|bit| *bit == difference) {
            let mut body = body.to_vec();
            flip(&mut body, byte * 8 + bit);
            return suspect(&body);
        }
        bits = bits.map(|bit| crc_after(bit, 0));
    }
    None
}

/// The CRC register after one more byte. The checksum is its complement.
fn crc_after(register: u32, byte: u8) -> u32 {
    !crc32c::crc32c_append(!register, &[byte])
}

fn flip(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::record::Ends;

    const PLACE: FrameLocation = FrameLocation { segment: 3, offset: 4096 };

    #[test]
    fn any_single_flipped_bit_is_found() {
        for content in [vec![b'x'; 40], vec![b'y'; 2000]] {
            let record = LogRecord::Appended {
                stream: 300,
                start: 70_000,
                at: 1_800_000_000_000,
                ends: Ends::Raw,
                said: None,
            };
            let mut whole = Vec::new();
            frame::write(&mut whole, PLACE, true, &record, &content);
            for bit in (0..whole.len() * 8).filter(|bit| *bit < 1024 || bit % 61 == 0) {
                let mut bytes = whole.clone();
                flip(&mut bytes, bit);
                let damaged = Damaged { place: PLACE, bytes: bytes.into() };
                let found = with_bit_restored(&damaged).map(|found| (found.record, found.content));
                let Some((LogRecord::Appended { stream: 300, start: 70_000, .. }, length)) = found else {
                    panic!("bit {bit}: {found:?}")
                };
                assert_eq!(length, content.len());
            }
        }
    }
}
