//! Properties of resume tokens, checked on random ones. The seeds are fixed, so that failures can be reproduced.

use std::collections::HashMap;

use super::*;

const DRAWS: usize = 2_000;

fn name(number: usize) -> StreamName {
    StreamName::parse(&format!("room/{number}")).unwrap()
}

/// Returns a random number of any length, often one of the extremes.
fn number(random: &mut fastrand::Rng) -> u64 {
    match random.u8(..8) {
        0 => 0,
        1 => u64::MAX,
        _ => random.u64(..) >> random.u32(..64),
    }
}

fn progress(random: &mut fastrand::Rng) -> Progress {
    let offset = Offset { epoch: Epoch(number(random)), position: Position(number(random)) };
    match random.u8(..6) {
        0 => Progress::Earliest,
        1 => Progress::Missing,
        2 => Progress::Closed(offset),
        _ => Progress::At(offset),
    }
}

/// Returns random positions in some of `streams` streams, each at most once.
fn places(random: &mut fastrand::Rng, streams: usize) -> Vec<(StreamName, Progress)> {
    let mut numbers: Vec<_> = (0..streams).collect();
    random.shuffle(&mut numbers);
    numbers.truncate(random.usize(1..=streams));
    numbers.into_iter().map(|number| (name(number), progress(random))).collect()
}

fn text(places: &[(StreamName, Progress)]) -> String {
    part(places.iter().map(|(name, progress)| (name, *progress)))
}

fn found(token: &ResumeToken, name: &StreamName) -> Option<Progress> {
    token.get(NameHash::of(name)).map(|(_, progress)| progress)
}

#[test]
fn what_is_written_is_read_and_in_its_order() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..DRAWS {
        let places = places(&mut random, 30);
        let text = text(&places);
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        assert!(text.bytes().all(safe), "{text}");
        let token = ResumeToken::parse(&text).unwrap();
        for (turn, (name, progress)) in places.iter().enumerate() {
            assert_eq!(token.get(NameHash::of(name)), Some((turn, *progress)), "{text}");
        }
        assert_eq!(token.0.len(), places.len());
    }
}

#[test]
fn of_two_parts_that_speak_of_a_stream_the_later_one_counts() {
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..DRAWS {
        let mut expected = HashMap::new();
        let mut parts = Vec::new();
        for _ in 0..random.usize(1..=5) {
            let places = places(&mut random, 12);
            parts.push(text(&places));
            expected.extend(places);
        }
        let token = ResumeToken::parse(&parts.join(".")).unwrap();
        for number in 0..13 {
            let name = name(number);
            assert_eq!(found(&token, &name), expected.get(&name).copied(), "{parts:?}");
        }
    }
}

#[test]
fn streams_that_come_and_go_are_known_as_long_as_they_are_there() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut resume = text(&places(&mut random, 20));
    for _ in 0..DRAWS {
        // A request for some streams, of which the token may know some; then the full token of its response.
        let token = ResumeToken::parse(&resume).unwrap();
        let asked = places(&mut random, 40);
        let told: Vec<_> = asked
            .into_iter()
            .map(|(name, new)| {
                let progress = found(&token, &name).unwrap_or(new);
                (name, progress)
            })
            .collect();
        resume = text(&told);
        let token = ResumeToken::parse(&resume).unwrap();
        assert_eq!(token.0.len(), told.len(), "the token has entries only for requested streams");
        assert!(told.iter().all(|(name, progress)| found(&token, name) == Some(*progress)));
    }
}

#[test]
fn whatever_is_sent_is_read_or_refused_and_what_is_read_can_be_written_again() {
    let mut random = fastrand::Rng::with_seed(4);
    let (mut taken, mut refused) = (0, 0);
    for draw in 0..50 * DRAWS {
        let mut bytes = if draw % 2 == 0 {
            text(&places(&mut random, 4)).into_bytes()
        } else {
            (0..random.usize(..40)).map(|_| random.u8(..)).collect()
        };
        for _ in 0..random.usize(..3) {
            let at = random.usize(..=bytes.len());
            match random.u8(..3) {
                0 if at < bytes.len() => bytes[at] = random.u8(..),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, *random.choice(b"A9-_.=\0\xff").unwrap()),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let Ok(token) = ResumeToken::parse(&text) else {
            refused += 1;
            continue;
        };
        taken += 1;
        for number in 0..4 {
            let name = name(number);
            let Some(progress) = found(&token, &name) else { continue };
            let again = ResumeToken::parse(&part([(&name, progress)])).unwrap();
            assert_eq!(found(&again, &name), Some(progress), "{text}");
        }
    }
    assert!(taken > DRAWS && refused > DRAWS, "{taken} taken, {refused} refused");
}

#[test]
fn the_format_does_not_change() {
    let offset = |epoch, position| Offset { epoch: Epoch(epoch), position: Position(position) };
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|text| StreamName::parse(text).unwrap());
    let places = [
        (&a, Progress::At(offset(0x2f50_4ea2_8661_430e, 300))),
        (&b, Progress::Closed(offset(0x2f50_4ea2_8661_430d, 0))),
        (&c, Progress::Missing),
        (&d, Progress::Earliest),
    ];
    assert_eq!(part(places), "AYzsAYZM3GOvAZyMiubQqKfQXqwCpfEBhkzfY68CAQDy7wGGTN5jrwNz5wGGTNljrwA");
    assert_eq!(part([]), "");
    // Test vectors of FNV-1a (Noll).
    for (text, hash) in [("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
        assert_eq!(NameHash::of(&StreamName::parse(text).unwrap()), NameHash(hash));
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let good = part([(&name(1), Progress::At(Offset { epoch: Epoch(5), position: Position(1) }))]);
    assert!(ResumeToken::parse(&good).is_ok());
    for bad in ["", ".", "A", "AQ==", "?", &format!("{good}."), &format!(".{good}"), &good[..good.len() - 2]]
    {
        assert_eq!(ResumeToken::parse(bad), Err(InvalidResumeToken), "{bad:?}");
    }
    for bytes in [
        &[0][..],
        &[2],
        // An unknown kind.
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 9],
        // A number of more than 64 bits, and one that never ends.
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 3, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 0],
    ] {
        assert_eq!(ResumeToken::parse(&URL_SAFE_NO_PAD.encode(bytes)), Err(InvalidResumeToken), "{bytes:?}");
    }
}

/// A token that an earlier version wrote keeps its meaning, because clients still hold such tokens.
#[test]
fn a_written_token_keeps_its_meaning() {
    let at = |epoch, position| Offset { epoch: Epoch(epoch), position: Position(position) };
    let places = [
        Progress::At(at(7, 300)),
        Progress::Closed(at(5, u64::MAX)),
        Progress::Missing,
        Progress::Earliest,
        Progress::At(at(u64::MAX, 0)),
        Progress::At(at(1 << 63, 127)),
    ];
    let places: Vec<_> =
        places.into_iter().enumerate().map(|(number, progress)| (name(number), progress)).collect();
    let written = concat!(
        "Ac11KPgkO42_AQ6sAhp0KPgkOo2_AgP___________8BZ3Io-CQ5jb8DtHAo-CQ4jb8AAW8o-CQ3jb8B",
        "CwBObSj4JDaNvwH9__________8Bfw",
    );
    assert_eq!(text(&places), written);
    let known = ResumeToken::parse(written).unwrap();
    assert!(places.iter().all(|(name, progress)| found(&known, name) == Some(*progress)));
}
