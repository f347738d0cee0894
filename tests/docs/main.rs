//! The documentation is correct: every shell and JavaScript block of the README and of `docs/` is executed in the order of its
//! document, and prints the output that the document shows.
//!
//! Each document has a gateway on separate ports. A block without a language is the expected output of the block before it: the
//! same lines in the same order; a line `...` stands for any lines. Offsets, resume tokens and cache cursors may differ.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may panic")]

mod blocks;
mod run;

use blocks::{Block, blocks};
use run::Run;

/// Documents with blocks.
const DOCUMENTS: [&str; 6] = [README, OPERATING, SECURITY, DEPLOYMENT, "docs/protocol.md", "docs/mqtt.md"];

/// Documents that start their gateway themselves.
const README: &str = "README.md";
const OPERATING: &str = "docs/operating.md";
const SECURITY: &str = "docs/security.md";
const DEPLOYMENT: &str = "docs/deployment.md";

#[test]
fn the_blocks_of_the_readme_work() {
    check(README);
}

#[test]
fn the_blocks_of_the_protocol_work() {
    check("docs/protocol.md");
}

#[test]
fn the_blocks_of_the_operators_guide_work() {
    check(OPERATING);
}

#[test]
fn the_blocks_of_the_security_page_work() {
    check(SECURITY);
}

/// Requires nginx, Caddy, HAProxy and mosquitto's clients.
#[test]
fn the_blocks_of_the_deployment_page_work() {
    check(DEPLOYMENT);
}

/// Requires mosquitto's clients.
#[test]
fn the_blocks_of_the_mqtt_page_work() {
    check("docs/mqtt.md");
}

#[test]
fn every_document_with_blocks_is_tested() {
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
    let printed = run.all(&blocks, [README, OPERATING, SECURITY, DEPLOYMENT].contains(&document));
    for (Block { line, shown, .. }, printed) in blocks.iter().zip(&printed) {
        if let Err(missing) = shows(shown, printed) {
            panic!("{document}, line {line}: not printed: {missing}\nprinted:\n{printed}");
        }
    }
}

/// Checks that `printed` has the shown lines in order, without other lines between two of them unless `...` allows it.
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

/// Number of hexadecimal digits of an epoch: 16 in an offset, and fewer in an entity tag if it begins with zeros.
const EPOCH_DIGITS: std::ops::RangeInclusive<usize> = 10..=16;

/// Replaces the parts of a line that differ in each run: epochs in offsets and entity tags, resume tokens and cache cursors.
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
fn offsets_and_tokens_are_ignored_when_lines_are_compared() {
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
