//! The properties that a client may send with each kind of packet (MQTT 5, section 2.2.2.2).

use super::{Breach, Reason};

/// A kind of packet, or the will of a CONNECT, with the properties that clients may send in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Connect,
    Will,
    Publish,
    Ack,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

/// How the value of a property is encoded.
enum Encoding {
    /// A fixed number of bytes.
    Bytes(usize),
    Integer,
    Text,
    Data,
    Pair,
}

const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
const USER_PROPERTY: u8 = 0x26;

impl Carrier {
    fn allowed(self) -> &'static [u8] {
        match self {
            Self::Connect => &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27],
            Self::Will => &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26],
            // Whether a client may send a subscription identifier is checked by its value.
            Self::Publish => &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26],
            Self::Ack => &[0x1f, 0x26],
            Self::Subscribe => &[0x0b, 0x26],
            Self::Unsubscribe => &[0x26],
            Self::Disconnect => &[0x11, 0x1f, 0x26],
            Self::Auth => &[0x15, 0x16, 0x1f, 0x26],
        }
    }

    /// The answer to a property that the packet cannot have. Section 2.2.2.2 calls such a packet malformed. Other
    /// servers report a protocol error, except for the packets with filters; clients are tested against those.
    fn misplaced(self) -> Breach {
        if matches!(self, Self::Subscribe | Self::Unsubscribe) { MALFORMED } else { PROTOCOL_ERROR }
    }
}

/// Checks the properties that `bytes` begin with: each may occur in the packet, at most once unless it is a
/// user property, and texts have no U+0000 (section 1.5.4). Returns the bytes behind them.
pub(super) fn check(bytes: &[u8], carrier: Carrier) -> Result<&[u8], Breach> {
    let (length, rest) = integer(bytes)?;
    let (mut properties, behind) = split(rest, length)?;
    let mut seen = 0u64;
    while let Some((&id, value)) = properties.split_first() {
        let bit = 1 << (id & 0x3f);
        if seen & bit != 0 && id != USER_PROPERTY {
            return Err(PROTOCOL_ERROR);
        }
        seen |= bit;
        properties = match encoding(id).ok_or(MALFORMED)? {
            Encoding::Bytes(count) => split(value, count)?.1,
            Encoding::Integer => {
                let (number, rest) = integer(value)?;
                if id == SUBSCRIPTION_IDENTIFIER && number == 0 {
                    return Err(PROTOCOL_ERROR);
                }
                rest
            }
            Encoding::Text => text(value)?,
            Encoding::Data => data(value)?.1,
            Encoding::Pair => text(text(value)?)?,
        };
        if !carrier.allowed().contains(&id) {
            return Err(carrier.misplaced());
        }
    }
    Ok(behind)
}

const MALFORMED: Breach = Breach(Reason::MalformedPacket);
const PROTOCOL_ERROR: Breach = Breach(Reason::ProtocolError);

/// Returns the encoding of a property. `None`: there is no property with this identifier.
fn encoding(id: u8) -> Option<Encoding> {
    match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => Some(Encoding::Bytes(1)),
        0x13 | 0x21..=0x23 => Some(Encoding::Bytes(2)),
        0x02 | 0x11 | 0x18 | 0x27 => Some(Encoding::Bytes(4)),
        SUBSCRIPTION_IDENTIFIER => Some(Encoding::Integer),
        0x09 | 0x16 => Some(Encoding::Data),
        USER_PROPERTY => Some(Encoding::Pair),
        0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => Some(Encoding::Text),
        _ => None,
    }
}

fn split(bytes: &[u8], count: usize) -> Result<(&[u8], &[u8]), Breach> {
    bytes.split_at_checked(count).ok_or(MALFORMED)
}

/// Parses data behind its two-byte length. Returns it and the bytes behind it.
pub(super) fn data(bytes: &[u8]) -> Result<(&[u8], &[u8]), Breach> {
    let (length, rest) = bytes.split_first_chunk().ok_or(MALFORMED)?;
    split(rest, u16::from_be_bytes(*length).into())
}

fn text(bytes: &[u8]) -> Result<&[u8], Breach> {
    let (text, rest) = data(bytes)?;
    if text.contains(&0) { Err(MALFORMED) } else { Ok(rest) }
}

/// Parses a variable byte integer (section 1.5.5).
fn integer(bytes: &[u8]) -> Result<(usize, &[u8]), Breach> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((number, bytes.get(index + 1..).unwrap_or_default()));
        }
    }
    Err(MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_occur_where_they_are_allowed_and_once() {
        let checked = |bytes: &[u8], carrier| check(bytes, carrier).map(<[u8]>::len);
        for (bytes, carrier, expected) in [
            (&[0, 7][..], Carrier::Ack, Ok(1)),
            (&[2, 0x0b, 1, 7], Carrier::Subscribe, Ok(1)),
            (&[2, 0x0b, 1], Carrier::Unsubscribe, Err(MALFORMED)),
            (&[2, 0x0b, 0], Carrier::Subscribe, Err(PROTOCOL_ERROR)),
            (&[4, 0x0b, 1, 0x0b, 2], Carrier::Subscribe, Err(PROTOCOL_ERROR)),
            (&[14, 0x26, 0, 1, 1, 0, 1, 1, 0x26, 0, 1, 1, 0, 1, 1], Carrier::Ack, Ok(0)),
            (&[7, 0x26, 0, 1, 0, 0, 1, 1], Carrier::Ack, Err(MALFORMED)),
            (&[4, 0x03, 0, 1, 0], Carrier::Publish, Err(MALFORMED)),
            (&[4, 0x09, 0, 1, 0], Carrier::Publish, Ok(0)),
            (&[5, 0x11, 0, 0, 0], Carrier::Disconnect, Err(MALFORMED)),
            (&[5, 0x11, 0, 0, 0, 9], Carrier::Disconnect, Ok(0)),
            (&[4, 0x1c, 0, 1, 1], Carrier::Disconnect, Err(PROTOCOL_ERROR)),
            (&[3, 0x1c, 0, 1], Carrier::Disconnect, Err(MALFORMED)),
            (&[2, 0x04, 1], Carrier::Publish, Err(MALFORMED)),
            (&[0x80], Carrier::Connect, Err(MALFORMED)),
            (&[], Carrier::Will, Err(MALFORMED)),
        ] {
            assert_eq!(checked(bytes, carrier), expected, "{bytes:x?} in {carrier:?}");
        }
    }
}
