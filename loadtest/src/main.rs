//! The `loadtest` command: parses options, runs the command until it ends or a signal arrives, and writes the report.
//!
//! Exit codes: 0 if all was measured, 1 if a part is missing, 2 if nothing could be measured.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use loadtest::advice::advise;
use loadtest::agree::{self, Checked, Row, formulas_table};
use loadtest::cli::{
    AgreeOptions, Cli, Command, Comparison, HeartbeatOptions, MiddleboxOptions, NetworksOptions, Promised,
    ReadmeOptions, Rounds, ScaleOptions, SimulateOptions, SweepOptions,
};
use loadtest::compare::{Outcome, compare};
use loadtest::data::SimulatedDay;
use loadtest::figures::table as standings_table;
use loadtest::files::{write_day, write_networks, write_report, write_sweep};
use loadtest::generator;
use loadtest::loads::Load;
use loadtest::machine::load_average;
use loadtest::matrix::{matrix, table as networks_table};
use loadtest::model::candidate::Setting;
use loadtest::model::radio::Radios;
use loadtest::network::{Middlebox, Passed};
use loadtest::report::day::day;
use loadtest::report::verdict::{verdict, verdict_of_day, verdict_of_networks};
use loadtest::rounds::rounds;
use loadtest::run::RunError;
use loadtest::scale::scale;
use loadtest::servers::ServerError;
use loadtest::simulate::{self, Fuzz, HEARTBEATS_LEGEND, HeartbeatDay, SimulationError};
use loadtest::sweep::sweep;
use loadtest::table::{LEGEND, table};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// Exit code if nothing could be measured.
const UNUSABLE: u8 = 2;

/// Niceness for setpriority(2): -20 is the highest priority, 0 the default.
const PRIORITY: i32 = -10;

fn main() -> ExitCode {
    let cli = Cli::parse();
    raise_priority();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, UNUSABLE),
    };
    raise_descriptor_limit();
    let code = match cli.command {
        Some(Command::Compare(wanted)) => runtime.block_on(run_compare(&wanted)),
        None => runtime.block_on(run_compare(&cli.compare)),
        Some(Command::Sweep(wanted)) => runtime.block_on(run_sweep(&wanted)),
        Some(Command::Recommend(wanted)) => run_recommend(&wanted),
        Some(Command::Simulate(wanted)) => run_simulate(&wanted),
        Some(Command::Heartbeat(wanted)) => run_heartbeat(&wanted),
        Some(Command::Scale(wanted)) => runtime.block_on(run_scale(&wanted)),
        Some(Command::Agree(wanted)) if wanted.formulas => run_formulas(&wanted),
        Some(Command::Agree(wanted)) => runtime.block_on(run_agree(&wanted)),
        Some(Command::Appends(wanted)) => runtime.block_on(run_rounds(&wanted.load(), &wanted.rounds)),
        Some(Command::Wake(wanted)) => runtime.block_on(run_rounds(&wanted.load(), &wanted.rounds)),
        Some(Command::Hold(wanted)) => runtime.block_on(run_rounds(&wanted.load(), &wanted.rounds)),
        Some(Command::FanOut(wanted)) => runtime.block_on(run_rounds(&wanted.load(), &wanted.rounds)),
        Some(Command::ShortPolls(wanted)) => runtime.block_on(run_rounds(&wanted.load(), &wanted.rounds)),
        Some(Command::Networks(wanted)) => runtime.block_on(run_networks(&wanted)),
        Some(Command::Readme(wanted)) => run_readme(&wanted),
        Some(Command::Middlebox(wanted)) => runtime.block_on(run_middlebox(&wanted)),
        Some(Command::Generate) => match runtime.block_on(generator::serve()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
    };
    // Drops the remaining tasks, and with them the child processes.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn run_compare(wanted: &Comparison) -> ExitCode {
    let (outcome, day) = match until_told(async |stop| compare_with_day(wanted, stop).await).await {
        Ok(Some(Ok(compared))) => compared,
        Ok(Some(Err(error))) => return fail(&error, UNUSABLE),
        Ok(None) => return ExitCode::FAILURE,
        Err(error) => return fail(&error, UNUSABLE),
    };
    let Outcome { report, failure } = outcome;
    if !report.runs.is_empty() {
        report.verdict.iter().for_each(|verdict| println!("{verdict}\n"));
        day.iter().for_each(|table| println!("{table}\n{}\n", simulate::LEGEND));
        println!("{}\n{LEGEND}", table(&report, wanted.conditions.all_columns));
        report.notes.iter().for_each(|note| println!("{note}"));
        if let Err(code) = print_paths(write_report(&report, &wanted.conditions.output)) {
            return code;
        }
    }
    ended(failure)
}

