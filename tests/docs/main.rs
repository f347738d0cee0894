//! The documentation is true: every shell and JavaScript block of the README and of `docs/` runs, in the order of its document, and
//! prints what the document shows.
//!
//! Each document has a gateway of its own, on ports of its own. A block that is followed by a block without a language prints
//! those lines, in this order; a line `...` stands for any others. Offsets, resume tokens and cache cursors differ each time.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may panic")]

mod blocks;
mod run;

use blocks::{Block, blocks};
use run::Run;

/// The documents with blocks.
const DOCUMENTS: [&str; 4] = [README, OPERATING, "docs/protocol.md", "docs/mqtt.md"];

/// These two start their gateway themselves.
const README: &str = "README.md";
const OPERATING: &str = "docs/operating.md";

#[test]
fn the_readme_is_true() {
    check(README);
}

#[test]
fn the_protocol_is_true() {
    check("docs/protocol.md");
}

#[test]
fn the_operators_guide_is_true() {
    check(OPERATING);
}

/// Needs mosquitto's clients.
#[test]
fn the_page_about_mqtt_is_true() {
    check("docs/mqtt.md");
}

#[test]
fn every_document_with_blocks_is_run() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let document = format!("docs/{}", entry.file_name().to_string_lossy());
        if document.ends_with(".md") && !blocks(&text(&document)).is_empty() {
            assert!(DOCUMENTS.contains(&&*document), "{document} has blocks and is not run");
        }
    }
}

fn text(document: &str) -> String {
    let path = format!("{}/{document}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn check(document: &str) {
    let blocks = blocks(&text(document));
    assert!(!blocks.is_empty(), "{document} has no blocks");
    let run = Run::new();
    let printed = run.all(&blocks, [README, OPERATING].contains(&document));
    for (Block { line, shown, .. }, printed) in blocks.iter().zip(&printed) {
        if let Err(missing) = shows(shown, printed) {
            panic!("{document}, line {line}: not printed: {missing}\nprinted:\n{printed}");
        }
    }
}

/// Whether `printed` has the shown lines in their order, and between two of them nothing unless `...` stands there.
fn shows(shown: &[String], printed: &str) -> Result<(), String> {
    let mut printed = printed.lines().map(normal).filter(|line| !line.is_empty());
    let mut skips = false;
    for line in shown.iter().map(|line| normal(line)).filter(|line| !line.is_empty()) {
        if line == "..." {
            skips = true;
            continue;
        }
        let found =
            if skips { printed.any(|other| other == line) } else { printed.next().as_ref() == Some(&line) };
        if !found {
            return Err(line);
        }
        skips = false;
    }
    Ok(())
}

/// The hexadecimal digits of an epoch: 16 in an offset, and fewer in an entity tag if it begins with zeros.
const EPOCH_DIGITS: std::ops::RangeInclusive<usize> = 10..=16;

/// A line without what differs each time: the epochs of offsets and entity tags, resume tokens and cache cursors.
fn normal(line: &str) -> String {
    let mut text = line.trim_end().to_owned();
    for (before, stands_for) in [("\"resume\":\"", 'T'), ("\"streamCursor\":\"", 'C')] {
        if let Some(start) = text.find(before).map(|at| at + before.len())
            && let Some(length) = text[start..].find('"')
        {
            text.replace_range(start..start + length, &stands_for.to_string());
        }
    }
    let mut words = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(|character: char| character.is_ascii_hexdigit()) {
        let digits =
            rest[at..].find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(rest.len() - at);
        words.push_str(&rest[..at]);
        words.push_str(if EPOCH_DIGITS.contains(&digits) && !rest[at..].starts_with("00000") {
            "E"
        } else {
            &rest[at..at + digits]
        });
        rest = &rest[at + digits..];
    }
    words + rest
}

#[test]
fn lines_are_compared_without_what_differs_each_time() {
    let shown = [
        "event: control".to_owned(),
        "...".to_owned(),
        "data:{\"at\":\"2f504ea28661430e_0000000000000004\"}".to_owned(),
    ];
    let printed = "event: control\nx\n\ndata:{\"at\":\"ffff4ea28661430e_0000000000000004\"}\n";
    assert_eq!(shows(&shown, printed), Ok(()));
    assert!(shows(&shown, &printed.replace("04\"", "05\"")).is_err());
    assert!(shows(&shown, "x\nevent: control\n").is_err());
    assert_eq!(normal("etag: \"b0adec623473434:0:2\""), normal("etag: \"2f504ea28661430e:0:2\""));
}
