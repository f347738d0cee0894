//! Decodes the frames of a WebSocket client (RFC 6455, section 5), without extensions.
//!
//! Bytes may arrive in any pieces. What has no use after a message is freed with it, so the decoder of an idle socket owns no
//! buffer; and a message takes memory as its bytes arrive, not as its header promises.

/// A frame of the client that needs an answer, or a whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A text, which is UTF-8.
    Text(Vec<u8>),
    /// Binary data.
    Binary(Vec<u8>),
    /// A ping, with the payload that the pong has to repeat.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// A close frame, with its code if it has one.
    Close(Option<u16>),
}

/// Why the rest of what the client sends cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// The client does not follow the protocol.
    #[error("the client violates the WebSocket protocol")]
    Protocol,
    /// A text or the reason of a close frame is not UTF-8.
    #[error("the client has sent a text that is not UTF-8")]
    Text,
    /// A message is above the size limit.
    #[error("the client has sent a message above the size limit")]
    TooLarge,
}

/// The most bytes of a frame's header: 2, 8 of the length, and 4 of the mask.
const HEADER_BYTES_MAX: usize = 14;

/// The most bytes of a control frame's payload (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// A frame whose payload is arriving.
#[derive(Debug)]
struct ArrivingFrame {
    opcode: Opcode,
    is_last: bool,
    mask: [u8; 4],
    /// Bytes of the payload that have not arrived.
    missing: u64,
    /// Bytes of the payload that have arrived.
    arrived: u64,
}

/// Decodes the frames of one client.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    frame: Option<ArrivingFrame>,
    /// The type of the message that is arriving: text or binary. `None` between two messages.
    message: Option<Opcode>,
    /// The part of its payload that has arrived.
    payload: Vec<u8>,
    /// How many of them are known to be UTF-8, if it is a text.
    valid: usize,
    /// The payload of a control frame, which may arrive between the frames of a message.
    control: Vec<u8>,
}

impl Decoder {
    /// Decodes `bytes` up to the next message or control frame, and removes what it has decoded from them. `None`: more bytes are needed. A message
    /// of more than `message_bytes_max` bytes is refused. After a violation nothing more can be decoded.
    pub(super) fn decode(
        &mut self,
        bytes: &mut &[u8],
        message_bytes_max: usize,
    ) -> Result<Option<Decoded>, Violation> {
        loop {
            if self.frame.is_none() && !self.take_header(bytes, message_bytes_max)? {
                return Ok(None);
            }
            let Some(frame) = &mut self.frame else { return Ok(None) };
            let count = bytes.len().min(usize::try_from(frame.missing).unwrap_or(usize::MAX));
            let (arrived, rest) = bytes.split_at(count);
            *bytes = rest;
            let into = if frame.opcode.is_control() { &mut self.control } else { &mut self.payload };
            unmask(arrived, frame.mask, frame.arrived, into);
            frame.missing -= count as u64;
            frame.arrived += count as u64;
            let is_whole = frame.missing == 0;
            let ends_message = is_whole && frame.is_last && !frame.opcode.is_control();
            if self.message == Some(Opcode::Text) {
                self.validate(ends_message)?;
            }
            if !is_whole {
                return Ok(None);
            }
            if let Some(decoded) = self.end_frame()? {
                return Ok(Some(decoded));
            }
        }
    }

    /// Completes the header of the next frame. Returns whether it is complete.
    fn take_header(&mut self, bytes: &mut &[u8], message_bytes_max: usize) -> Result<bool, Violation> {
        loop {
            let have = usize::from(self.header_bytes);
            let header = self.header.get(..have).unwrap_or_default();
            if have >= 2 && have == header_length(header) {
                self.frame = Some(self.begin_frame(message_bytes_max)?);
                self.header_bytes = 0;
                return Ok(true);
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(false) };
            let Some(place) = self.header.get_mut(have) else { return Err(Violation::Protocol) };
            (*place, *bytes) = (*first, rest);
            self.header_bytes += 1;
            if have < 2 {
                self.check_begin(have)?;
            }
        }
    }

    /// Checks one of the first two bytes of a header as soon as it has arrived.
    fn check_begin(&self, index: usize) -> Result<(), Violation> {
        let [first, second, ..] = self.header;
        let opcode = Opcode::of(first).ok_or(Violation::Protocol)?;
        let is_expected = match opcode {
            Opcode::Continuation => self.message.is_some(),
            Opcode::Text | Opcode::Binary => self.message.is_none(),
            Opcode::Close | Opcode::Ping | Opcode::Pong => is_last(first),
        };
        let has_extension_bits = first & 0x70 != 0;
        if !is_expected || has_extension_bits {
            return Err(Violation::Protocol);
        }
        if index == 0 {
            return Ok(());
        }
        let length = u64::from(second & 0x7f);
        let is_masked = second & 0x80 != 0;
        let fits = !opcode.is_control() || length <= CONTROL_BYTES_MAX;
        let is_half_code = opcode == Opcode::Close && length == 1;
        if is_masked && fits && !is_half_code { Ok(()) } else { Err(Violation::Protocol) }
    }

