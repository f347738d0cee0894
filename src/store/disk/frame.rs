//! How records lie in a file: length, checksum, then what it is and its content.
//!
//! The checksum covers the segment's number and the place in it, so that a frame is valid nowhere but where it was
//! written, and what is left of an earlier use of the same room never looks like a record.

use serde::{Deserialize, Serialize};

/// Length and checksum, in little endian.
pub(super) const FRAME_HEADER_BYTES: usize = 8;

/// Set in the length of a frame if everything before it was synced when it was written.
const SYNCED: u32 = 1 << 31;

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FrameLocation {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// What is found at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameRead<'a> {
    /// The body of a whole record.
    Body(&'a [u8]),
    /// Nothing was ever written here.
    Nothing,
    /// Something that is no record.
    Damage,
}

/// Writes a record of `meta` and `content` behind `out`, which will lie at `place` with its first new byte. `synced`:
/// everything before it is. Returns how many bytes it takes.
pub(super) fn write<T: Serialize>(
    out: &mut Vec<u8>,
    place: FrameLocation,
    synced: bool,
    meta: &T,
    content: &[u8],
) -> u32 {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    // Writing to memory does not fail, and no type that is written here refuses to be.
    if let Ok(written) = postcard::to_extend(meta, std::mem::take(out)) {
        *out = written;
    }
    out.extend_from_slice(content);
    let frame = out.get_mut(start..).unwrap_or_default();
    let bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    if let Some((header, body)) = frame.split_first_chunk_mut::<FRAME_HEADER_BYTES>() {
        let length = (bytes - FRAME_HEADER_BYTES as u32) | if synced { SYNCED } else { 0 };
        let [a, b, c, d] = length.to_le_bytes();
        let [e, f, g, h] = checksum(place, length, body).to_le_bytes();
        *header = [a, b, c, d, e, f, g, h];
    }
    bytes
}

/// Looks at what lies at `place`, of which `bytes` are the beginning.
pub(super) fn read(bytes: &[u8], place: FrameLocation) -> FrameRead<'_> {
    let Some((FrameHeader { length, sum }, rest)) = header(bytes) else {
        return if bytes.iter().all(|byte| *byte == 0) { FrameRead::Nothing } else { FrameRead::Damage };
    };
    if (length, sum) == (0, 0) {
        return FrameRead::Nothing;
    }
    match rest.get(..bytes_of(length)) {
        Some(body) if !body.is_empty() && checksum(place, length, body) == sum => FrameRead::Body(body),
        _ => FrameRead::Damage,
    }
}

/// Whether everything before the frame that `bytes` begin with was synced when it was written.
pub(super) fn follows_sync(bytes: &[u8]) -> bool {
    header(bytes).is_some_and(|(header, _)| header.length & SYNCED != 0)
}

/// What a frame begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    /// Bytes of the body, and a flag.
    pub(super) length: u32,
    pub(super) sum: u32,
}

/// The header that `bytes` begin with, and what lies behind it.
pub(super) fn header(bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let ([a, b, c, d, e, f, g, h], rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let (length, sum) = (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]));
    Some((FrameHeader { length, sum }, rest))
}

/// How many bytes the body of a frame has whose header says `length`.
pub(super) fn bytes_of(length: u32) -> usize {
    (length & !SYNCED) as usize
}

/// What a record is, and its content.
pub(super) fn split<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<(T, &'a [u8])> {
    postcard::take_from_bytes(body).ok()
}

/// The checksum of a frame at `place` whose header says `length`.
pub(super) fn checksum(place: FrameLocation, length: u32, body: &[u8]) -> u32 {
    let mut sum = 0;
    for number in [place.segment, place.offset, length] {
        sum = crc32c::crc32c_append(sum, &number.to_le_bytes());
    }
    crc32c::crc32c_append(sum, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: FrameLocation = FrameLocation { segment: 7, offset: 64 };

    #[test]
    fn a_record_comes_back_from_its_own_place_alone() {
        let mut out = b"before".to_vec();
        let bytes = write(&mut out, PLACE, false, &(5u8, "x"), b"content");
        assert_eq!(out.len(), 6 + bytes as usize);
        let FrameRead::Body(body) = read(&out[6..], PLACE) else { panic!("no record") };
        assert_eq!(split::<(u8, &str)>(body), Some(((5, "x"), &b"content"[..])));
        for other in [FrameLocation { segment: 8, ..PLACE }, FrameLocation { offset: 65, ..PLACE }] {
            assert_eq!(read(&out[6..], other), FrameRead::Damage);
        }
        assert_eq!(read(&[0; 20], PLACE), FrameRead::Nothing);
    }

    #[test]
    fn a_record_says_whether_what_is_before_it_was_synced() {
        for synced in [false, true] {
            let mut out = Vec::new();
            let bytes = write(&mut out, PLACE, synced, &5u8, b"content");
            assert_eq!((follows_sync(&out), out.len()), (synced, bytes as usize));
            assert_eq!(read(&out, PLACE), FrameRead::Body(&out[FRAME_HEADER_BYTES..]));
        }
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let mut out = Vec::new();
        write(&mut out, PLACE, false, &(5u8, "x"), b"content");
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped, PLACE), FrameRead::Damage, "bit {bit}");
        }
        for cut in 1..out.len() {
            let mut torn = out.clone();
            torn[cut..].fill(0);
            assert_ne!(read(&torn, PLACE), FrameRead::Nothing, "cut {cut}");
            if torn != out {
                assert_eq!(read(&torn, PLACE), FrameRead::Damage, "cut {cut}");
            }
            assert_eq!(read(&out[..cut], PLACE), FrameRead::Damage, "cut {cut}");
        }
    }
}
