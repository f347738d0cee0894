//! Packets of SMPP 3.4 (sections 3 to 5): the few that a wake needs, without IO.

use std::time::Duration;

use crate::hub::ReceiptState;

/// Length, command, status and sequence number.
const HEADER_BYTES: usize = 16;

/// No packet that the gateway understands is longer.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// The version of the protocol.
const VERSION: u8 = 0x34;

/// The octets of an SMS, the characters of one in GSM 7 bit, and those of one in UCS-2.
const OCTETS_MAX: usize = 140;
const GSM_MAX: usize = 160;
const UCS2_MAX: usize = 70;

/// Data codings (section 5.2.19).
const DEFAULT_ALPHABET: u8 = 0;
const EIGHT_BIT: u8 = 4;
const UCS2: u8 = 8;

/// The message begins with a header of its own (section 5.2.12).
const HAS_HEADER: u8 = 0x40;

/// The bits of `esm_class` that say what a delivered message is, and that it is a receipt.
const TYPE_BITS: u8 = 0x3c;
const RECEIPT: u8 = 0x04;

/// Characters of ASCII that have the same code in the default alphabet of GSM.
const GSM_SYMBOLS: &str = " !\"#%&'()*+,-./:;<=>?\n\r";

/// Command ids (section 5.1.2.1).
pub(super) mod command {
    pub(in super::super) const RESPONSE: u32 = 0x8000_0000;
    pub(in super::super) const GENERIC_NACK: u32 = 0x8000_0000;
    pub(in super::super) const SUBMIT_SM: u32 = 0x04;
    pub(in super::super) const SUBMIT_SM_RESP: u32 = RESPONSE | SUBMIT_SM;
    pub(in super::super) const DELIVER_SM: u32 = 0x05;
    pub(in super::super) const DELIVER_SM_RESP: u32 = RESPONSE | DELIVER_SM;
    pub(in super::super) const UNBIND: u32 = 0x06;
    pub(in super::super) const UNBIND_RESP: u32 = RESPONSE | UNBIND;
    pub(in super::super) const BIND_TRANSCEIVER: u32 = 0x09;
    pub(in super::super) const BIND_TRANSCEIVER_RESP: u32 = RESPONSE | BIND_TRANSCEIVER;
    pub(in super::super) const ENQUIRE_LINK: u32 = 0x15;
    pub(in super::super) const ENQUIRE_LINK_RESP: u32 = RESPONSE | ENQUIRE_LINK;
}

/// Statuses (section 5.1.3).
pub(super) mod status {
    pub(in super::super) const OK: u32 = 0;
    pub(in super::super) const INVALID_COMMAND: u32 = 0x03;
    pub(in super::super) const ALREADY_BOUND: u32 = 0x05;
    pub(in super::super) const SYSTEM_ERROR: u32 = 0x08;
    pub(in super::super) const QUEUE_FULL: u32 = 0x14;
    pub(in super::super) const SUBMIT_FAILED: u32 = 0x45;
    pub(in super::super) const THROTTLED: u32 = 0x58;
}

/// What an SMS contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmsContent {
    /// A text, in which `{wake}` stands for the number of the wake.
    Text(String),
    /// A data message to this port, which an app receives without showing it.
    Data(u16),
}

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pdu {
    pub(super) command: u32,
    pub(super) status: u32,
    pub(super) sequence: u32,
    pub(super) body: Vec<u8>,
}

/// An SMS to submit.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    pub(super) source: String,
    pub(super) number: String,
    pub(super) content: SmsOctets,
    /// How long the message centre tries.
    pub(super) ttl: Duration,
}

/// The octets of an SMS, with how to read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SmsOctets {
    pub(super) data_coding: u8,
    pub(super) esm_class: u8,
    pub(super) octets: Vec<u8>,
}

/// What a receipt says (appendix B).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Receipt {
    /// The number that the SMS was for, such as `+31600000001`.
    pub(in super::super) number: String,
    pub(in super::super) state: ReceiptState,
    /// The error code of the message centre, for the log.
    pub(super) error: String,
}

/// The tag of the state of a message among the optional parameters, and its length (section 5.3.2.35).
const MESSAGE_STATE: [u8; 4] = [0x04, 0x27, 0, 1];