    /// Begins the frame whose header is complete.
    fn begin_frame(&mut self, message_bytes_max: usize) -> Result<ArrivingFrame, Violation> {
        let [first, second, rest @ ..] = self.header;
        let opcode = Opcode::of(first).ok_or(Violation::Protocol)?;
        let [l0, l1, l2, l3, l4, l5, l6, l7, m4, m5, m6, m7] = rest;
        let (length, mask) = match second & 0x7f {
            // A length has to be written in as few bytes as possible (section 5.2).
            126 => {
                let length = u64::from(u16::from_be_bytes([l0, l1]));
                (Some(length).filter(|length| *length > 125), [l2, l3, l4, l5])
            }
            127 => {
                let length = u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
                (Some(length).filter(|length| *length > u64::from(u16::MAX)), [m4, m5, m6, m7])
            }
            length => (Some(u64::from(length)), [l0, l1, l2, l3]),
        };
        let length = length.ok_or(Violation::Protocol)?;
        if !opcode.is_control() {
            let message_bytes = length.saturating_add(self.payload.len() as u64);
            if message_bytes > message_bytes_max as u64 {
                return Err(Violation::TooLarge);
            }
            self.message.get_or_insert(opcode);
        }
        Ok(ArrivingFrame { opcode, is_last: is_last(first), mask, missing: length, arrived: 0 })
    }

    /// Ends the frame whose payload has arrived. Returns a control frame, or a message that ends with the frame.
    fn end_frame(&mut self) -> Result<Option<Decoded>, Violation> {
        let Some(frame) = self.frame.take() else { return Ok(None) };
        if frame.opcode.is_control() {
            let payload = std::mem::take(&mut self.control);
            return Ok(Some(match frame.opcode {
                Opcode::Close => Decoded::Close(close_code(&payload)?),
                Opcode::Ping => Decoded::Ping(payload),
                _ => Decoded::Pong,
            }));
        }
        if !frame.is_last {
            return Ok(None);
        }
        self.valid = 0;
        let payload = std::mem::take(&mut self.payload);
        Ok(match self.message.take() {
            Some(Opcode::Text) => Some(Decoded::Text(payload)),
            _ => Some(Decoded::Binary(payload)),
        })
    }

    /// Checks the part of a text that has arrived since the last call. A character may still lack bytes, unless the text `ends`.
    fn validate(&mut self, ends: bool) -> Result<(), Violation> {
        let unchecked = self.payload.get(self.valid..).unwrap_or_default();
        match std::str::from_utf8(unchecked) {
            Ok(text) => self.valid += text.len(),
            Err(error) if error.error_len().is_some() || ends => return Err(Violation::Text),
            Err(error) => self.valid += error.valid_up_to(),
        }
        Ok(())
    }
}

impl Opcode {
    /// The opcode in the first byte of a header.
    fn of(first: u8) -> Option<Self> {
        Some(match first & 0x0f {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Whether the frame is the last one of its message.
fn is_last(first: u8) -> bool {
    first & 0x80 != 0
}

/// The length of a masked frame's header, of which at least two bytes are known.
fn header_length(header: &[u8]) -> usize {
    match header.get(1).map(|second| second & 0x7f) {
        Some(126) => 8,
        Some(127) => 14,
        _ => 6,
    }
}

/// Appends `arrived` to `into`, unmasked. `before` bytes of the frame's payload were unmasked before.
fn unmask(arrived: &[u8], mut mask: [u8; 4], before: u64, into: &mut Vec<u8>) {
    mask.rotate_left((before % 4) as usize);
    let begin = into.len();
    into.extend_from_slice(arrived);
    for chunk in into.get_mut(begin..).unwrap_or_default().chunks_mut(mask.len()) {
        chunk.iter_mut().zip(mask).for_each(|(byte, key)| *byte ^= key);
    }
}

/// Parses the payload of a close frame.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else { return Ok(None) };
    let code = u16::from_be_bytes(*code);
    // Section 7.4, and the codes that were registered since. 1005, 1006 and 1015 are never sent.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol);
    }
    std::str::from_utf8(reason).map_err(|_| Violation::Text)?;
    Ok(Some(code))
}

#[cfg(test)]
#[path = "../../../../fuzz/websocket_frames.rs"]
mod fuzz;
#[cfg(test)]
mod tests;
