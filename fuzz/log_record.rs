//! Fuzzes records of the log on disk: a written record is read back at its own location, and damaged bytes are never taken for
//! content.

use bytes::Bytes;
use fastrand::Rng;

use super::frame::{FRAME_HEADER_BYTES, FrameLocation, FrameRead, read, split, write};
use super::record::{Ends, LogRecord};
use crate::fuzz::{Target, Verdict, fuzz};

const SEGMENT: u32 = 3;

/// First offset after the header of a segment.
const FIRST: u32 = 64;

/// A written record: its offset, and the body of its frame.
struct Written {
    at: usize,
    body: Vec<u8>,
}

/// The bytes of a segment with some records, without its header.
struct Image {
    bytes: Vec<u8>,
    records: Vec<Written>,
}

fn place(at: usize) -> FrameLocation {
    FrameLocation { segment: SEGMENT, offset: FIRST + at as u32 }
}

fn records() -> Vec<(LogRecord, &'static [u8])> {
    let appended =
        |stream, start, ends| LogRecord::Appended { stream, start, at: 1_700_000_000_000, ends, said: None };
    vec![
        (LogRecord::Opened { after: Some((2, 999)), synced: true, next_stream: 9, next_epoch: 77 }, b""),
        (appended(1, 0, Ends::Raw), b"some bytes"),
        (appended(2, 5, Ends::Many([3, 6, 9].into())), b"123456789"),
        (
            LogRecord::Moved { stream: 1, start: 10, at: 5, ends: Ends::One, annotation: None },
            b"{\"moved\":true}",
        ),
        (LogRecord::Cleared { stream: 1, from: 10 }, b""),
        (LogRecord::Renewed { stream: 2, epoch: 12, from: 3 }, b""),
        (
            LogRecord::Session {
                session: 4,
                client: "client".into(),
                entries: vec![(Bytes::from_static(b"key"), Bytes::from_static(b"value"))],
            },
            b"",
        ),
        (LogRecord::SessionChanged { session: 4, entries: vec![(Bytes::from_static(b"key"), None)] }, b""),
        (LogRecord::Ended { stream: 2 }, b""),
        (LogRecord::Run { epoch: 78 }, b""),
        (LogRecord::Closed, b""),
    ]
}

impl Image {
    fn new() -> Self {
        let (mut bytes, mut written) = (Vec::new(), Vec::new());
        for (record, content) in records() {
            let at = bytes.len();
            let length = write(&mut bytes, place(at), false, &record, content) as usize;
            assert_eq!(bytes.len(), at + length);
            let body = bytes[at + FRAME_HEADER_BYTES..].to_vec();
            let (read, behind): (LogRecord, &[u8]) = split(&body).expect("a record");
            assert_eq!((format!("{read:?}"), behind), (format!("{record:?}"), content));
            written.push(Written { at, body });
        }
        Self { bytes, records: written }
    }
}

#[test]
fn log_records() {
    let image = Image::new();
    let target = Target {
        name: "log_record",
        seeds: vec![image.bytes.clone()],
        words: &[&[0; 8], &[255; 4], &[0; 64], &[1, 0, 0, 0], &[0xff, 0xff, 0xff, 0x7f]],
        mend: |bytes, _| bytes,
        inputs: 2_000,
        allocated_max: (64 * 1024, 200),
    };
    fuzz(&target, |damaged| {
        let mut whole = 0;
        // Every offset is read, so that shifted or copied bytes are not taken for a record either.
        for at in 0..=damaged.len() {
            if let FrameRead::Body(body) = read(&damaged[at..], place(at)) {
                let original = image.records.iter().find(|written| written.at == at);
                assert!(original.is_some_and(|written| written.body == body), "something else at {at}");
                whole += 1;
            }
        }
        // An undamaged record is found, whatever happened to others.
        for Written { at, body } in &image.records {
            let frame = *at..at + FRAME_HEADER_BYTES + body.len();
            if damaged.get(frame.clone()) == Some(&image.bytes[frame]) {
                assert_eq!(read(&damaged[*at..], place(*at)), FrameRead::Body(body), "the record at {at}");
            }
        }
        bytes_with_a_valid_checksum_may_not_be_a_record(damaged);
        if whole > 0 { Verdict::Accepted } else { Verdict::Refused }
    });
}

/// A valid checksum does not prove that the content is understood: a later version may have written it.
fn bytes_with_a_valid_checksum_may_not_be_a_record(bytes: &[u8]) {
    let mut random = Rng::with_seed(bytes.len() as u64);
    for _ in 0..4 {
        let from = random.usize(..=bytes.len());
        let Some((record, content)) = split::<LogRecord>(&bytes[from..]) else { continue };
        assert!(bytes.ends_with(content));
        let mut again = Vec::new();
        write(&mut again, place(0), false, &record, content);
        let FrameRead::Body(body) = read(&again, place(0)) else {
            panic!("{record:?} was written and is damaged")
        };
        let (read, behind): (LogRecord, &[u8]) = split(body).expect("a record");
        assert_eq!((format!("{read:?}"), behind), (format!("{record:?}"), content));
    }
}
