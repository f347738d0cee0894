//! Fuzzes the frames of WebSocket clients: they are decoded as by the library that other WebSockets use, in whatever pieces they arrive,
//! and take no more memory than has arrived.

use std::pin::Pin;

use fastrand::Rng;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, join, sink};
use tokio_websockets::{Error, Limits, Message, ServerBuilder};

use super::{Decoded, Decoder, Violation};
use crate::fuzz::{Target, Verdict, fuzz};

const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Masked frames with a mask of zeros, whose payload a mutation can understand.
const SEEDS: &[&[u8]] = &[
    b"\x81\x85\0\0\0\0hello",
    b"\x01\x84\0\0\0\0tw\xe2\x82\x89\x84\0\0\0\0ping\x80\x81\0\0\0\0\xac",
    b"\x82\xfe\0\x80\x01\x02\x03\x04\x8a\x80\0\0\0\0",
    b"\x02\x80\0\0\0\0\x00\x83\0\0\0\0abc\x80\x80\0\0\0\0\x88\x85\0\0\0\0\x03\xe8bye",
    b"\x88\x80\0\0\0\0",
];

const WORDS: &[&[u8]] = &[
    b"\x81\x80\0\0\0\0",
    b"\x01\x81\0\0\0\0\xe2",
    b"\x80\x82\0\0\0\0\x82\xac",
    b"\x00\x80\0\0\0\0",
    b"\x82\xfe\0\x7e\0\0\0\0",
    b"\xff\0\0\0\0\0\0\x01\0\0\0\0\0",
    b"\x89\x81\0\0\0\0p",
    b"\x88\x82\0\0\0\0\x03\xe9",
    b"\xed\xa0\x80",
    b"\xf4\x90",
];

#[test]
fn frames_of_websocket_clients() {
    let target = Target {
        name: "websocket_frames",
        seeds: SEEDS.iter().map(|seed| seed.to_vec()).collect(),
        words: WORDS,
        mend: |bytes, _| bytes,
        inputs: 20_000,
        // The library takes what a header promises; what the decoder takes is checked piece by piece.
        allocated_max: (8 * 1024 * 1024, 1000),
    };
    fuzz(&target, |input| {
        let whole = decoded(input, |_| usize::MAX);
        assert_eq!(whole, decoded(input, |_| 1), "byte by byte");
        assert_eq!(whole, decoded(input, |random| random.usize(1..20)), "in random pieces");
        let theirs = by_the_library(input);
        if whole.1.is_some() != theirs.1.is_some() {
            // One of them finds a violation a few bytes earlier: the library looks at a header once it has two bytes, and at a length before
            // the mask has come.
            assert_eq!(whole.0, theirs.0, "before the violation");
            let more = [input, &[0xff; 20]].concat();
            let (ours, theirs) = (decoded(&more, |_| usize::MAX), by_the_library(&more));
            assert_eq!(ours, theirs, "a violation for both");
            assert!(ours.1.is_some());
        } else {
            assert_eq!(whole, theirs, "as the library");
        }
        match whole {
            (_, Some(_)) => Verdict::Refused,
            (_, None) => Verdict::Accepted,
        }
    });
}

/// Everything up to the first close frame or violation, from bytes that arrive in pieces.
fn decoded(input: &[u8], length: impl Fn(&mut Rng) -> usize) -> (Vec<Decoded>, Option<Violation>) {
    let (mut decoder, mut all, mut rest) = (Decoder::default(), Vec::new(), input);
    let mut random = Rng::with_seed(input.len() as u64);
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(length(&mut random).min(rest.len()));
        rest = later;
        loop {
            match decoder.decode(&mut piece, MESSAGE_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(close @ Decoded::Close(_))) => {
                    all.push(close);
                    return (all, None);
                }
                Ok(Some(decoded)) => all.push(decoded),
                Err(violation) => return (all, Some(violation)),
            }
        }
        assert!(decoder.payload.capacity() <= 2 * input.len() + 64, "memory for bytes that have not arrived");
    }
    (all, None)
}

/// The same by the library.
fn by_the_library(input: &[u8]) -> (Vec<Decoded>, Option<Violation>) {
    let io = join(input, sink());
    let limits = Limits::default().max_payload_len(Some(MESSAGE_BYTES_MAX));
    let mut socket = ServerBuilder::new().limits(limits).serve(io);
    let mut all = Vec::new();
    loop {
        match next(&mut socket) {
            Some(Ok(message)) => {
                let closes = message.is_close();
                all.push(of_message(&message));
                if closes {
                    return (all, None);
                }
            }
            Some(Err(Error::PayloadTooLong { .. })) => return (all, Some(Violation::TooLarge)),
            Some(Err(Error::Protocol(error))) => {
                let is_text = error.to_string().to_lowercase().contains("utf-8");
                return (all, Some(if is_text { Violation::Text } else { Violation::Protocol }));
            }
            // The input ends, perhaps within a frame.
            Some(Err(_)) | None => return (all, None),
        }
    }
}

fn next<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut tokio_websockets::WebSocketStream<S>,
) -> Option<Result<Message, Error>> {
    Pin::new(socket).next().now_or_never().expect("all bytes are there")
}

fn of_message(message: &Message) -> Decoded {
    let payload = message.as_payload().to_vec();
    match message {
        message if message.is_text() => Decoded::Text(payload),
        message if message.is_binary() => Decoded::Binary(payload),
        message if message.is_ping() => Decoded::Ping(payload),
        message if message.is_pong() => Decoded::Pong,
        _ => Decoded::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
    }
}