/// Compares, and simulates the day that belongs to it. Returns the table of the day, too.
async fn compare_with_day(
    wanted: &Comparison,
    stop: watch::Receiver<bool>,
) -> Result<(Outcome, Option<String>), ServerError> {
    let mut outcome = compare(wanted, stop.clone()).await?;
    let Some(options) = wanted.day().filter(|_| outcome.failure.is_none() && !*stop.borrow()) else {
        return Ok((outcome, None));
    };
    match tokio::task::spawn_blocking(move || simulated(&options)).await {
        Ok(Ok((figures, outcomes))) => {
            outcome.report.day = Some(figures);
            outcome.report.verdict = verdict(&outcome.report);
            Ok((outcome, Some(simulate::table(&outcomes))))
        }
        Ok(Err(error)) => Ok((without_day(outcome, &error), None)),
        Err(error) => Ok((without_day(outcome, &error), None)),
    }
}

fn without_day(mut outcome: Outcome, error: &dyn std::fmt::Display) -> Outcome {
    outcome.report.notes.push(format!("no day was simulated: {error}"));
    outcome
}

async fn run_sweep(wanted: &SweepOptions) -> ExitCode {
    let radio = match wanted.conditions.radios().named(wanted.radio.as_deref()) {
        Ok(radio) => radio,
        Err(error) => return fail(&error, UNUSABLE),
    };
    let outcome = match until_told(async |stop| sweep(wanted, &radio, stop).await).await {
        Ok(Some(Ok(outcome))) => outcome,
        Ok(Some(Err(error))) => return fail(&error, UNUSABLE),
        Ok(None) => return ExitCode::FAILURE,
        Err(error) => return fail(&error, UNUSABLE),
    };
    let reports = &outcome.swept.reports;
    if reports.iter().any(|report| !report.runs.is_empty()) {
        for report in reports {
            println!(
                "{} messages a second to each stream\n{}",
                report.workload.rate,
                table(report, wanted.conditions.all_columns)
            );
            report.notes.iter().for_each(|note| println!("{note}"));
        }
        println!("{LEGEND}");
        print!("{}", outcome.swept.sweep);
        if let Err(code) = print_paths(write_sweep(&outcome.swept, &wanted.conditions.output)) {
            return code;
        }
    }
    ended(outcome.failure)
}

fn run_fuzz(fuzz: Fuzz, trace: Option<&Path>) -> ExitCode {
    let began = Instant::now();
    let verdict = match fuzz.run() {
        Ok(verdict) => verdict,
        Err(error) => return fail(&error, UNUSABLE),
    };
    if let Some(path) = trace
        && let Err(error) = std::fs::write(path, &verdict.trace)
    {
        return fail(&format!("{}: {error}", path.display()), UNUSABLE);
    }
    if verdict.wrong.is_empty() {
        let (took, digest) = (began.elapsed().as_secs_f64(), verdict.digest);
        println!(
            "{} seeds from {} in {took:.1} s: nothing is wrong, trace {digest:016x}",
            fuzz.count, fuzz.first
        );
        return ExitCode::SUCCESS;
    }
    println!("seed {}:", verdict.seed);
    verdict.wrong.iter().for_each(|wrong| println!("  {wrong}"));
    println!("Repeat it with: loadtest simulate --fuzz --seed {} --trace", verdict.seed);
    ExitCode::FAILURE
}

/// Simulates a day with each strategy.
fn simulated(
    wanted: &SimulateOptions,
) -> Result<(SimulatedDay, Vec<(String, simulate::Outcome)>), SimulationError> {
    let mut outcomes = Vec::new();
    for simulation in wanted.simulations() {
        let (strategy, began) = (simulation.reader.to_string(), Instant::now());
        let outcome = simulation.run()?;
        let (took, digest) = (began.elapsed().as_secs_f64(), outcome.digest);
        eprintln!(
            "{strategy}: {} hours of {} phones in {took:.2} s, trace {digest:016x}",
            wanted.hours, wanted.phones
        );
        outcomes.push((strategy, outcome));
    }
    Ok((day(wanted, &outcomes), outcomes))
}