/// The states of a message, by their number in an optional parameter and their word in a text (section 5.2.28).
const STATES: [(u8, &str, ReceiptState); 6] = [
    (2, "DELIVRD", ReceiptState::Delivered),
    (3, "EXPIRED", ReceiptState::Expired),
    (4, "DELETED", ReceiptState::Rejected),
    (5, "UNDELIV", ReceiptState::Undeliverable),
    (8, "REJECTD", ReceiptState::Rejected),
    (6, "ACCEPTD", ReceiptState::Other),
];

/// The bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbage;

/// Encodes what a phone gets. `None`: it does not fit into one SMS.
pub(super) fn content(content: &SmsContent, wake: &str) -> Option<SmsOctets> {
    match content {
        SmsContent::Data(port) => {
            let [high, low] = port.to_be_bytes();
            // Ports of the receiver and of the sender (3GPP TS 23.040, section 9.2.3.24.4).
            let mut octets = vec![6, 5, 4, high, low, high, low];
            octets.extend_from_slice(format!("pollgate:{wake}").as_bytes());
            let fits = octets.len() <= OCTETS_MAX;
            fits.then_some(SmsOctets { data_coding: EIGHT_BIT, esm_class: HAS_HEADER, octets })
        }
        SmsContent::Text(text) => {
            let text = text.replace("{wake}", wake);
            let is_gsm = |one: char| one.is_ascii_alphanumeric() || GSM_SYMBOLS.contains(one);
            if text.chars().all(is_gsm) {
                let fits = text.len() <= GSM_MAX;
                return fits.then(|| SmsOctets {
                    data_coding: DEFAULT_ALPHABET,
                    esm_class: 0,
                    octets: text.into_bytes(),
                });
            }
            let units: Vec<_> = text.encode_utf16().collect();
            let fits = units.len() <= UCS2_MAX;
            let octets = || units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            fits.then(|| SmsOctets { data_coding: UCS2, esm_class: 0, octets: octets() })
        }
    }
}

/// A relative time (section 7.1.1), of at most 99 days.
fn relative(time: Duration) -> String {
    let seconds = time.as_secs().min(99 * 24 * 3600);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    // Thirty of the days are a month.
    format!("00{:02}{:02}{hours:02}{minutes:02}{:02}000R", days / 30, days % 30, seconds % 60)
}

/// Type and plan of a number, and the number as the protocol has it (sections 5.2.5 and 5.2.6).
fn address(text: &str) -> (u8, u8, &str) {
    match text.strip_prefix('+') {
        // International, ISDN.
        Some(digits) => (1, 1, digits),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => (0, 1, text),
        // A name.
        None => (5, 0, text),
    }
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes().filter(|byte| *byte != 0));
    body.push(0);
}

impl Pdu {
    pub(super) fn empty(command: u32, sequence: u32) -> Self {
        Self { command, status: status::OK, sequence, body: Vec::new() }
    }

    /// A refusal of a packet.
    pub(super) fn nack(sequence: u32) -> Self {
        Self { status: status::INVALID_COMMAND, ..Self::empty(command::GENERIC_NACK, sequence) }
    }

    pub(super) fn bind(sequence: u32, system_id: &str, password: &str) -> Self {
        let mut body = Vec::new();
        put_text(&mut body, system_id);
        put_text(&mut body, password);
        put_text(&mut body, "");
        body.extend([VERSION, 0, 0]);
        put_text(&mut body, "");
        Self { body, ..Self::empty(command::BIND_TRANSCEIVER, sequence) }
    }

    pub(super) fn submit(sequence: u32, submission: &Submission) -> Self {
        let SmsOctets { data_coding, esm_class, octets } = &submission.content;
        let mut body = vec![0];
        for text in [&submission.source, &submission.number] {
            let (kind, plan, text) = address(text);
            body.extend([kind, plan]);
            put_text(&mut body, text);
        }
        body.extend([*esm_class, 0, 0]);
        put_text(&mut body, "");
        put_text(&mut body, &relative(submission.ttl));
        // A receipt in any case, no replacement, no predefined message.
        body.extend([1, 0, *data_coding, 0]);
        body.push(u8::try_from(octets.len()).unwrap_or(u8::MAX));
        body.extend_from_slice(octets);
        Self { body, ..Self::empty(command::SUBMIT_SM, sequence) }
    }

