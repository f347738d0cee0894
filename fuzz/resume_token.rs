//! Fuzzes resume tokens and offsets: written values are read back, and invalid tokens are refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastrand::Rng;

use super::{NameHash, ResumeToken, part};
use crate::fuzz::{Target, Verdict, fuzz};
use crate::stream::{Epoch, Offset, Position, Progress, StreamName};

/// Separates two parts in an input.
const PART_END: u8 = 0xfd;

/// An entry has at least a hash and a kind.
const ENTRY_BYTES_MIN: usize = 9;

#[test]
fn resume_tokens() {
    let offset = |epoch: u64, position| Offset { epoch: Epoch(epoch), position: Position(position) };
    let one = [(name(1), Progress::Earliest)];
    let four = [
        (name(1), Progress::At(offset(0x0123_4567_89ab_cdef, 5))),
        (name(2), Progress::Closed(offset(0x0123_4567_89ab_cdf0, u64::MAX))),
        (name(3), Progress::Missing),
        (name(4), Progress::At(offset(u64::MAX, 0))),
    ];
    let text = |entries: &[(StreamName, Progress)]| part(entries.iter().map(|(name, at)| (name, *at)));
    let seeds = [text(&one), text(&four), format!("{}.{}", text(&four), text(&one)), four_offset(&four)];
    let target = Target {
        name: "resume_token",
        seeds: seeds.iter().map(|text| input_of(text)).collect(),
        words: &[
            b".",
            b"_",
            b"-1",
            b"0000000000000000_0000000000000000",
            &[PART_END, 1],
            &[0; 9],
            &[0xff; 10],
        ],
        mend: |bytes, _| bytes,
        inputs: 20_000,
        allocated_max: (16 * 1024, 300),
    };
    fuzz(&target, |input| {
        written_is_read(input);
        let Some(text) = text_of(input) else { return Verdict::Refused };
        let offset = read_offset(&text);
        match ResumeToken::parse(&text) {
            Ok(token) => {
                is_bounded_and_adds_up(&token, &text);
                Verdict::Accepted
            }
            Err(_) if offset => Verdict::Accepted,
            Err(_) => Verdict::Refused,
        }
    });
}

/// Returns the text of an input. After an even first byte it is the input itself; after an odd one the input holds the parts of
/// a token before base64, since few random texts are valid base64.
fn text_of(input: &[u8]) -> Option<String> {
    let (form, bytes) = input.split_first()?;
    if form % 2 == 0 {
        return String::from_utf8(bytes.to_vec()).ok();
    }
    let parts: Vec<_> =
        bytes.split(|byte| *byte == PART_END).map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
    Some(parts.join("."))
}

/// Returns the input for a text.
fn input_of(text: &str) -> Vec<u8> {
    let parts: Result<Vec<_>, _> = text.split('.').map(|part| URL_SAFE_NO_PAD.decode(part)).collect();
    match parts {
        Ok(parts) if text.parse::<Offset>().is_err() => [&[1][..], &parts.join(&PART_END)].concat(),
        _ => [&[0][..], text.as_bytes()].concat(),
    }
}

fn name(number: u8) -> StreamName {
    StreamName::parse(&format!("room/{number}")).unwrap()
}

fn four_offset(entries: &[(StreamName, Progress)]) -> String {
    let Progress::At(offset) = entries[0].1 else { panic!("an offset") };
    offset.to_string()
}

/// Checks that an offset has exactly one text form. Returns whether `text` is an offset.
fn read_offset(text: &str) -> bool {
    let Ok(offset) = text.parse::<Offset>() else { return false };
    assert_eq!(offset.to_string(), text);
    true
}

/// Checks that a token has no more entries than its bytes allow, and that a part that is appended is read too.
fn is_bounded_and_adds_up(token: &ResumeToken, text: &str) {
    let bytes: usize = text.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap().len()).sum();
    assert!(token.0.len() <= bytes / ENTRY_BYTES_MIN, "{} entries in {bytes} bytes", token.0.len());
    assert_eq!(ResumeToken::parse(text).as_ref(), Ok(token));
    let later = part([(&name(200), Progress::Missing)]);
    let longer = ResumeToken::parse(&format!("{text}.{later}")).unwrap();
    let hash = NameHash::of(&name(200));
    assert!(matches!(longer.get(hash), Some((_, Progress::Missing))));
    for (hash, (_, progress)) in &token.0 {
        assert_eq!(longer.get(*hash).map(|(_, progress)| progress), Some(*progress));
    }
    assert!(longer.0.len() <= token.0.len() + 1);
}

/// Checks that entries made from the bytes of the input are read back from their text in the same order.
fn written_is_read(input: &[u8]) {
    let mut bytes = input.iter().copied().chain(std::iter::repeat(0));
    let mut random = Rng::with_seed(u64::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0))));
    let mut number = || random.u64(..) >> random.u32(..64);
    let entries: Vec<_> = (0..input.len().min(20) as u8)
        .map(|index| {
            let offset = Offset { epoch: Epoch(number()), position: Position(number()) };
            let progress = match number() % 4 {
                0 => Progress::Earliest,
                1 => Progress::Missing,
                2 => Progress::Closed(offset),
                _ => Progress::At(offset),
            };
            (name(index), progress)
        })
        .collect();
    let text = part(entries.iter().map(|(name, progress)| (name, *progress)));
    if entries.is_empty() {
        return assert_eq!(text, "");
    }
    let token = ResumeToken::parse(&text).unwrap();
    for (turn, (name, progress)) in entries.iter().enumerate() {
        assert_eq!(token.get(NameHash::of(name)), Some((turn, *progress)), "{text}");
    }
}
