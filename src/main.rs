//! The `pollgate` command: reads the settings, starts the log and runs the subcommand.

mod allocator;
mod commands;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pollgate::config::{Cli, LogFormat, Task};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let task = match Cli::parse().task() {
        Ok(task) => task,
        Err(error) => return fail(&error),
    };
    start_log(match &task {
        Task::Serve(settings) => settings.log,
        Task::Store(_) | Task::Limits => LogFormat::Text,
    });
    if let Err(error) = allocator::return_freed_memory() {
        tracing::warn!(%error, "freed memory may stay with the process: the allocator does not take its settings");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome: Result<ExitCode, Box<dyn Error>> = runtime.block_on(async {
        match task {
            Task::Serve(settings) => commands::serve(*settings).await.map_err(Into::into),
            Task::Store(command) => commands::store(command).await,
            Task::Limits => Ok(commands::limits()),
        }
    });
    runtime.shutdown_timeout(Duration::ZERO);
    outcome.unwrap_or_else(|error| fail(&*error))
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("pollgate: {error}");
    ExitCode::FAILURE
}
