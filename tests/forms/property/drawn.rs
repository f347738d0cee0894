//! Random messages that contain everything that may be hard to encode.

use fastrand::Rng;

use crate::world::Kind;

/// One case in this many has large messages, or very many.
pub(super) const BIG_EVERY: u64 = 120;

const MIB: usize = 1024 * 1024;

/// Pieces of text: line breaks in each spelling, text that looks like an event, and characters of every length.
const PIECES: &[&str] = &[
    "\r",
    "\n",
    "\r\n",
    "\n\n",
    "\0",
    " ",
    "  ",
    "\t",
    ":",
    "data:",
    "data: ",
    "event: control\n",
    "id:1\n",
    "a",
    "word",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    ",",
    "é",
    "ß",
    "€",
    "中",
    "\u{feff}",
    "\u{2028}",
    "\u{fffd}",
    "\u{7f}",
    "\u{85}",
    "😀",
    "\u{10ffff}",
];

const WHITE_SPACE: &[&str] = &["", "", "", " ", "\n", "\r", "\r\n", "\t", " \n\n "];

const SCALARS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1e400",
    "-1.5E-3",
    "123456789012345678901234567890",
    "\"\"",
    "\"\\u0000\"",
    "\"\\r\\n\"",
    "\"\\ud83d\\ude00\"",
    "{}",
    "[]",
];

/// The appends of one case. Whether they are large depends only on the seed.
pub(super) fn appends(rng: &mut Rng, kind: Kind, seed: u64) -> Vec<Vec<u8>> {
    let mut appends = match kind {
        Kind::Json => (0..rng.usize(1..8)).map(|_| json(rng).into_bytes()).collect(),
        Kind::Text => {
            let whole = text(rng, 40).into_bytes();
            split(rng, whole)
        }
        Kind::Binary => (0..rng.usize(1..8)).map(|_| bytes(rng, 64)).collect(),
    };
    // Three cases in a row, so one of each kind: a message of 1 MiB, and ten thousand tiny ones.
    match seed % BIG_EVERY {
        0..3 => appends.push(large(rng, kind)),
        3..6 if kind == Kind::Json => appends.push(format!("[{}]", vec!["7"; 10_000].join(",")).into_bytes()),
        3..6 => appends.extend((0..500).map(|_| bytes_of_a_character(rng))),
        _ => {}
    }
    appends
}

fn large(rng: &mut Rng, kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Binary => std::iter::repeat_with(|| rng.u8(..)).take(MIB).collect(),
        Kind::Json => format!("\"{}\"", "é\\n".repeat(MIB / 4 - 1)).into_bytes(),
        Kind::Text => {
            let piece = text(rng, 400) + ".";
            piece.repeat(MIB / piece.len()).into_bytes()
        }
    }
}

fn bytes_of_a_character(rng: &mut Rng) -> Vec<u8> {
    rng.choice(PIECES).unwrap().as_bytes().to_vec()
}

fn bytes(rng: &mut Rng, max: usize) -> Vec<u8> {
    (0..rng.usize(1..=max)).map(|_| rng.u8(..)).collect()
}

fn text(rng: &mut Rng, pieces_max: usize) -> String {
    (0..rng.usize(1..=pieces_max)).map(|_| *rng.choice(PIECES).unwrap()).collect()
}

/// Splits at random places, also within characters.
fn split(rng: &mut Rng, mut whole: Vec<u8>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while !whole.is_empty() {
        let rest = whole.split_off(rng.usize(1..=whole.len().min(12)));
        pieces.push(std::mem::replace(&mut whole, rest));
    }
    pieces
}

/// A value, or a nonempty array, of which each element is a message.
fn json(rng: &mut Rng) -> String {
    if rng.bool() {
        return format!("{}{}{}", white(rng), not_an_array(rng), white(rng));
    }
    let values: Vec<_> = (0..rng.usize(1..6)).map(|_| spaced(rng, 3)).collect();
    format!("{}[{}]{}", white(rng), values.join(","), white(rng))
}

fn white(rng: &mut Rng) -> &'static str {
    rng.choice(WHITE_SPACE).unwrap()
}

/// A value with white space around it.
fn spaced(rng: &mut Rng, depth: usize) -> String {
    let (before, after) = (white(rng), white(rng));
    format!("{before}{}{after}", value(rng, depth))
}

fn not_an_array(rng: &mut Rng) -> String {
    let value = value(rng, 3);
    if value.starts_with('[') { format!("{{\"a\":{value}}}") } else { value }
}

fn value(rng: &mut Rng, depth: usize) -> String {
    let members = |rng: &mut Rng| 0..rng.usize(0..4);
    match rng.usize(..if depth == 0 { 3 } else { 5 }) {
        0 => (*rng.choice(SCALARS).unwrap()).to_owned(),
        1 => rng.i64(..).to_string(),
        2 => string(rng),
        3 => {
            let values: Vec<_> = members(rng).map(|_| spaced(rng, depth - 1)).collect();
            format!("[{}{}]", white(rng), values.join(","))
        }
        _ => {
            let pairs: Vec<_> = members(rng)
                .map(|_| format!("{}{}{}:{}", white(rng), string(rng), white(rng), spaced(rng, depth - 1)))
                .collect();
            format!("{{{}{}}}", white(rng), pairs.join(","))
        }
    }
}

/// Any text, as a JSON string.
fn string(rng: &mut Rng) -> String {
    serde_json::to_string(&text(rng, 6)).unwrap()
}
