//! One or a few frames that violate RFC 6455.

use super::{BINARY, CLOSE, ENDS, Fixture, GOES_ON, PING, TEXT, TEXT_BEGINS};
use crate::world::frame;

const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// A frame header with a length that is greater than what follows.
fn promise(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0x80 | 127][..], &length.to_be_bytes(), &[0; 4]].concat()
}

fn closing(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

async fn each_is_closed(breaches: Vec<(&str, Vec<u8>, u16)>) {
    let mut fixture = Fixture::start(&[]).await;
    for (breach, bytes, code) in breaches {
        let mut socket = fixture.socket().await;
        socket.write(&bytes).await.unwrap();
        let close = socket.closed().await;
        assert_eq!(close.0, code, "{breach}: {close:?}");
        fixture.memory_is_flat(breach);
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn a_breach_of_the_framing_is_closed_with_1002() {
    let mut breaches = vec![
        ("a frame without a mask", vec![TEXT, 1, b'x'], 1002),
        ("a close frame without a mask", vec![CLOSE, 0], 1002),
        ("a control frame in fragments", frame(PING & 0x7f, b""), 1002),
        ("a control frame of 126 bytes", frame(PING, &[0; 126]), 1002),
        ("a message that goes on without having begun", frame(GOES_ON, b"x"), 1002),
        ("a message that ends without having begun", frame(ENDS, b"x"), 1002),
        ("a message within another", [frame(TEXT_BEGINS, b"x"), frame(TEXT, b"y")].concat(), 1002),
        ("a length of 2 in two bytes", vec![TEXT, 0x80 | 126, 0, 2, 0, 0, 0, 0, b'x', b'y'], 1002),
        ("a length of 2 in eight bytes", [promise(TEXT, 2), b"xy".to_vec()].concat(), 1002),
        ("a close frame with half a code", frame(CLOSE, &[3]), 1002),
    ];
    for reserved in [0x40, 0x20, 0x10, 0x70] {
        breaches.push(("a reserved bit", frame(TEXT | reserved, b"x"), 1002));
        breaches.push(("a reserved bit of a ping", frame(PING | reserved, b"x"), 1002));
    }
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        breaches.push(("a reserved opcode", frame(0x80 | opcode, b""), 1002));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        breaches.push(("a close code that must not be sent", closing(code, b""), 1002));
    }
    each_is_closed(breaches).await;
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_is_closed_with_1007_wherever_it_is_cut() {
    let mut breaches = vec![
        ("half a character at the end", frame(TEXT, b"caf\xc3"), 1007),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("a character in too many bytes", frame(TEXT, b"\xc0\xaf"), 1007),
        ("one above the last character", frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
        ("a reason that is not UTF-8", closing(1000, b"\xff"), 1007),
        (
            "half a character at the end of a fragmented text",
            { [frame(TEXT_BEGINS, b"caf"), frame(ENDS, b"\xc3")].concat() },
            1007,
        ),
    ];
    let wrong = b"\xf0\x9f\x98x";
    for cut in 1..wrong.len() {
        let (start, end) = wrong.split_at(cut);
        // It is invalid before its last byte arrives, so the message need not be complete.
        let frames = [frame(TEXT_BEGINS, start), frame(PING, b""), frame(GOES_ON, end)].concat();
        breaches.push(("a wrong character in two fragments", frames, 1007));
    }
    each_is_closed(breaches).await;
}

#[tokio::test]
async fn a_message_above_the_limit_is_closed_with_1009_in_one_frame_or_in_many() {
    let too_long = vec![b'x'; MESSAGE_BYTES_MAX + 1];
    let in_two = [frame(TEXT_BEGINS, &too_long[1..]), frame(ENDS, b"x")].concat();
    let in_many: Vec<u8> = too_long.chunks(4096).flat_map(|chunk| frame(GOES_ON, chunk)).collect();
    each_is_closed(vec![
        ("one byte above the limit", frame(TEXT, &too_long), 1009),
        ("the same in two frames", in_two, 1009),
        ("the same in many", [frame(TEXT_BEGINS, b""), in_many.repeat(4)].concat(), 1009),
        ("2^63 bytes", promise(BINARY, 1 << 63), 1009),
        ("2^64 - 1 bytes", promise(TEXT, u64::MAX), 1009),
        ("1 MiB + 1 that does not come", promise(TEXT, MESSAGE_BYTES_MAX as u64 + 1), 1009),
    ])
    .await;
}