fn run_simulate(wanted: &SimulateOptions) -> ExitCode {
    if let Some(fuzz) = wanted.fuzz() {
        return run_fuzz(fuzz, wanted.trace.as_deref());
    }
    let (figures, outcomes) = match simulated(wanted) {
        Ok(simulated) => simulated,
        Err(error) => return fail(&error, UNUSABLE),
    };
    verdict_of_day(&figures).iter().for_each(|verdict| println!("{verdict}\n"));
    println!("{}\n{}", simulate::table(&outcomes), simulate::LEGEND);
    if let Some(path) = &wanted.trace {
        let trace: String = outcomes.iter().map(|(_, outcome)| outcome.trace.as_str()).collect();
        if let Err(error) = std::fs::write(path, trace) {
            return fail(&format!("{}: {error}", path.display()), UNUSABLE);
        }
    }
    if let Err(code) = print_paths(write_day(&figures, &wanted.output)) {
        return code;
    }
    if figures.rows.iter().all(|row| row.lost + row.doubled == 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_heartbeat(wanted: &HeartbeatOptions) -> ExitCode {
    if let Some(error) = wanted.radio.iter().find_map(|radio| Radios::default().radio(Some(radio)).err()) {
        return fail(&error, UNUSABLE);
    }
    let heartbeats = wanted.heartbeats();
    let told = |nat, reader| eprintln!("{reader} behind a NAT of {}", Setting(nat));
    let days = match heartbeats.run(told) {
        Ok(days) => days,
        Err(error) => return fail(&error, UNUSABLE),
    };
    println!("{}\n", heartbeats.verdict(&days));
    println!("{}\n{HEARTBEATS_LEGEND}", heartbeats.table(&days));
    if days.iter().all(HeartbeatDay::is_whole) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run_scale(wanted: &ScaleOptions) -> ExitCode {
    match until_told(async |stop| scale(wanted, stop).await).await {
        Ok(Some(Ok(text))) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Some(Err(error))) => fail(&error, UNUSABLE),
        Ok(None) => ExitCode::FAILURE,
        Err(error) => fail(&error, UNUSABLE),
    }
}

fn run_formulas(wanted: &AgreeOptions) -> ExitCode {
    let checked = match wanted.grid().run() {
        Ok(checked) => checked,
        Err(error) => return fail(&error, UNUSABLE),
    };
    if let Err(code) = print_figures(&checked, wanted.json, || formulas_table(&checked)) {
        return code;
    }
    if checked.iter().all(Checked::agrees) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run_agree(wanted: &AgreeOptions) -> ExitCode {
    let agreement = wanted.agreement();
    let agreed = match until_told(async |stop| agreement.run(stop).await).await {
        Ok(Some(Ok(agreed))) => agreed,
        Ok(Some(Err(error))) => return fail(&error, UNUSABLE),
        Ok(None) => return ExitCode::FAILURE,
        Err(error) => return fail(&error, UNUSABLE),
    };
    agreed.left_out.iter().for_each(|why| eprintln!("{why}"));
    let table = || format!("{}\n{}", agree::table(&agreed.rows), agree::LEGEND);
    if let Err(code) = print_figures(&agreed.rows, wanted.json, table) {
        return code;
    }
    if agreed.rows.iter().all(Row::agrees) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints figures as JSON, or the table of them.
fn print_figures(
    figures: &impl serde::Serialize,
    as_json: bool,
    table: impl FnOnce() -> String,
) -> Result<(), ExitCode> {
    if !as_json {
        println!("{}", table());
        return Ok(());
    }
    let json = serde_json::to_string_pretty(figures).map_err(|error| fail(&error, UNUSABLE))?;
    println!("{json}");
    Ok(())
}

fn run_recommend(wanted: &Promised) -> ExitCode {
    match advise(wanted) {
        Ok(advice) => {
            if let Some(note) = advice.note {
                eprintln!("{note}");
            }
            if wanted.json {
                match serde_json::to_string_pretty(&advice.recommendation) {
                    Ok(json) => println!("{json}"),
                    Err(error) => return fail(&error, UNUSABLE),
                }
            } else {
                print!("{}", advice.recommendation);
            }
            if advice.recommendation.kept.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => fail(&error, UNUSABLE),
    }
}

async fn run_rounds<L: Load>(load: &L, wanted: &Rounds) -> ExitCode {
    let before = load_average();
    let outcome = match until_told(async |stop| rounds(load, wanted, stop).await).await {
        Ok(Some(Ok(outcome))) => outcome,
        Ok(Some(Err(error))) => return fail(&error, if error.is_unusable() { UNUSABLE } else { 1 }),
        Ok(None) => return ExitCode::FAILURE,
        Err(error) => return fail(&error, UNUSABLE),
    };
    let complete = outcome.standings.iter().map(|standing| standing.rounds.len()).min().unwrap_or(0);
    println!("{}", standings_table(L::COUNTS, &outcome.standings));
    outcome.standings.iter().filter_map(|standing| standing.distortion()).for_each(|note| println!("{note}"));
    println!(
        "median (least to greatest) of {complete} rounds; messages in {}; load average {before:.2} before",
        outcome.storage
    );
    ExitCode::SUCCESS
}

async fn run_networks(wanted: &NetworksOptions) -> ExitCode {
    let asked = match wanted.matrix() {
        Ok(asked) => asked,
        Err(error) => return fail(&error, UNUSABLE),
    };
    let rows = match until_told(async |stop| matrix(&asked, stop).await).await {
        Ok(Some(Ok(rows))) => rows,
        Ok(Some(Err(error))) => return fail(&error, UNUSABLE),
        Ok(None) => return ExitCode::FAILURE,
        Err(error) => return fail(&error, UNUSABLE),
    };
    verdict_of_networks(&rows).iter().for_each(|verdict| println!("{verdict}\n"));
    println!("{}", networks_table(&rows));
    println!(
        "all times are those of a real path times {}; {:.0} s of bursts and pauses",
        rows.scale, rows.seconds
    );
    match print_paths(write_networks(&rows, &wanted.output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

fn run_readme(wanted: &ReadmeOptions) -> ExitCode {
    match wanted.readme().make(|made| println!("made {made}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// Prints the listening address on one line, and after a signal the counts of connections, requests and faults on another.
async fn run_middlebox(wanted: &MiddleboxOptions) -> ExitCode {
    let middlebox = match Middlebox::start(&wanted.network, wanted.listen, wanted.upstream) {
        Ok(middlebox) => middlebox,
        Err(error) => return fail(&error, UNUSABLE),
    };
    println!("listening {}", middlebox.address());
    let told = until_told(async |mut stop| generator::stopped(&mut stop).await).await;
    let Passed { connections, requests, faults } = middlebox.passed();
    println!("connections {connections}, requests {requests}, faults {faults}");
    told.map_or_else(|error| fail(&error, UNUSABLE), |_| ExitCode::SUCCESS)
}

/// Runs `work` to its end; the first signal sets `stop` to true. Returns `None` after a second signal, which drops the work and
/// its child processes.
async fn until_told<T>(work: impl AsyncFnOnce(watch::Receiver<bool>) -> T) -> io::Result<Option<T>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, stopped) = watch::channel(false);
    let work = work(stopped);
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return Ok(Some(done)),
        () = any(&mut interrupt, &mut terminate) => {}
    }
    eprintln!("stopping; a second signal ends at once");
    stop.send_replace(true);
    tokio::select! {
        done = &mut work => Ok(Some(done)),
        () = any(&mut interrupt, &mut terminate) => Ok(None),
    }
}

async fn any(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}

fn print_paths(written: io::Result<[PathBuf; 2]>) -> Result<(), ExitCode> {
    let [json, html] = written.map_err(|error| fail(&format!("the report: {error}"), UNUSABLE))?;
    println!("wrote {} and {}", json.display(), html.display());
    Ok(())
}

fn ended(failure: Option<RunError>) -> ExitCode {
    match failure {
        None => ExitCode::SUCCESS,
        Some(error) => {
            let code = if error.is_of_the_server() { UNUSABLE } else { 1 };
            fail(&error, code)
        }
    }
}

/// Raises the priority of this process and, by inheritance, of all threads and processes that it starts. The generator and the
/// servers compete with each other as before, and other programs disturb them less.
fn raise_priority() {
    // Without this right, the lateness of the sends shows whether the machine was quiet enough.
    let _refused = setpriority_process(None, PRIORITY);
}

/// Raises the descriptor limit of this process and its children to the maximum that the system allows.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If it fails, a large run reports its own error.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("loadtest: {error}");
    ExitCode::from(code)
}
