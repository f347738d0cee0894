//! Iterates over the frames of one segment. After damage it searches for the next valid frame.

use super::frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameLocation, FrameRead};
use super::record::LogRecord;

/// The unit that a disk writes as a whole: after a power cut it has either all new or all old bytes.
const SECTOR_BYTES: usize = 512;

/// Limits the work of a search: it checks at most this many times the size of the segment. A publisher could send bytes of
/// which each looks like the beginning of a long frame.
const SEARCH_FACTOR: usize = 64;

/// A part of a segment.
#[derive(Debug)]
pub(super) enum SegmentPart<'a> {
    /// A valid frame.
    FoundFrame(FoundFrame<'a>),
    /// Bytes that are not a valid frame.
    Damage(Damage),
}

#[derive(Debug)]
pub(super) struct FoundFrame<'a> {
    pub(super) offset: u32,
    /// Size including the header.
    pub(super) bytes: u32,
    pub(super) body: &'a [u8],
    /// Whether everything before the frame was synced when it was written.
    pub(super) follows_sync: bool,
}

/// Bytes that are not a valid frame, by their offsets in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) from: u32,
    /// Where the next frame begins or, if there is none, the end of what was ever written.
    pub(super) to: u32,
    /// Whether the damage can come from a power cut during a write that was not synced yet.
    pub(super) looks_torn: bool,
}

/// Iterator over the parts of a segment. Ends where nothing more was written.
#[derive(Debug)]
pub(super) struct SegmentFrames<'a> {
    bytes: &'a [u8],
    number: u32,
    offset: usize,
    /// The offset after the last byte that is not zero.
    used: usize,
    search_bytes_left: usize,
}

impl<'a> SegmentFrames<'a> {
    /// The parts from `offset` on of the segment `number`, whose content is `bytes`.
    pub(super) fn new(bytes: &'a [u8], number: u32, offset: u32) -> Self {
        let used = used(bytes);
        let search_bytes_left = bytes.len().saturating_mul(SEARCH_FACTOR);
        Self { bytes, number, offset: offset as usize, used, search_bytes_left }
    }

    /// The offset of the next part or, after the last one, where the segment can be written.
    pub(super) fn offset(&self) -> u32 {
        small(self.offset)
    }

    fn rest(&self, offset: usize) -> &'a [u8] {
        self.bytes.get(offset..).unwrap_or_default()
    }

    fn place(&self, offset: usize) -> FrameLocation {
        FrameLocation { segment: self.number, offset: small(offset) }
    }

    /// The damage that begins at `from`, where no valid frame is.
    fn damage(&mut self, from: usize) -> Damage {
        let extent = self.extent(from);
        let next = match extent {
            Some(end) if self.is_frame(end) => Some(end),
            // Do not search within its content, which may look like a record.
            Some(end) => self.search(end),
            None => self.search(from + 1),
        };
        let (to, looks_torn) = match (next, extent) {
            (Some(next), _) => (next, self.has_unwritten_sector(from, next)),
            (None, Some(end)) => (end, self.has_unwritten_sector(from, end)),
            (None, None) => (self.used, true),
        };
        Damage { from: small(from), to: small(to), looks_torn }
    }

    /// The end of a damaged frame, if all of it was written and its length is valid or has one flipped bit.
    fn extent(&self, from: usize) -> Option<usize> {
        let (FrameHeader { length, sum }, rest) = frame::header(self.rest(from))?;
        let end = |length: u32| from + FRAME_HEADER_BYTES + frame::bytes_of(length);
        let flipped = (0..u32::BITS).map(|bit| length ^ 1 << bit).find(|length| {
            let body = rest.get(..frame::bytes_of(*length));
            body.is_some_and(|body| frame::checksum(self.place(from), *length, body) == sum)
        });
        if let Some(length) = flipped {
            return Some(end(length));
        }
        let last = end(length).checked_sub(1).and_then(|last| self.bytes.get(last));
        let is_written = self.is_frame(end(length)) || end(length) == self.used && last != Some(&0);
        is_written.then(|| end(length))
    }

    fn is_frame(&self, offset: usize) -> bool {
        match frame::read(self.rest(offset), self.place(offset)) {
            FrameRead::Body(body) => frame::split::<LogRecord>(body).is_some(),
            FrameRead::Nothing | FrameRead::Damage => false,
        }
    }

    /// The offset of the first record at or after `from`.
    fn search(&mut self, from: usize) -> Option<usize> {
        for offset in from..self.used {
            let Some((FrameHeader { length, .. }, rest)) = frame::header(self.rest(offset)) else { break };
            let bytes = frame::bytes_of(length);
            if bytes == 0 || bytes > rest.len() {
                continue;
            }
            self.search_bytes_left = self.search_bytes_left.checked_sub(bytes)?;
            if self.is_frame(offset) {
                return Some(offset);
            }
        }
        None
    }

    /// Whether a sector between `from` and `to` was never written. New files are zeroed, so its bytes are zero.
    fn has_unwritten_sector(&self, from: usize, to: usize) -> bool {
        let (mut start, record_follows) = (from, self.is_frame(to));
        while start < to {
            let end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
            // The sector in which the next record begins was written.
            let is_whole = end <= to || !record_follows;
            let sector = self.bytes.get(start..end.min(to)).unwrap_or_default();
            if is_whole && sector.iter().all(|byte| *byte == 0) {
                return true;
            }
            start = end;
        }
        false
    }
}

