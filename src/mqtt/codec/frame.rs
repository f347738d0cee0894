//! [`PacketReader`]: splits received bytes into packets by their fixed header (MQTT 5, section 2.1).

use std::ops::Deref;

use bytes::Bytes;

use super::{Breach, Reason};

/// Received bytes that are not a complete packet yet. Holds no memory while it is empty.
///
/// The buffer is never shared with parts of a packet, except with a packet that fills it: a small message in
/// the log must not keep a large buffer alive.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct PacketReader {
    bytes: Vec<u8>,
    /// Bytes at the beginning of the buffer that belong to packets already returned.
    taken: usize,
    /// Size of the packet being received, in bytes, once it is known; otherwise 0.
    packet_bytes: usize,
}

/// A complete packet.
#[derive(Debug, Clone)]
pub(in crate::mqtt) struct Packet<'a> {
    /// Packet type and flags.
    pub(in crate::mqtt) first: u8,
    /// The bytes behind the fixed header.
    pub(in crate::mqtt) body: PacketBody<'a>,
}

/// The body of a packet.
#[derive(Debug, Clone)]
pub(in crate::mqtt) enum PacketBody<'a> {
    /// A slice of the read buffer.
    Part(&'a [u8]),
    /// The whole read buffer, which the packet has filled and now owns.
    Whole(Bytes),
}

/// Maximum size of the remaining length field, in bytes.
const LENGTH_BYTES_MAX: usize = 4;

/// Minimum size of a packet that takes over the read buffer; shorter packets are copied out of it.
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
    /// Returns the bytes from `start` on, to be kept. They keep at most as many other bytes alive as they
    /// have themselves.
    pub(in crate::mqtt) fn keep_from(&self, start: usize) -> Bytes {
        let kept = self.get(start..).unwrap_or_default();
        match self {
            Self::Whole(bytes) if kept.len() >= bytes.len() / 2 => bytes.slice_ref(kept),
            Self::Whole(_) | Self::Part(_) => Bytes::copy_from_slice(kept),
        }
    }
}

impl PacketReader {
    /// Appends received bytes. The buffer grows with the bytes that have arrived, not with the announced
    /// length.
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

    /// Number of received bytes that do not belong to a returned packet.
    pub(in crate::mqtt) fn unread(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Memory held, in bytes.
    pub(in crate::mqtt) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns the next complete packet of at most `packet_bytes_max`. A longer one is refused as soon as its
    /// length is known, before memory is reserved for it.
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

    /// Takes the buffer with the packet at its beginning; the bytes behind the packet are copied into a new
    /// buffer.
    fn take_buffer(&mut self, packet_bytes: usize) -> Bytes {
        let behind = self.bytes.split_off(packet_bytes);
        let mut packet = std::mem::replace(&mut self.bytes, behind);
        if packet.capacity() > packet_bytes + packet_bytes / 8 {
            packet.shrink_to_fit();
        }
        packet.into()
    }
}

/// Parses the remaining length. Returns it with the size of its field, or `None` if the field is incomplete.
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
    fn packets_are_read_unchanged_wherever_the_bytes_are_split() {
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
    fn a_length_that_is_too_long_or_invalid_is_refused_at_once() {
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
    fn an_announced_length_reserves_no_memory() {
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
    fn a_kept_part_of_a_packet_keeps_no_other_bytes_alive() {
        let mut frames = PacketReader::default();
        let dropped = [&[0x30, 0x80, 0x80, 0x3f][..], &[0; 0x0f_c000]].concat();
        frames.put(&[&dropped[..], &[0x30, 4, 0, 1, b'a', b'x']].concat());
        assert!(matches!(frames.next(1 << 20), Ok(Some(Packet { body: PacketBody::Whole(_), .. }))));
        assert!(frames.capacity() < 64, "the small packet was copied out of the large buffer");
        let small = frames.next(1 << 20).unwrap().unwrap();
        assert_eq!(small.body.keep_from(3), &b"x"[..]);
        // A body that is nearly all payload is not copied; of a body with a small payload only the payload is
        // kept.
        let body = PacketBody::Whole(vec![5; 16 * 1024].into());
        assert_eq!(body.keep_from(100).as_ptr(), body[100..].as_ptr());
        assert_ne!(body.keep_from(16_000).as_ptr(), body[16_000..].as_ptr());
    }
}
