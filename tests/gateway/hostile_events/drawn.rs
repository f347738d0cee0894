//! Random cases with a fixed seed, for combinations that the picked cases miss.

use bytes::Bytes;
use fastrand::Rng;

use super::{Case, Kind};
use crate::world::Gateway;

/// Pieces that the messages are composed of, so that dangerous sequences are frequent.
const PIECES: [&[u8]; 24] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\0",
    b" ",
    b"  ",
    b":",
    b"data",
    b"data:",
    b"event: control",
    b"event:",
    b"id:",
    b"retry:",
    b"\xef\xbb\xbf",
    b"a",
    "é".as_bytes(),
    "🦀".as_bytes(),
    b"{",
    b"}",
    b"\"",
    b"\\",
    b"\t",
    b"[]",
];

/// Parts of UTF-8 characters, for streams whose messages may be any bytes.
const BROKEN_PIECES: [&[u8]; 5] = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f", b"\x80"];

const CASES_EACH: usize = 300;

fn message(random: &mut Rng, pieces: &[&[u8]]) -> Bytes {
    let count = random.usize(1..12);
    let pieces: Vec<&[u8]> = std::iter::repeat_with(|| *random.choice(pieces).unwrap()).take(count).collect();
    pieces.concat().into()
}

async fn all_arrive(kind: Kind, seed: u64, mut message: impl FnMut(&mut Rng) -> Bytes) {
    let gateway = Gateway::start(&[]).await;
    let mut case = Case::new(&gateway, kind).await;
    let mut random = Rng::with_seed(seed);
    for _ in 0..CASES_EACH {
        let messages: Vec<Bytes> = (0..random.usize(1..5)).map(|_| message(&mut random)).collect();
        let (before, behind) = messages.split_at(random.usize(..=messages.len()));
        case.arrives(before, behind).await;
    }
}

#[tokio::test]
async fn text_drawn_at_random_arrives() {
    all_arrive(Kind::Text, 1, |random| message(random, &PIECES)).await;
}

#[tokio::test]
async fn text_with_broken_characters_drawn_at_random_arrives() {
    let pieces = [&PIECES[..], &BROKEN_PIECES, &BROKEN_PIECES].concat();
    all_arrive(Kind::Text, 2, |random| message(random, &pieces)).await;
}

#[tokio::test]
async fn json_drawn_at_random_arrives() {
    let spaces = ["", " ", "\n", "\r", "\r\n", "\n\n", "\r\r", "\t"];
    all_arrive(Kind::Json, 3, |random| {
        let text = String::from_utf8(message(random, &PIECES).to_vec()).unwrap();
        let text = serde_json::to_string(&text).unwrap();
        let number = random.i32(..);
        // White space between the tokens, which an encoder that passes the bytes on must handle.
        let tokens = ["[", &text, ",", "{", &text, ":", "[", &number.to_string(), "]", "}", "]"];
        let spaced = tokens.map(|token| [random.choice(spaces).unwrap(), token].concat());
        spaced.concat().into()
    })
    .await;
}

#[tokio::test]
async fn bytes_drawn_at_random_arrive() {
    all_arrive(Kind::Binary, 4, |random| {
        let count = random.usize(1..200);
        std::iter::repeat_with(|| random.u8(..)).take(count).collect()
    })
    .await;
}