impl<'a> Iterator for SegmentFrames<'a> {
    type Item = SegmentPart<'a>;

    fn next(&mut self) -> Option<SegmentPart<'a>> {
        if self.offset >= self.used {
            return None;
        }
        let (offset, rest) = (self.offset, self.rest(self.offset));
        let FrameRead::Body(body) = frame::read(rest, self.place(offset)) else {
            let damage = self.damage(offset);
            self.offset = damage.to as usize;
            return Some(SegmentPart::Damage(damage));
        };
        let bytes = FRAME_HEADER_BYTES + body.len();
        self.offset += bytes;
        let (offset, bytes) = (small(offset), small(bytes));
        Some(SegmentPart::FoundFrame(FoundFrame {
            offset,
            bytes,
            body,
            follows_sync: frame::follows_sync(rest),
        }))
    }
}

/// The length of `bytes` without zeros at the end. Most of a segment may be unused, so blocks are compared at once.
pub(super) fn used(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    for block in bytes.rchunks(ZEROS.len()) {
        if ZEROS.get(..block.len()) != Some(block) {
            return end - block.iter().rev().take_while(|byte| **byte == 0).count();
        }
        end -= block.len();
    }
    0
}

/// Converts an offset. Segments have at most 4 GiB.
fn small(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::record::Ends;

    const NUMBER: u32 = 5;

    /// The bytes of appends with these contents, one after the other, and the offset of each.
    fn frames(contents: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (start, content) in (0..).zip(contents) {
            let record = LogRecord::Appended { stream: 1, start, at: 0, ends: Ends::Raw, said: None };
            let place = FrameLocation { segment: NUMBER, offset: small(bytes.len()) };
            starts.push(bytes.len());
            frame::write(&mut bytes, place, true, &record, content);
        }
        bytes.resize(bytes.len() + 2048, 0);
        (bytes, starts)
    }

    /// The offsets of the frames that are found, and the damage.
    fn found(bytes: &[u8]) -> (Vec<usize>, Vec<Damage>) {
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for part in SegmentFrames::new(bytes, NUMBER, 0) {
            match part {
                SegmentPart::FoundFrame(frame) => whole.push(frame.offset as usize),
                SegmentPart::Damage(damage) => damaged.push(damage),
            }
        }
        (whole, damaged)
    }

    #[test]
    fn a_flipped_bit_in_one_frame_leaves_all_others_found() {
        let (bytes, starts) = frames(&[&[b'a'; 700], &[b'b'; 90], &[b'c'; 90]]);
        let ends = [&starts[1..], &[used(&bytes)]].concat();
        for bit in (0..used(&bytes) * 8).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().position(|end| bit / 8 < *end).unwrap();
            let (whole, damaged) = found(&flipped);
            let others: Vec<_> = starts.iter().copied().filter(|start| *start != starts[hit]).collect();
            let damage = Damage { from: small(starts[hit]), to: small(ends[hit]), looks_torn: false };
            assert_eq!((whole, damaged), (others, vec![damage]), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_within_the_content_of_a_damaged_one_is_not_found() {
        // It is valid for its location, which its publisher has guessed.
        let content_start = frames(&[b"", b""]).1[1];
        let place = FrameLocation { segment: NUMBER, offset: small(content_start + 100) };
        let mut content = vec![b'x'; 100];
        frame::write(&mut content, place, true, &LogRecord::Ended { stream: 1 }, b"");
        content.resize(300, b'x');
        let (mut bytes, starts) = frames(&[&content, b"next"]);
        assert!(matches!(frame::read(&bytes[content_start + 100..], place), FrameRead::Body(_)));
        for bit in 0..64 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(found(&bytes).0, [starts[1]], "bit {bit} of the header");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn sectors_that_were_never_written_look_torn() {
        let (bytes, starts) = frames(&[&[b'a'; 700], &[b'b'; 1800], &[b'c'; 90]]);
        let mut missing = bytes.clone();
        missing[1024..1536].fill(0);
        let damage = Damage { from: small(starts[1]), to: small(starts[2]), looks_torn: true };
        assert_eq!(found(&missing), (vec![starts[0], starts[2]], vec![damage]));
        let mut altered = bytes;
        altered[1024..1536].fill(b'x');
        let damage = Damage { looks_torn: false, ..damage };
        assert_eq!(found(&altered), (vec![starts[0], starts[2]], vec![damage]));
    }
}
