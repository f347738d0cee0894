//! Checks the layout of the code: which folder may use which, no circles among files, and what each file must contain.
//!
//! `cargo test --test architecture -- --nocapture short` prints how large `src` is.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod circles;
mod modules;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use circles::circles;
use modules::Crate;

/// Each folder of `src` with the folders that it may use, and whatever these may use in turn.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["config", "server", "maintenance", "tokens"]),
    // The name under which the library exports `auth::issue`.
    ("tokens", &[]),
    ("server", &["http", "mqtt", "xmpp", "outbound", "admin", "hub", "store", "auth", "budget"]),
    ("http", &["auth", "hub", "export"]),
    ("mqtt", &["auth", "hub"]),
    ("xmpp", &["auth", "hub"]),
    ("outbound", &["hub", "http_client"]),
    ("admin", &["hub", "config"]),
    ("hub", &["stream", "budget"]),
    ("store", &["stream", "budget", "http_client"]),
    ("budget", &["stream"]),
    ("maintenance", &["store", "export"]),
    ("export", &["stream"]),
    ("auth", &["stream", "http_client"]),
    ("http_client", &[]),
    ("config", &["stream"]),
    ("clock", &["platform"]),
    ("metrics", &["platform"]),
    ("stream", &[]),
];

/// Folders that every folder may use, and that use none but `platform`. `stream` may use neither that nor the clock.
const LEAVES: &[&str] = &["access_log", "clock", "limits", "metrics", "platform", "traces"];

/// Uses that are forbidden even through other folders.
const NEVER: &[(&str, &[&str])] = &[
    ("stream", &["clock", "platform"]),
    ("hub", FRONTS),
    ("store", &["hub"]),
    ("http", &["store", "mqtt", "xmpp"]),
    ("mqtt", &["store", "http", "xmpp"]),
    ("xmpp", &["store", "http", "mqtt"]),
];

const FRONTS: &[&str] = &["http", "mqtt", "xmpp"];

/// Crates that the pure core may use: shared bytes, and the JSON parser for messages.
const PURE: &[&str] = &["std", "bytes", "serde_json"];

/// A file of `src` with fewer lines is short: it is easier to read as part of another one.
const SHORT: usize = 60;

/// Maximum number of names that two or more types share.
const SAME_NAMES_MAX: usize = 7;

/// Maximum number of short files.
const SHORT_MAX: usize = 12;

const LINES_MAX: usize = 500;

/// How many types, functions, methods and re-exports the library may offer to its users.
const PUBLIC_MAX: usize = 99;

static LIBRARY: LazyLock<Crate> = LazyLock::new(|| Crate::read("src/lib.rs"));
static COMMAND: LazyLock<Crate> = LazyLock::new(|| Crate::read("src/main.rs"));
static CLIENT: LazyLock<Crate> = LazyLock::new(|| Crate::read("clients/rust/src/lib.rs"));

/// Returns the files of a folder and its subfolders, with their texts.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![package.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            // Other people's sources are in folders such as `.venv`.
            if path.is_dir() && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(package).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// Returns the folder of `src` that a file belongs to, or the file's name without its extension.
fn folder(path: &Path) -> &str {
    let first = path.strip_prefix("src").unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs")
}

/// Whether one folder may use another, directly or through folders that it may use.
fn may_use(user: &str, used: &str) -> bool {
    let never = NEVER.iter().any(|(name, forbidden)| *name == user && forbidden.contains(&used));
    !never && (LEAVES.contains(&used) && !LEAVES.contains(&user) || reaches(user, used))
}

fn reaches(user: &str, used: &str) -> bool {
    let arrows = ARROWS.iter().find(|(name, _)| *name == user).map_or(&[][..], |(_, arrows)| arrows);
    arrows.iter().any(|next| *next == used || reaches(next, used))
}

