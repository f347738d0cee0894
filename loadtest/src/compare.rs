//! The command `compare`: runs every strategy on every server in turn, and builds the report.

use std::convert::Infallible;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Duration, interval};

use crate::cli::{Comparison, Conditions};
use crate::data::{self, Report};
use crate::generator::GeneratorError;
use crate::generators::Task;
use crate::machine::machine;
use crate::medians::median;
use crate::report::columns::mark_best;
use crate::report::verdict::verdict;
use crate::run::{RunError, run};
use crate::servers::{Server, ServerError, Storage};
use crate::strategies::Strategy;
use crate::wire::Transport;

/// Version of the report's format.
const FORMAT: u32 = 2;

/// Result of a comparison.
pub struct Outcome {
    /// All that was measured.
    pub report: Report,
    /// The first failure, if any run failed; its figures are missing in the report.
    pub failure: Option<RunError>,
}

/// One line of the table: a server, a strategy, and its repeated runs.
struct Entry {
    server: Server,
    strategy: Strategy,
    transport: Transport,
    runs: Vec<data::Run>,
}

impl Entry {
    /// Name in messages.
    fn name(&self) -> String {
        let over = self.transport.label().map(|label| format!(" over {label}")).unwrap_or_default();
        format!("{} {}{over}", self.server.name(), self.strategy)
    }
}

/// Runs every strategy on every server. A `stop` of true ends it early. Fails if the gateway or a rival cannot be used at all;
/// a later failure is in the outcome.
pub async fn compare(wanted: &Comparison, stop: watch::Receiver<bool>) -> Result<Outcome, ServerError> {
    let began = Timestamp::now().to_string();
    let mut notes = Vec::new();
    let mut entries = entries(wanted, &mut notes)?;
    for rival in &wanted.rival {
        if let Some(entry) = entries.iter().find(|entry| entry.server.name() == rival.name()) {
            rival.rehearse(entry.strategy, &Storage::Memory).await?;
        }
    }
    let mut failure = None;
    'all: for turn in 1..=wanted.conditions.repeat {
        for entry in &mut entries {
            if *stop.borrow() {
                break 'all;
            }
            let bar = bar(wanted, entry, turn);
            let task = task(wanted, entry.strategy, entry.transport);
            let result = tokio::select! {
                result = run(&entry.server, &task, stop.clone()) => result,
                never = advance(&bar) => match never {},
            };
            bar.finish_and_clear();
            match result {
                Ok(run) => entry.runs.push(run),
                Err(RunError::Generator(GeneratorError::Stopped)) => break 'all,
                Err(error) => {
                    notes.push(format!("{}: {error}", entry.name()));
                    let fatal = error.is_of_the_server();
                    failure = failure.or(Some(error));
                    if fatal {
                        break 'all;
                    }
                }
            }
        }
    }
    if *stop.borrow() {
        notes.push("interrupted: the report holds the measurements until then".to_owned());
    }
    let mut runs: Vec<_> = entries.iter().filter_map(|entry| median(&entry.runs)).collect();
    mark_best(&mut runs);
    let versions = versions(&entries);
    let mut report = Report {
        format: FORMAT,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        began,
        machine: machine(versions),
        workload: workload(wanted),
        verdict: None,
        runs,
        day: None,
        notes,
    };
    report.verdict = verdict(&report);
    Ok(Outcome { report, failure })
}

/// Builds the task of one run; a random number tells its messages from those of other runs.
fn task(wanted: &Comparison, strategy: Strategy, transport: Transport) -> Task {
    let conditions = &wanted.conditions;
    Task {
        plan: conditions.plan(wanted.rate, fastrand::u64(..)),
        strategy,
        transport,
        radios: conditions.radios(),
        late_after: conditions.late_after.unwrap_or(strategy.late_after()),
        clients_a_process: conditions.clients_a_process,
        network: conditions.network.clone(),
    }
}

/// Returns the runs to do, and adds a note for each strategy that the gateway does not support.
fn entries(wanted: &Comparison, notes: &mut Vec<String>) -> Result<Vec<Entry>, ServerError> {
    let Conditions { gateway, listen, .. } = &wanted.conditions;
    let server = Server::own(wanted.conditions.target()?, gateway.as_deref(), *listen)?;
    let mut entries = Vec::new();
    let transports = wanted.transports();
    let runs = wanted
        .strategies()
        .into_iter()
        .flat_map(|strategy| transports.iter().map(move |transport| (strategy, *transport)));
    let runs: Vec<_> = runs.collect();
    for (strategy, transport) in runs.iter().copied() {
        match server.supports_over(strategy, transport) {
            Ok(()) => entries.push(Entry { server: server.clone(), strategy, transport, runs: Vec::new() }),
            Err(why) => {
                eprintln!("{why}");
                notes.push(why.to_string());
            }
        }
    }
    for rival in &wanted.rival {
        rival.installed()?;
        let runs = runs.iter().copied();
        let supported =
            runs.filter(|(strategy, transport)| rival.supports_over(*strategy, *transport).is_ok());
        entries.extend(supported.map(|(strategy, transport)| Entry {
            server: rival.clone(),
            strategy,
            transport,
            runs: Vec::new(),
        }));
    }
    Ok(entries)
}

fn versions(entries: &[Entry]) -> Vec<(String, String)> {
    let mut versions = vec![("loadtest".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    for entry in entries {
        let name = entry.server.name();
        if versions.iter().all(|(known, _)| known != name) {
            versions.extend(entry.server.version().map(|version| (name.to_owned(), version)));
        }
    }
    versions
}

fn workload(wanted: &Comparison) -> data::Workload {
    let Conditions { clients, streams_shared, size, seconds, warm_up, seed, repeat, .. } = wanted.conditions;
    data::Workload {
        clients,
        streams_shared,
        rate: wanted.rate,
        message_bytes: size,
        seconds,
        warm_up_seconds: warm_up,
        seed,
        repeat,
        network: wanted.conditions.network.as_ref().map(|network| network.name.clone()),
    }
}

fn bar(wanted: &Comparison, entry: &Entry, turn: u32) -> ProgressBar {
    let seconds = (wanted.conditions.warm_up + wanted.conditions.seconds).ceil() as u64;
    let bar = ProgressBar::new(seconds);
    if let Ok(style) = ProgressStyle::with_template("{msg:36} {bar:40} {pos}/{len} s") {
        bar.set_style(style);
    }
    bar.set_message(format!("{} ({turn} of {})", entry.name(), wanted.conditions.repeat));
    bar
}

/// Advances the bar once a second; never returns.
async fn advance(bar: &ProgressBar) -> Infallible {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        seconds.tick().await;
        bar.inc(1);
    }
}
