//! How records lie in a file: length, checksum, then what it is and its content.
//!
//! The checksum covers the segment's number and the place in it, so that a frame is valid nowhere but where it was
//! written, and what is left of an earlier use of the same room never looks like a record.

use serde::{Deserialize, Serialize};

/// Length and checksum, in little endian.
pub(super) const FRAME_HEADER_BYTES: usize = 8;

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// What is found at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The body of a whole record.
    Body(&'a [u8]),
    /// Nothing was ever written here.
    Nothing,
    /// Something that is no record.
    Damage,
}

/// Writes a record of `meta` and `content` behind `out`, which will lie at `place` with its first new byte. Returns how
/// many bytes it takes.
pub(super) fn write<T: Serialize>(out: &mut Vec<u8>, place: Place, meta: &T, content: &[u8]) -> u32 {
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
        let length = bytes - FRAME_HEADER_BYTES as u32;
        let [a, b, c, d] = length.to_le_bytes();
        let [e, f, g, h] = checksum(place, length, body).to_le_bytes();
        *header = [a, b, c, d, e, f, g, h];
    }
    bytes
}

/// Looks at what lies at `place`, of which `bytes` are the beginning.
pub(super) fn read(bytes: &[u8], place: Place) -> Found<'_> {
    let Some(([a, b, c, d, e, f, g, h], rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return if bytes.iter().all(|byte| *byte == 0) { Found::Nothing } else { Found::Damage };
    };
    let length = u32::from_le_bytes([*a, *b, *c, *d]);
    let sum = u32::from_le_bytes([*e, *f, *g, *h]);
    if (length, sum) == (0, 0) {
        return Found::Nothing;
    }
    match rest.get(..length as usize) {
        Some(body) if length > 0 && checksum(place, length, body) == sum => Found::Body(body),
        _ => Found::Damage,
    }
}

/// What a record is, and its content.
pub(super) fn split<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<(T, &'a [u8])> {
    postcard::take_from_bytes(body).ok()
}

fn checksum(place: Place, length: u32, body: &[u8]) -> u32 {
    let mut sum = 0;
    for number in [place.segment, place.offset, length] {
        sum = crc32c::crc32c_append(sum, &number.to_le_bytes());
    }
    crc32c::crc32c_append(sum, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { segment: 7, offset: 64 };

    #[test]
    fn a_record_comes_back_from_its_own_place_alone() {
        let mut out = b"before".to_vec();
        let bytes = write(&mut out, PLACE, &(5u8, "x"), b"content");
        assert_eq!(out.len(), 6 + bytes as usize);
        let Found::Body(body) = read(&out[6..], PLACE) else { panic!("no record") };
        assert_eq!(split::<(u8, &str)>(body), Some(((5, "x"), &b"content"[..])));
        for other in [Place { segment: 8, ..PLACE }, Place { offset: 65, ..PLACE }] {
            assert_eq!(read(&out[6..], other), Found::Damage);
        }
        assert_eq!(read(&[0; 20], PLACE), Found::Nothing);
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let mut out = Vec::new();
        write(&mut out, PLACE, &(5u8, "x"), b"content");
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped, PLACE), Found::Damage, "bit {bit}");
        }
        for cut in 1..out.len() {
            let mut torn = out.clone();
            torn[cut..].fill(0);
            assert_ne!(read(&torn, PLACE), Found::Nothing, "cut {cut}");
            if torn != out {
                assert_eq!(read(&torn, PLACE), Found::Damage, "cut {cut}");
            }
            assert_eq!(read(&out[..cut], PLACE), Found::Damage, "cut {cut}");
        }
    }
}
