//! From bytes to whole packets: the fixed header (MQTT 5, section 2.1).

use std::ops::Deref;

use bytes::Bytes;

use super::{Breach, Reason};

/// Bytes that were read and are not a whole packet yet. Empty, it holds no memory.
///
/// The buffer is never shared with what is made of a packet, except for a packet that fills it: a small message in the log
/// must not keep a large buffer alive.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct PacketReader {
    bytes: Vec<u8>,
    /// Bytes at the beginning that belong to packets which were returned.
    taken: usize,
    /// Bytes of the packet that is being read, once they are known.
    packet_bytes: usize,
}

/// A whole packet.
#[derive(Debug, Clone)]
pub(in crate::mqtt) struct Packet<'a> {
    /// Kind and flags.
    pub(in crate::mqtt) first: u8,
    /// What follows the fixed header.
    pub(in crate::mqtt) body: PacketBody<'a>,
}

/// The body of a packet.
#[derive(Debug, Clone)]
pub(in crate::mqtt) enum PacketBody<'a> {
    /// Lies among other packets in the read buffer.
    Part(&'a [u8]),
    /// Filled the read buffer, and has become its owner.
    Whole(Bytes),
}

/// The most bytes that a remaining length has.
const LENGTH_BYTES_MAX: usize = 4;

/// Shorter packets are copied out of the read buffer, longer ones take it with them.
const OWNED_PACKET_BYTES_MIN: usize = 8 * 1024;

impl Deref for PacketBody<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Part(bytes) => bytes,
            Self::Whole(bytes) => bytes,
        }
    }
}

impl PacketBody<'_> {
    /// The bytes from `start` on, for as long as they are needed. They keep at most as many other bytes alive as they are
    /// themselves.
    pub(in crate::mqtt) fn keep_from(&self, start: usize) -> Bytes {
        let kept = self.get(start..).unwrap_or_default();
        match self {
            Self::Whole(bytes) if kept.len() >= bytes.len() / 2 => bytes.slice_ref(kept),
            Self::Whole(_) | Self::Part(_) => Bytes::copy_from_slice(kept),
        }
    }
}

impl PacketReader {
    /// Adds what was read. The buffer grows with what has come, not with what was announced.
    pub(in crate::mqtt) fn put(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            let doubled = (2 * self.bytes.len()).min(self.packet_bytes);
            self.bytes.reserve_exact(needed.max(doubled) - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Memory that is held, in bytes.
    pub(in crate::mqtt) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The next whole packet of at most `packet_bytes_max`. A longer one is refused when its length is read, before
    /// anything is set aside for it.
    pub(in crate::mqtt) fn next(&mut self, packet_bytes_max: usize) -> Result<Option<Packet<'_>>, Breach> {
        let unread = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((&first, rest)) = unread.split_first() else {
            *self = Self::default();
            return Ok(None);
        };
        let Some((length, length_bytes)) = remaining_length(rest)? else { return Ok(None) };
        let header = 1 + length_bytes;
        let packet_bytes = header + length;
        if packet_bytes > packet_bytes_max {
            return Err(Breach(Reason::PacketTooLarge));
        }
        if unread.len() < packet_bytes {
            self.packet_bytes = packet_bytes;
            return Ok(None);
        }
        self.packet_bytes = 0;
        let body = if self.taken == 0 && packet_bytes >= OWNED_PACKET_BYTES_MIN {
            PacketBody::Whole(self.take_buffer(packet_bytes).slice(header..))
        } else {
            let from = self.taken + header;
            self.taken += packet_bytes;
            PacketBody::Part(self.bytes.get(from..self.taken).unwrap_or_default())
        };
        Ok(Some(Packet { first, body }))
    }

    /// Takes the buffer with the packet at its beginning; the bytes behind that are copied into a new one.
    fn take_buffer(&mut self, packet_bytes: usize) -> Bytes {
        let behind = self.bytes.split_off(packet_bytes);
        let mut packet = std::mem::replace(&mut self.bytes, behind);
        if packet.capacity() > packet_bytes + packet_bytes / 8 {
            packet.shrink_to_fit();
        }
        packet.into()
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
        let large = [&[0x30, 0x80, 0x80, 1][..], &[9; 16 * 1024]].concat();
        let stream: Vec<u8> =
            [&[0xc0, 0][..], &[0x30, 3, 0, 1, b'a'], &[0x30, 0x80, 1], &[7; 128], &large, &[0xc0, 0]]
                .concat();
        for cut in (0..200).chain((200..stream.len()).step_by(97)) {
            let mut frames = PacketReader::default();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                frames.put(part);
                while let Some(frame) = frames.next(20_000).unwrap() {
                    found.push((frame.first, frame.body.len(), frame.body.last().copied()));
                }
            }
            let expected = [
                (0xc0, 0, None),
                (0x30, 3, Some(b'a')),
                (0x30, 128, Some(7)),
                (0x30, 16 * 1024, Some(9)),
                (0xc0, 0, None),
            ];
            assert_eq!(found, expected, "cut at {cut}");
            assert_eq!(frames.capacity(), 0);
        }
    }

    #[test]
    fn a_length_that_is_too_long_or_none_is_refused_at_once() {
        let refused = |bytes: &[u8]| {
            let mut frames = PacketReader::default();
            frames.put(bytes);
            frames.next(1 << 20).map(|frame| frame.is_some())
        };
        assert_eq!(refused(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Err(Breach(Reason::PacketTooLarge)));
        assert_eq!(refused(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(Breach(Reason::MalformedPacket)));
        assert_eq!(refused(&[0x30, 0x80, 0x80, 0x80]), Ok(false));
    }

    #[test]
    fn what_is_announced_costs_nothing_until_it_comes() {
        let mut frames = PacketReader::default();
        frames.put(&[0x30, 0xfb, 0xff, 0x3f]);
        let mut put = 4;
        while frames.next(1 << 20).unwrap().is_none() {
            assert!(frames.capacity() <= 2 * put, "{} for {put}", frames.capacity());
            frames.put(&[0; 4096]);
            put += 4096;
        }
    }

    #[test]
    fn what_is_kept_of_a_packet_keeps_no_other_bytes_alive() {
        let mut frames = PacketReader::default();
        let dropped = [&[0x30, 0x80, 0x80, 0x3f][..], &[0; 0x0f_c000]].concat();
        frames.put(&[&dropped[..], &[0x30, 4, 0, 1, b'a', b'x']].concat());
        assert!(matches!(frames.next(1 << 20), Ok(Some(Packet { body: PacketBody::Whole(_), .. }))));
        assert!(frames.capacity() < 64, "the small packet was copied out of the large buffer");
        let small = frames.next(1 << 20).unwrap().unwrap();
        assert_eq!(small.body.keep_from(3), &b"x"[..]);
        // Of a body that is nearly all payload nothing is copied; of one with a small payload that alone is kept.
        let body = PacketBody::Whole(vec![5; 16 * 1024].into());
        assert_eq!(body.keep_from(100).as_ptr(), body[100..].as_ptr());
        assert_ne!(body.keep_from(16_000).as_ptr(), body[16_000..].as_ptr());
    }
}
