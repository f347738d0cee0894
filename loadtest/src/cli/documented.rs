//! The command lines of the documentation are valid.

use std::path::Path;

use clap::{CommandFactory, Parser};

use super::Cli;

/// Documents with command lines of this program, relative to the repository.
const DOCUMENTS: [&str; 9] = [
    "CONTRIBUTING.md",
    "README.md",
    "docs/benchmarks.md",
    "docs/comparison.md",
    "docs/deployment.md",
    "docs/design/cost-model.md",
    "docs/design/simulation.md",
    "docs/networks.md",
    "loadtest/README.md",
];

/// What precedes the options in a block.
const PROGRAMS: [&str; 2] = ["cargo run --release -p loadtest", "target/release/loadtest"];

/// Returns the options in each line of a document that runs this program, and in each code span that begins with one of its
/// commands and has options.
fn command_lines(document: &str) -> Vec<String> {
    let commands: Vec<_> =
        Cli::command().get_subcommands().map(|command| format!("{} --", command.get_name())).collect();
    let in_blocks = document.lines().filter_map(|line| {
        let options = PROGRAMS.iter().find_map(|program| line.strip_prefix(program))?;
        let options = options.split(['#', '&', ';', '|']).next().unwrap_or_default().trim();
        Some(options.strip_prefix("-- ").unwrap_or(options).to_owned())
    });
    let spans = document.split('`').skip(1).step_by(2);
    let spans = spans.filter(|span| commands.iter().any(|command| span.starts_with(command)));
    in_blocks.chain(spans.map(str::to_owned)).collect()
}

/// Splits a line as the shell does, with quoted words.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split('\'').enumerate().flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    })
}

#[test]
fn the_command_lines_of_the_documentation_are_valid() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(repository.join(document)).unwrap();
        for line in command_lines(&text) {
            // The report of an earlier run is read while options are parsed; `tests/docs` makes one.
            let line = line.replace("$RIVAL", "durable-streams=PROGRAM").replace("--report report.json", "");
            let parsed = Cli::try_parse_from(["loadtest"].into_iter().chain(words(&line)));
            assert!(parsed.is_ok(), "{document}: {line}: {}", parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count > 20, "{count} command lines");
}
