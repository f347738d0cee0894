//! The frame of a record in a file: length, checksum, metadata, content.
//!
//! The checksum covers the number of the segment and the offset in it. So a frame is valid only where it was written, and
//! remains of an earlier use of the same room are never taken for a record.

use serde::{Deserialize, Serialize};

/// Length and checksum, little-endian.
pub(super) const FRAME_HEADER_BYTES: usize = 8;

/// Bit of the length, set if everything before the frame was synced when the frame was written.
const SYNCED: u32 = 1 << 31;

/// The location of a frame: segment and offset in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FrameLocation {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// The result of reading a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameRead<'a> {
    /// The body of a valid frame.
    Body(&'a [u8]),
    /// All bytes are zero: nothing was written here.
    Nothing,
    /// The bytes are not a valid frame.
    Damage,
}

/// Appends a frame of `meta` and `content` to `out`. `place` is the location that it will have in the file, and `synced` says
/// that everything before it is synced. Returns the size of the frame.
pub(super) fn write<T: Serialize>(
    out: &mut Vec<u8>,
    place: FrameLocation,
    synced: bool,
    meta: &T,
    content: &[u8],
) -> u32 {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    // Serializing to memory cannot fail for the types used here.
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

/// Reads the frame at `place`, which `bytes` begin with.
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

/// Whether everything before the frame at the beginning of `bytes` was synced when the frame was written.
pub(super) fn follows_sync(bytes: &[u8]) -> bool {
    header(bytes).is_some_and(|(header, _)| header.length & SYNCED != 0)
}

/// The header of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    /// Bytes of the body, and the bit [`SYNCED`].
    pub(super) length: u32,
    pub(super) sum: u32,
}

/// The header at the beginning of `bytes`, and the bytes after it.
pub(super) fn header(bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let ([a, b, c, d, e, f, g, h], rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let (length, sum) = (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]));
    Some((FrameHeader { length, sum }, rest))
}

/// The size of the body of a frame with the header field `length`.
pub(super) fn bytes_of(length: u32) -> usize {
    (length & !SYNCED) as usize
}

/// Splits a body into metadata and content.
pub(super) fn split<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<(T, &'a [u8])> {
    postcard::take_from_bytes(body).ok()
}

/// The checksum of a frame at `place` with the header field `length`.
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
    fn a_record_is_valid_only_at_its_own_place() {
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
    fn a_record_says_whether_everything_before_it_was_synced() {
        for synced in [false, true] {
            let mut out = Vec::new();
            let bytes = write(&mut out, PLACE, synced, &5u8, b"content");
            assert_eq!((follows_sync(&out), out.len()), (synced, bytes as usize));
            assert_eq!(read(&out, PLACE), FrameRead::Body(&out[FRAME_HEADER_BYTES..]));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage() {
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
