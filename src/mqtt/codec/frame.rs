//! From bytes to whole packets: the fixed header (MQTT 5, section 2.1).

use bytes::{Buf, Bytes, BytesMut};

use super::{Breach, Reason};

/// Bytes that were read and are not a whole packet yet. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Frames {
    bytes: BytesMut,
}

/// A whole packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) struct Frame {
    /// Kind and flags.
    pub(in crate::mqtt) first: u8,
    /// What follows the fixed header.
    pub(in crate::mqtt) body: Bytes,
}

/// The most bytes that a remaining length has.
const LENGTH_BYTES_MAX: usize = 4;

impl Frames {
    /// Adds what was read.
    pub(in crate::mqtt) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Memory that is held.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The next whole packet of at most `packet_bytes_max`. A longer one is refused when its length is read, before
    /// anything is set aside for it.
    pub(in crate::mqtt) fn next(&mut self, packet_bytes_max: usize) -> Result<Option<Frame>, Breach> {
        let Some((&first, rest)) = self.bytes.split_first() else { return Ok(None) };
        let Some((length, length_bytes)) = remaining_length(rest)? else { return Ok(None) };
        let header = 1 + length_bytes;
        if header + length > packet_bytes_max {
            return Err(Breach(Reason::PacketTooLarge));
        }
        if self.bytes.len() < header + length {
            return Ok(None);
        }
        let mut packet = self.bytes.split_to(header + length);
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        packet.advance(header);
        Ok(Some(Frame { first, body: packet.freeze() }))
    }
}

/// The remaining length and its own bytes, once those are all there.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Breach> {
    let mut length = 0;
    for (index, byte) in bytes.iter().enumerate().take(LENGTH_BYTES_MAX) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
    }
    if bytes.len() < LENGTH_BYTES_MAX { Ok(None) } else { Err(Breach(Reason::MalformedPacket)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in_however_they_are_cut() {
        let stream: Vec<u8> = [&[0xc0, 0][..], &[0x30, 3, 0, 1, b'a'], &[0x30, 0x80, 1], &[7; 128]].concat();
        for cut in 0..stream.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                frames.put(part);
                while let Some(frame) = frames.next(1000).unwrap() {
                    found.push((frame.first, frame.body.len()));
                }
            }
            assert_eq!(found, [(0xc0, 0), (0x30, 3), (0x30, 128)]);
            assert_eq!(frames.capacity(), 0);
        }
    }

    #[test]
    fn a_length_that_is_too_long_or_none_is_refused_at_once() {
        let refused = |bytes: &[u8]| {
            let mut frames = Frames::default();
            frames.put(bytes);
            frames.next(1 << 20)
        };
        assert_eq!(refused(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Err(Breach(Reason::PacketTooLarge)));
        assert_eq!(refused(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(Breach(Reason::MalformedPacket)));
        assert_eq!(refused(&[0x30, 0x80, 0x80, 0x80]), Ok(None));
    }
}
