//! Tests of the decoder with written frames, and with random messages that arrive in random pieces.

use super::*;

const MESSAGE_BYTES_MAX: usize = 100_000;

/// A masked frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length @ ..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Decodes `bytes` that arrive in pieces of these lengths in turn. After a violation nothing follows.
fn decoded(bytes: &[u8], pieces: &[usize]) -> (Vec<Decoded>, Option<Violation>) {
    let (mut decoder, mut all, mut rest) = (Decoder::default(), Vec::new(), bytes);
    for piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut piece, later) = rest.split_at((*piece).clamp(1, rest.len()));
        rest = later;
        loop {
            match decoder.decode(&mut piece, MESSAGE_BYTES_MAX) {
                Ok(Some(decoded)) => all.push(decoded),
                Ok(None) => break,
                Err(violation) => return (all, Some(violation)),
            }
        }
        assert!(piece.is_empty(), "all bytes before a violation are decoded");
    }
    (all, None)
}

#[test]
fn messages_and_control_frames_are_decoded_whatever_pieces_they_arrive_in() {
    let long = "ä€😀x".repeat(10_000);
    let bytes = [
        frame(0x81, b"one"),
        // A text of three frames with a ping and a pong between them, one cut within a character.
        frame(0x01, &"tw€".as_bytes()[..4]),
        frame(0x89, b"ping"),
        frame(0x00, &"tw€".as_bytes()[4..]),
        frame(0x8a, b""),
        frame(0x80, b""),
        frame(0x82, &[0xff; 300]),
        frame(0x81, b""),
        frame(0x81, long.as_bytes()),
        frame(0x88, &[3, 232, b'b', b'y', b'e']),
    ]
    .concat();
    let expected = [
        Decoded::Text(b"one".to_vec()),
        Decoded::Ping(b"ping".to_vec()),
        Decoded::Pong,
        Decoded::Text("tw€".into()),
        Decoded::Binary(vec![0xff; 300]),
        Decoded::Text(Vec::new()),
        Decoded::Text(long.into_bytes()),
        Decoded::Close(Some(1000)),
    ];
    for pieces in [&[1][..], &[2], &[3], &[1, 13], &[7, 4096], &[usize::MAX]] {
        assert_eq!(decoded(&bytes, pieces), (Vec::from_iter(expected.iter().map(again)), None), "{pieces:?}");
    }
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let pieces: Vec<usize> = (0..50).map(|_| random.usize(1..2000)).collect();
        assert_eq!(decoded(&bytes, &pieces).0, expected, "{pieces:?}");
    }
}

fn again(decoded: &Decoded) -> Decoded {
    match decoded {
        Decoded::Text(text) => Decoded::Text(text.clone()),
        Decoded::Binary(bytes) => Decoded::Binary(bytes.clone()),
        Decoded::Ping(payload) => Decoded::Ping(payload.clone()),
        Decoded::Pong => Decoded::Pong,
        Decoded::Close(code) => Decoded::Close(*code),
    }
}

#[test]
fn a_violation_is_found_with_the_first_byte_that_makes_it_one() {
    let unmasked = vec![0x81, 0x05];
    let padded = |marker: u8, length: &[u8]| [&[0x81, 0x80 | marker], length, &[0; 4]].concat();
    for (what, bytes, violation) in [
        ("reserved bit", vec![0xc1], Violation::Protocol),
        ("unknown opcode", vec![0x83], Violation::Protocol),
        ("fragmented ping", vec![0x09], Violation::Protocol),
        ("continuation of nothing", vec![0x80], Violation::Protocol),
        ("text within a message", [frame(0x01, b"a"), vec![0x81]].concat(), Violation::Protocol),
        ("unmasked", unmasked, Violation::Protocol),
        ("long ping", vec![0x89, 0x80 | 126], Violation::Protocol),
        ("half a close code", vec![0x88, 0x81], Violation::Protocol),
        ("padded length", padded(126, &[0, 125]), Violation::Protocol),
        ("padded long length", padded(127, &[0, 0, 0, 0, 0, 0, 0xff, 0xff]), Violation::Protocol),
        ("code 1005", frame(0x88, &[3, 237]), Violation::Protocol),
        ("code 999", frame(0x88, &[3, 231]), Violation::Protocol),
        ("reason", frame(0x88, &[3, 232, 0xff]), Violation::Text),
        ("text", frame(0x81, &[b'a', 0xff]), Violation::Text),
        ("half a character at the end", frame(0x81, &[0xe2, 0x82]), Violation::Text),
        ("surrogate", frame(0x01, &[0xed, 0xa0]), Violation::Text),
        ("too large", padded(127, &[0, 0, 0, 0, 0, 1, 0x86, 0xa1]), Violation::TooLarge),
        ("endless", padded(127, &[0xff; 8]), Violation::TooLarge),
    ] {
        for pieces in [&[1][..], &[usize::MAX]] {
            let (_, found) = decoded(&bytes, pieces);
            assert_eq!(found, Some(violation), "{what}");
        }
        let (_, before) = decoded(&bytes[..bytes.len() - 1], &[1]);
        assert_eq!(before, None, "{what}: one byte less");
    }
}

#[test]
fn the_size_limit_is_for_whole_messages() {
    let half = vec![b'x'; MESSAGE_BYTES_MAX / 2];
    let bytes = [frame(0x01, &half), frame(0x00, &half)].concat();
    assert_eq!(decoded(&bytes, &[4096]), (Vec::new(), None), "the message may have more frames");
    assert_eq!(decoded(&[&*bytes, &frame(0x80, b"")].concat(), &[4096]).0.len(), 1);
    assert_eq!(decoded(&[&*bytes, &frame(0x80, b"x")].concat(), &[4096]).1, Some(Violation::TooLarge));
}

#[test]
fn an_idle_decoder_has_no_buffer_and_a_promised_length_takes_none() {
    let mut decoder = Decoder::default();
    let bytes = [frame(0x81, &[b'x'; 50_000]), frame(0x89, b"ping")].concat();
    let mut rest = &*bytes;
    while let Ok(Some(_)) = decoder.decode(&mut rest, MESSAGE_BYTES_MAX) {}
    assert_eq!((decoder.payload.capacity(), decoder.control.capacity()), (0, 0));
    let begin = frame(0x81, &[b'x'; 90_000]);
    assert_eq!(decoder.decode(&mut &begin[..20], MESSAGE_BYTES_MAX), Ok(None));
    assert!(decoder.payload.capacity() < 100);
}