    pub(super) fn deliver_response(sequence: u32, status: u32) -> Self {
        Self { status, body: vec![0], ..Self::empty(command::DELIVER_SM_RESP, sequence) }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + self.body.len()).unwrap_or(u32::MAX);
        let header = [length, self.command, self.status, self.sequence].map(u32::to_be_bytes);
        [header.as_flattened(), &self.body].concat()
    }

    /// Takes the first packet out of `bytes`. `None`: it is not complete.
    pub(super) fn take(bytes: &mut Vec<u8>) -> Result<Option<Self>, Garbage> {
        let word = |at: usize| {
            let four = bytes.get(at..at + 4)?;
            Some(u32::from_be_bytes(four.try_into().ok()?))
        };
        let Some(length) = word(0) else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| Garbage)?;
        if !(HEADER_BYTES..=PACKET_BYTES_MAX).contains(&length) {
            return Err(Garbage);
        }
        let (Some(command), Some(status), Some(sequence)) = (word(4), word(8), word(12)) else {
            return Ok(None);
        };
        if bytes.len() < length {
            return Ok(None);
        }
        let body = bytes.drain(..length).skip(HEADER_BYTES).collect();
        Ok(Some(Self { command, status, sequence, body }))
    }

    /// The id of a submitted message.
    pub(super) fn message_id(&self) -> Option<&str> {
        let (id, _) = text(&self.body)?;
        Some(id).filter(|id| !id.is_empty())
    }

    /// The receipt in a delivered message. `None`: it is another message, such as one from a person.
    pub(super) fn receipt(&self) -> Option<Receipt> {
        let (_, rest) = text(&self.body)?;
        let (number, rest) = text(rest.get(2..)?)?;
        let (_, rest) = text(rest.get(2..)?)?;
        let (esm_class, rest) = rest.split_first()?;
        let (_, rest) = text(rest.get(2..)?)?;
        let (_, rest) = text(rest)?;
        let (length, rest) = rest.get(4..)?.split_first()?;
        if esm_class & TYPE_BITS != RECEIPT {
            return None;
        }
        let (message, optional) = rest.split_at_checked(usize::from(*length))?;
        let message = String::from_utf8_lossy(message);
        let field = |name: &str| {
            let (_, rest) = message.split_once(name)?;
            Some(rest.split(' ').next().unwrap_or_default().chars().take(10).collect::<String>())
        };
        let by_number = parameter(optional, MESSAGE_STATE).map(|number| {
            STATES.iter().find(|(known, ..)| *known == number).map_or(ReceiptState::Other, |state| state.2)
        });
        let by_word = || {
            let word = field("stat:")?;
            let known = STATES.iter().find(|(_, known, _)| *known == word);
            Some(known.map_or(ReceiptState::Other, |state| state.2))
        };
        Some(Receipt {
            number: format!("+{}", number.trim_start_matches('+')),
            state: by_number.or_else(by_word)?,
            error: field("err:").unwrap_or_default(),
        })
    }
}

/// The value of one octet of the optional parameter that begins with `head`.
fn parameter(mut optional: &[u8], head: [u8; 4]) -> Option<u8> {
    loop {
        let (found, rest) = optional.split_first_chunk::<4>()?;
        let [_, _, high, low] = *found;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, behind) = rest.split_at_checked(length)?;
        if *found == head {
            return value.first().copied();
        }
        optional = behind;
    }
}

