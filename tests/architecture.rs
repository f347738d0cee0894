//! The layout of the code: which module may know which, and what each file owes its reader.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module and what it may use of the crate. `main` may use what it likes.
const ARROWS: &[(&str, &[&str])] = &[
    ("stream", &[]),
    ("clock", &[]),
    ("limits", &[]),
    ("metrics", &[]),
    ("client", &[]),
    ("config", &["limits", "store"]),
    ("store", &["stream"]),
    ("hub", &["stream", "clock", "limits", "metrics"]),
    ("web", &[]),
    ("http", &["hub", "stream", "web", "clock", "limits", "metrics"]),
    ("mqtt", &["hub", "stream", "clock", "limits", "metrics"]),
    ("maintenance", &["store", "stream", "clock"]),
    ("server", &["http", "mqtt", "hub", "store", "stream", "config", "clock", "limits", "metrics"]),
];

/// What the pure core may use besides itself.
const PURE: &[&str] = &["std", "bytes", "serde_json", "super", "crate"];

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let below_src = path.strip_prefix("src").unwrap();
    let first = below_src.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules of the crate that a text names, however it does.
fn used_modules(text: &str) -> BTreeSet<&str> {
    let behind = text.split("crate::").skip(1);
    behind.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()).collect()
}

#[test]
fn modules_know_only_those_they_may() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let own = module(&path);
        // Tests of the hub run it over a store.
        if own == "main" || own == "commands" || own == "lib" || path.ends_with("tests.rs") {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == own) else {
            panic!("{} is in no module that the layout knows", path.display());
        };
        for used in used_modules(&text) {
            if used != own && !allowed.contains(&used) {
                wrong.push(format!("{}: {own} -> {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src/stream") {
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("use ")) {
            let root = line.split("::").next().unwrap();
            if !PURE.contains(&root) && !line.starts_with('{') {
                wrong.push(format!("{}: use {line}", path.display()));
            }
        }
        for impure in ["tokio", "hyper", "Instant", "SystemTime::now", "std::net", "std::fs", "std::io"] {
            if text.contains(impure) {
                wrong.push(format!("{}: {impure}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_file_says_what_it_is_for_and_stays_readable() {
    let mut wrong = Vec::new();
    for (path, text) in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        if !text.starts_with("//! ") {
            wrong.push(format!("{} does not open with //!", path.display()));
        }
        if text.lines().count() > 500 {
            wrong.push(format!("{} has more than 500 lines", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_wall_clock_is_read_in_one_file() {
    let reads = |text: &str| text.contains("SystemTime::now") || text.contains("std::time::Instant");
    let readers: Vec<_> =
        sources("src").into_iter().filter(|(_, text)| reads(text)).map(|(path, _)| path).collect();
    assert_eq!(readers, [Path::new("src/clock.rs")]);
}