#[test]
fn folders_use_only_the_folders_that_the_layout_allows() {
    let mut wrong = Vec::new();
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| *name).chain(LEAVES.iter().copied()).collect();
    let unknown: Vec<_> = LIBRARY.files().into_keys().filter(|file| !known.contains(folder(file))).collect();
    assert_eq!(unknown, [Path::new("src/lib.rs")], "files in folders that the layout does not know");
    for (user, used) in LIBRARY.uses() {
        for (used, names) in used {
            let (from, to) = (folder(&user), folder(&used));
            if from != to && !may_use(from, to) {
                wrong.push(format!(
                    "{from} -> {to}: {} uses {names:?} of {}",
                    user.display(),
                    used.display()
                ));
            }
        }
    }
    for (file, paths) in COMMAND.foreign() {
        for path in paths.into_iter().filter(|path| path[0] == "pollgate") {
            if !may_use("main", &path[1]) {
                wrong.push(format!("main -> {}: {} uses {}", path[1], file.display(), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_comparison_and_the_client_do_not_use_the_gateways_code() {
    let mut wrong = Vec::new();
    for other in [&*CLIENT, &Crate::read("loadtest/src/lib.rs"), &Crate::read("loadtest/src/main.rs")] {
        // A simulation runs the gateway in its own process.
        let measured = |file: &Path| !file.with_extension("").starts_with("loadtest/src/simulate");
        for (file, paths) in other.foreign().into_iter().filter(|(file, _)| measured(file)) {
            for path in paths.into_iter().filter(|path| path[0] == "pollgate") {
                wrong.push(format!("{} uses {}", file.display(), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    for own in [&*LIBRARY, &*CLIENT] {
        let found = circles(&own.uses());
        assert!(found.is_empty(), "{} circles, the smallest first: {found:#?}", found.len());
    }
}

/// One function decides what a client may do, and no front decides by itself.
#[test]
fn each_front_calls_the_one_authorization_function() {
    let uses = LIBRARY.uses();
    for front in FRONTS.iter().filter(|front| LIBRARY.files().keys().any(|file| folder(file) == **front)) {
        let asks = uses.iter().any(|(user, used)| {
            let names = used.get(Path::new("src/auth/grants.rs"));
            folder(user) == *front && names.is_some_and(|names| names.contains("authorize"))
        });
        assert!(asks, "{front} calls auth::authorize");
    }
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    let core = |file: &Path| file.starts_with("src/stream") || file == Path::new("src/stream.rs");
    for (file, paths) in LIBRARY.foreign() {
        for path in paths.into_iter().filter(|_| core(file)) {
            let root = path[0].as_str();
            let is_crate = root.starts_with(char::is_lowercase) && !is_primitive(root);
            let impure = ["Instant", "net", "fs", "io", "thread"]
                .iter()
                .any(|part| path.iter().any(|word| word == part));
            let asks_the_time = path.ends_with(&["SystemTime".to_owned(), "now".to_owned()]);
            if is_crate && !PURE.contains(&root) || impure || asks_the_time {
                wrong.push(format!("{}: {}", file.display(), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn is_primitive(name: &str) -> bool {
    let number =
        name.strip_prefix(['u', 'i', 'f']).is_some_and(|bits| bits == "size" || bits.parse::<u8>().is_ok());
    number || ["str", "char", "bool"].contains(&name)
}

#[test]
fn each_file_opens_with_its_purpose_and_has_a_limited_length() {
    let mut wrong = Vec::new();
    let folders = ["src", "tests", "benches", "loadtest", "clients/rust"];
    for (path, text) in folders.into_iter().flat_map(sources) {
        if !text.starts_with("//! ") {
            wrong.push(format!("{} does not open with //!", path.display()));
        }
        if text.lines().count() > LINES_MAX {
            wrong.push(format!("{} has more than {LINES_MAX} lines", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn few_files_are_short() {
    let files = sources("src").into_iter().map(|(path, text)| (path, text.lines().count()));
    let files: BTreeMap<_, _> = files.collect();
    let without_tests: usize = ["src/lib.rs", "src/main.rs"]
        .iter()
        .map(|root| Crate::read(root).files().values().sum::<usize>())
        .sum();
    let short: BTreeMap<_, _> = files.iter().filter(|(_, lines)| **lines < SHORT).collect();
    println!("lines of src: {}, without tests: {without_tests}", files.values().sum::<usize>());
    println!("files of src: {}, under {SHORT} lines: {}", files.len(), short.len());
    assert!(short.len() <= SHORT_MAX, "{} files under {SHORT} lines: {short:#?}", short.len());
}

#[test]
fn few_type_names_have_two_meanings() {
    let mut definitions: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (path, text) in sources("src") {
        for item in syn::parse_file(&text).unwrap().items {
            let name = match item {
                syn::Item::Struct(item) => item.ident,
                syn::Item::Enum(item) => item.ident,
                syn::Item::Trait(item) => item.ident,
                syn::Item::Type(item) => item.ident,
                _ => continue,
            };
            definitions.entry(name.to_string()).or_default().push(path.clone());
        }
    }
    definitions.retain(|_, paths| {
        paths.retain(|path| !path.ends_with("tests.rs"));
        paths.len() > 1
    });
    assert!(definitions.len() <= SAME_NAMES_MAX, "{} names: {definitions:#?}", definitions.len());
}

/// The names of public items in a list of items: methods and re-exports too, fields and variants not.
fn public_names(items: &[syn::Item], found: &mut Vec<String>) {
    let is_public = |visibility: &syn::Visibility| matches!(visibility, syn::Visibility::Public(_));
    for item in items {
        let (visibility, name) = match item {
            syn::Item::Const(item) => (&item.vis, item.ident.to_string()),
            syn::Item::Enum(item) => (&item.vis, item.ident.to_string()),
            syn::Item::Fn(item) => (&item.vis, item.sig.ident.to_string()),
            syn::Item::Mod(item) => (&item.vis, item.ident.to_string()),
            syn::Item::Static(item) => (&item.vis, item.ident.to_string()),
            syn::Item::Struct(item) => (&item.vis, item.ident.to_string()),
            syn::Item::Trait(item) => (&item.vis, item.ident.to_string()),
            syn::Item::Type(item) => (&item.vis, item.ident.to_string()),
            syn::Item::Use(item) => (&item.vis, "use".to_owned()),
            syn::Item::Impl(item) => {
                let methods = item.items.iter().filter_map(|part| match part {
                    syn::ImplItem::Fn(method) if is_public(&method.vis) => Some(method.sig.ident.to_string()),
                    _ => None,
                });
                found.extend(methods);
                continue;
            }
            _ => continue,
        };
        if is_public(visibility) {
            found.push(name);
        }
    }
}

/// `if let` guards of match arms need Rust 1.95, which the compiler of a developer has and the README does not ask for (`rust-version` in
/// Cargo.toml). Clippy checks the standard library alone.
#[test]
fn no_match_arm_has_an_if_let_guard() {
    for (path, text) in ["src", "clients/rust/src", "loadtest/src"].into_iter().flat_map(sources) {
        for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
            let guard = line.split_once(" if let ").filter(|(arm, _)| !arm.ends_with("else"));
            assert!(guard.is_none_or(|(_, rest)| !rest.contains("=>")), "{}: {line}", path.display());
        }
    }
}

/// `cargo test --test architecture -- --nocapture api` prints how many there are.
#[test]
fn the_public_api_is_small() {
    let mut public = Vec::new();
    public_names(&syn::parse_file(include_str!("../../src/lib.rs")).unwrap().items, &mut public);
    let behind_a_feature = include_str!("../../src/lib.rs").matches("#[doc(hidden)]\npub mod ").count();
    for (path, text) in sources("src") {
        // `tokens` is `auth::issue` under its public name.
        let is_tokens = path == Path::new("src/auth/issue.rs");
        if is_tokens || ["config", "limits", "maintenance", "server"].contains(&folder(&path)) {
            public_names(&syn::parse_file(&text).unwrap().items, &mut public);
        }
    }
    let count = public.len() - behind_a_feature;
    println!("public items: {count}");
    assert!(count <= PUBLIC_MAX, "{count} public items: {public:?}");
}

/// rustdoc shows it to users first. Doctests compile it.
#[test]
fn the_documentation_of_each_library_begins_with_a_program() {
    for root in ["src/lib.rs", "clients/rust/src/lib.rs"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(root)).unwrap();
        let documentation: Vec<_> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let program = documentation.iter().position(|line| *line == " ```no_run");
        let heading = documentation.iter().position(|line| line.starts_with(" # "));
        assert!(program.is_some() && program < heading, "{root}: program {program:?}, heading {heading:?}");
    }
}

#[test]
fn the_wall_clock_is_read_in_one_file() {
    let reads = |text: &str| text.contains("SystemTime::now") || text.contains("std::time::Instant");
    let readers: Vec<_> =
        sources("src").into_iter().filter(|(_, text)| reads(text)).map(|(path, _)| path).collect();
    assert_eq!(readers, [Path::new("src/clock/source.rs")]);
}
