//! The `pollgate` command: reads the settings, starts the log and runs the subcommand.

mod allocator;
mod commands;

use std::env::VarError;
use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use commands::{Cli, Command, Tool};
use pollgate::config::LogFormat;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let Cli { command, serve } = Cli::parse();
    let command = command.unwrap_or_else(|| Command::Serve(Box::new(serve)));
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pollgate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        // The settings say how to log, and are checked before anything starts.
        Command::Serve(args) => {
            let settings = args.settings()?;
            start_log(settings.log)?;
            on_runtime(commands::serve(settings))
        }
        Command::Tool(tool) => {
            if matches!(*tool, Tool::Store(_) | Tool::Engine(_)) {
                start_log(LogFormat::Text)?;
            }
            on_runtime(commands::run(*tool))
        }
    }
}

fn on_runtime(
    command: impl Future<Output = Result<ExitCode, Box<dyn Error>>>,
) -> Result<ExitCode, Box<dyn Error>> {
    if let Err(error) = allocator::return_freed_memory() {
        tracing::warn!(%error, "freed memory may stay with the process: the allocator does not take its settings");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_timeout(Duration::ZERO);
    outcome
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