/// The text up to the next NUL, and what follows.
fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((std::str::from_utf8(bytes.get(..end)?).ok()?, bytes.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(content: SmsContent) -> Submission {
        let content = super::content(&content, "0123456789abcdef").unwrap();
        let [source, number] = ["POLL", "+31600000001"].map(str::to_owned);
        Submission { source, number, content, ttl: Duration::from_secs(3600) }
    }

    #[test]
    fn a_submission_has_the_fields_of_the_specification() {
        let pdu = Pdu::submit(7, &submission(SmsContent::Text("poll:{wake}".to_owned())));
        let mut expected =
            b"\0\x05\0POLL\0\x01\x0131600000001\0\0\0\0\x00000000010000000R\0\x01\0\0\0\x15".to_vec();
        expected.extend_from_slice(b"poll:0123456789abcdef");
        assert_eq!(pdu.body, expected);
        let bytes = pdu.encode();
        assert_eq!(bytes.len(), 16 + expected.len());
        assert_eq!(bytes[4..16], [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn texts_are_encoded_in_the_alphabet_that_they_need_and_fit_into_one_sms() {
        let text = |text: &str| content(&SmsContent::Text(text.to_owned()), "w");
        assert_eq!(text("Neues: {wake}?").unwrap().octets, b"Neues: w?");
        let other = text("нов").unwrap();
        assert_eq!((other.data_coding, other.octets), (UCS2, vec![0x04, 0x3d, 0x04, 0x3e, 0x04, 0x32]));
        // In the alphabet of GSM these have other codes than in ASCII.
        assert!(["@", "$", "_", "{", "^"].iter().all(|one| text(one).unwrap().data_coding == UCS2));
        assert!(text(&"a".repeat(160)).is_some() && text(&"a".repeat(161)).is_none());
        assert!(text(&"ü".repeat(70)).is_some() && text(&"ü".repeat(71)).is_none());
        let data = content(&SmsContent::Data(16100), "w").unwrap();
        assert_eq!((data.data_coding, data.esm_class), (EIGHT_BIT, HAS_HEADER));
        assert_eq!(data.octets, b"\x06\x05\x04\x3e\xe4\x3e\xe4pollgate:w");
    }

    #[test]
    fn lives_are_relative_times() {
        let texts = [60, 3600, 86_400, 31 * 86_400 + 3661, 86_400 * 1000]
            .map(|seconds| relative(Duration::from_secs(seconds)));
        let expected = [
            "000000000100000R",
            "000000010000000R",
            "000001000000000R",
            "000101010101000R",
            "000309000000000R",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn packets_are_taken_one_by_one_and_garbage_is_found() {
        let (one, other) = (Pdu::nack(1), Pdu::deliver_response(2, status::OK));
        let mut bytes = [one.encode(), other.encode()].concat();
        let whole = bytes.clone();
        assert_eq!([Pdu::take(&mut bytes), Pdu::take(&mut bytes)], [Ok(Some(one)), Ok(Some(other))]);
        assert_eq!((Pdu::take(&mut bytes), bytes.len()), (Ok(None), 0));
        for end in 0..16 {
            assert_eq!(Pdu::take(&mut whole[..end].to_vec()), Ok(None), "{end}");
        }
        for length in [0, 15, 65 * 1024, u32::MAX] {
            assert_eq!(Pdu::take(&mut length.to_be_bytes().to_vec()), Err(Garbage), "{length}");
        }
    }

    #[test]
    fn receipts_are_told_from_messages_of_people() {
        let receipt =
            b"id:7 sub:001 dlvrd:001 submit date:2611290000 done date:2611290001 stat:DELIVRD err:000 text:";
        let delivered = |esm_class: u8, message: &[u8]| {
            let mut body = b"\0\x01\x0131600000001\0\x05\0POLL\0".to_vec();
            body.extend([esm_class, 0, 0, 0, 0, 0, 0, 0, 0, u8::try_from(message.len()).unwrap()]);
            body.extend_from_slice(message);
            Pdu { body, ..Pdu::empty(command::DELIVER_SM, 1) }
        };
        let expected = |state| {
            let (number, error) = ("+31600000001".to_owned(), "000".to_owned());
            Some(Receipt { number, state, error })
        };
        assert_eq!(delivered(4, receipt).receipt(), expected(ReceiptState::Delivered));
        assert_eq!(delivered(0, receipt).receipt(), None);
        assert_eq!(delivered(4, b"hello").receipt(), None);
        let whole = delivered(4, receipt);
        for end in 0..whole.body.len() - 1 {
            let body = whole.body[..end].to_vec();
            assert_eq!(Pdu { body, ..whole.clone() }.receipt(), None, "{end}");
        }
        for (word, state) in [
            ("DELIVRD", ReceiptState::Delivered),
            ("EXPIRED", ReceiptState::Expired),
            ("DELETED", ReceiptState::Rejected),
            ("UNDELIV", ReceiptState::Undeliverable),
            ("REJECTD", ReceiptState::Rejected),
            ("ACCEPTD", ReceiptState::Other),
            ("ENROUTE", ReceiptState::Other),
            ("UNKNOWN", ReceiptState::Other),
        ] {
            let text = String::from_utf8_lossy(receipt).replace("DELIVRD", word);
            assert_eq!(delivered(4, text.as_bytes()).receipt(), expected(state), "{word}");
        }
        // Optional parameters take precedence: the id of the message and its state.
        for (number, state) in
            [(1, ReceiptState::Other), (3, ReceiptState::Expired), (5, ReceiptState::Undeliverable)]
        {
            let mut pdu = delivered(4, receipt);
            pdu.body.extend(b"\x00\x1e\x00\x02a\0\x04\x27\x00\x01");
            assert_eq!(pdu.receipt(), expected(ReceiptState::Delivered), "a parameter that is cut off");
            pdu.body.push(number);
            assert_eq!(pdu.receipt(), expected(state), "{number}");
        }
    }
}
