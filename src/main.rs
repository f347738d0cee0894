//! The `pollgate` command: reads the settings, starts the log and runs the subcommand.

mod allocator;
mod commands;

use std::env::VarError;
use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pollgate::config::{Cli, LogFormat, Task};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let task = match Cli::parse().task() {
        Ok(task) => task,
        Err(error) => return fail(&error),
    };
    let format = match &task {
        Task::Serve(settings) => Some(settings.log),
        Task::Store(_) | Task::Engine(_) => Some(LogFormat::Text),
        Task::Client(_)
        | Task::Limits
        | Task::Keygen(_)
        | Task::Token(_)
        | Task::User(_)
        | Task::Completions(_)
        | Task::Man(_) => None,
    };
    if let Some(format) = format
        && let Err(error) = start_log(format)
    {
        return fail(&*error);
    }
    if let Err(error) = allocator::return_freed_memory() {
        tracing::warn!(%error, "freed memory may stay with the process: the allocator does not take its settings");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome: Result<ExitCode, Box<dyn Error>> = runtime.block_on(async {
        match task {
            Task::Serve(settings) => commands::serve(*settings).await,
            Task::Client(task) => commands::client(task).await,
            Task::Store(command) => commands::store(command).await,
            Task::Engine(command) => commands::engine(command).await,
            Task::Limits => Ok(commands::limits()),
            Task::Keygen(file) => Ok(commands::keygen(&file)?),
            Task::Token(command) => Ok(commands::token(command)?),
            Task::User(command) => Ok(commands::user(command)?),
            Task::Completions(shell) => Ok(commands::completions(shell)),
            Task::Man(directory) => Ok(commands::man(&directory)?),
        }
    });
    runtime.shutdown_timeout(Duration::ZERO);
    outcome.unwrap_or_else(|error| fail(&*error))
}

/// Logs to standard error, with colors only on a terminal and unless `NO_COLOR` is set (no-color.org).
fn start_log(format: LogFormat) -> Result<(), Box<dyn Error>> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(variable) => log_filter(Some(&variable))?,
        Err(VarError::NotPresent) => log_filter(None)?,
        Err(VarError::NotUnicode(_)) => return Err("the variable RUST_LOG is not UTF-8".into()),
    };
    let has_colors =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(has_colors);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Parses RUST_LOG; the default level is `info`. Refuses a single word that is not a level: tracing would take it for the name of a
/// module, and log nothing else.
fn log_filter(variable: Option<&str>) -> Result<EnvFilter, String> {
    let text = variable.unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(EnvFilter::new("info"));
    }
    let how = "use a level (error, warn, info, debug, trace or off), or module=level such as pollgate=debug,h2=info";
    let refuse = |part: &str, why: &str| format!("RUST_LOG={text:?}: {part:?} {why}; {how}");
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    for part in &parts {
        let is_word =
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_word && *part != "pollgate" && !is_level(part) {
            return Err(refuse(part, "is not a level"));
        }
    }
    EnvFilter::try_new(parts.join(",")).map_err(|error| refuse(text, &format!("is not valid ({error})")))
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("pollgate: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_is_a_level_or_levels_of_modules() {
        for (variable, filter) in [
            (None, "info"),
            (Some(""), "info"),
            (Some("debug"), "debug"),
            (Some("WARN"), "warn"),
            (Some("pollgate=debug"), "pollgate=debug"),
            (Some("info, h2=trace"), "h2=trace,info"),
            (Some("pollgate::http=trace"), "pollgate::http=trace"),
            (Some("pollgate"), "pollgate=trace"),
        ] {
            assert_eq!(log_filter(variable).unwrap().to_string(), filter, "{variable:?}");
        }
    }

    #[test]
    fn a_mistyped_log_filter_is_refused_with_what_to_do() {
        for variable in ["verbose", "inof", "pollgate=loud", "info,debg", "pollgate=debug,=", "[span"] {
            let refused = log_filter(Some(variable)).unwrap_err();
            assert!(refused.contains(variable) && refused.contains("pollgate=debug"), "{refused}");
        }
    }
}
