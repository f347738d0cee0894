//! The documentation is correct: every shell and JavaScript block of its documents is executed in the order of its document,
//! and prints the output that the document shows. Rust blocks are doctests of the two crates.
//!
//! Each document has a gateway on separate ports. A block without a language, or `text`, is the expected output of the block
//! before it: the same lines in the same order; a line `...` stands for any lines. Offsets, resume tokens and cache cursors may
//! differ. `stand-ins.sh` has what stands for commands that build, download or measure for minutes.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may panic")]

mod blocks;
mod packaging;
#[allow(unreachable_pub, reason = "the other test binaries use it, too")]
#[path = "../world/ports.rs"]
mod ports;
mod run;

use std::path::Path;

use blocks::{Block, Blocks, blocks};
use run::Run;

/// Whether a gateway runs when the first block begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gateway {
    Runs,
    /// The blocks start it, or need none.
    IsStarted,
}
use Gateway::{IsStarted, Runs};

/// Makes a test of each document, and the list of them.
macro_rules! documents {
    ($($(#[$note:meta])* $test:ident: $path:literal, $gateway:expr;)*) => {
        const DOCUMENTS: &[&str] = &[$($path),*];
        $($(#[$note])* #[test] fn $test() { check($path, $gateway); })*
    };
}

documents! {
    readme: "README.md", IsStarted;
    benchmarks: "docs/benchmarks.md", IsStarted;
    command_line: "docs/command-line.md", Runs;
    comparison: "docs/comparison.md", IsStarted;
    contributing: "CONTRIBUTING.md", IsStarted;
    javascript_client: "clients/js/README.md", Runs;
    /// Requires nginx, Caddy, Apache, Squid, Varnish, hitch, HAProxy and mosquitto's clients.
    deployment: "docs/deployment.md", IsStarted;
    durability: "docs/durability.md", IsStarted;
    loadtest: "loadtest/README.md", Runs;
    /// Requires mosquitto's clients.
    mqtt: "docs/mqtt.md", Runs;
    networks: "docs/networks.md", Runs;
    /// Requires Python.
    origins: "docs/origins.md", IsStarted;
    protocol: "docs/protocol.md", Runs;
    /// Requires Redis and nginx.
    scaling: "docs/scaling.md", IsStarted;
    security: "docs/security.md", IsStarted;
    wake_ups: "docs/wake-ups.md", IsStarted;
    subscriptions: "docs/subscriptions.md", Runs;
    xmpp: "docs/xmpp.md", IsStarted;
    examples: "examples/README.md", IsStarted;
    /// Requires Python.
    chat: "examples/chat/README.md", IsStarted;
    /// Requires the headers of libcurl.
    device: "examples/device/README.md", Runs;
    /// Requires the example of the Rust client: `cargo build --workspace --example token_stream`.
    token_stream: "examples/token-stream/README.md", Runs;
    /// Requires Python with paho.
    job_queue: "examples/job-queue/README.md", Runs;
    /// Requires Python.
    dashboard: "examples/dashboard/README.md", IsStarted;
    /// Requires Python.
    push_to_wake: "examples/push-to-wake/README.md", IsStarted;
}

/// Folders with documents, relative to the repository.
const FOLDERS: [&str; 13] = [
    "",
    "docs",
    "docs/design",
    "clients/js",
    "clients/rust",
    "loadtest",
    "examples",
    "examples/chat",
    "examples/device",
    "examples/token-stream",
    "examples/job-queue",
    "examples/dashboard",
    "examples/push-to-wake",
];

/// Languages of blocks that are not executed here. Rust blocks are doctests.
const OTHER_LANGUAGES: [&str; 7] = ["", "text", "json", "toml", "yaml", "rust", "rust,no_run"];

/// First words of commands, which belong into an executed block.
const COMMANDS: [&str; 9] =
    ["$", "cargo", "curl", "node", "npm", "pollgate", "strace", "target/release/pollgate", "tests/run"];

#[test]
fn every_block_is_executed_or_is_no_command() {
    let mut wrong = Vec::new();
    for document in documents() {
        let Blocks { executed, others } = blocks(&text(&document));
        if !executed.is_empty() && !DOCUMENTS.contains(&&*document) {
            wrong.push(format!("{document} has blocks and is not executed"));
        }
        for (language, lines) in others {
            if !OTHER_LANGUAGES.contains(&&*language) {
                wrong.push(format!("{document} has a block of the language {language}"));
            }
            let command =
                |line: &&String| line.split(' ').next().is_some_and(|word| COMMANDS.contains(&word));
            if let Some(line) = lines.iter().find(command).filter(|_| !language.starts_with("rust")) {
                wrong.push(format!("{document}: not executed: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// All documents, as paths relative to the repository.
fn documents() -> Vec<String> {
    let names = |folder: &str| {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>()
    };
    let paths = FOLDERS.into_iter().flat_map(|folder| {
        names(folder).into_iter().map(move |name| Path::new(folder).join(name).to_string_lossy().into_owned())
    });
    paths.filter(|path| path.ends_with(".md")).collect()
}

/// The anchors of a document, as GitHub makes them of its headings.
fn anchors(document: &str) -> Vec<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    let letters = |line: &str| {
        let kept = |character: &char| character.is_alphanumeric() || [' ', '-', '_'].contains(character);
        line.trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(letters).collect()
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = text(&document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&document).parent().expect("a folder");
            let target = if file.is_empty() { document.clone().into() } else { folder.join(file) };
            let is_anchor = |text: String| anchors(&text).iter().any(|other| other == anchor);
            let path = root().join(&target);
            let leads = path.is_dir()
                || path.is_file() && (anchor.is_empty() || is_anchor(self::text(&target.to_string_lossy())));
            if !leads {
                wrong.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(document: &str) -> String {
    let path = root().join(document);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check(document: &str, gateway: Gateway) {
    let Blocks { executed, .. } = blocks(&text(document));
    assert!(!executed.is_empty(), "{document} has no blocks");
    let run = Run::new();
    let printed = run.all(&executed, gateway == Runs);
    for (Block { line, shown, .. }, printed) in executed.iter().zip(&printed) {
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

/// Replaces the parts of a line that differ in each run: epochs in offsets and entity tags, resume tokens, cache cursors and times.
fn normal(line: &str) -> String {
    let mut text = line.trim_end().to_owned();
    for (before, stands_for) in [("\"resume\":\"", 'T'), ("\"streamCursor\":\"", 'C'), ("\"time\":\"", 'D')] {
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
