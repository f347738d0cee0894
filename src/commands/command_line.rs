//! The command line with all its commands, and what is made of its definition: completions of shells and manual pages.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use pollgate::config::{EngineCommand, ServeArgs, StoreCommand, TokenCommand, UserCommand};
use pollgate::limits::{Limit, Limits};

use super::options::{
    BenchCommand, ListCommand, PublishCommand, RemoveCommand, StatCommand, SubscribeCommand,
};

/// Delivers streams of messages to clients that may have nothing but plain HTTP.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_long_help = limits_help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway (the default command)
    #[command(after_long_help = limits_help())]
    Serve(Box<ServeArgs>),
    #[command(flatten)]
    Tool(Box<Tool>),
}

/// A command that is no gateway.
#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Publish a message to a stream, or each line of standard input
    Pub(PublishCommand),
    /// Read streams and print a message a line, over whatever the network lets through
    Sub(SubscribeCommand),
    /// Print the last ten messages of streams and those that follow, as `tail -f` does with a file
    Follow(SubscribeCommand),
    /// List streams
    Ls(ListCommand),
    /// Describe streams: content type, size, offsets and retention
    Stat(StatCommand),
    /// Delete streams with their messages
    Rm(RemoveCommand),
    /// Find out in a minute what the network between here and a gateway lets through
    Bench(BenchCommand),
    /// Check, export or import a store on disk that no gateway has open
    #[command(subcommand)]
    Store(StoreCommand),
    /// Check an engine (Redis or Valkey) that several gateways share, or print what it stores
    #[command(subcommand)]
    Engine(EngineCommand),
    /// List all limits with their defaults, units and meanings
    Limits,
    /// Make a key that signs tokens, and with which `--auth` checks them
    Keygen {
        /// File to create; only its owner can read it
        file: PathBuf,
    },
    /// Make a token, which a client sends as `Authorization: Bearer TOKEN`
    Token(TokenCommand),
    /// Read the password of a user from standard input, and print what to add to the TOML file of `--auth`
    User(UserCommand),
    /// Print a script that completes commands and options in a shell
    Completions {
        /// Shell
        shell: Shell,
    },
    /// Write the manual pages of all commands
    Man {
        /// Directory for the pages, created if it does not exist
        directory: PathBuf,
    },
}

/// The part of `--help` about limits.
fn limits_help() -> String {
    let mut help = "Limits with their defaults (--limit NAME=VALUE, POLLGATE_LIMITS__NAME=VALUE, or a key of the table [limits] of the \
                    file); `pollgate limits` says what each is for:"
        .to_owned();
    for Limit { name, default, unit, .. } in Limits::list() {
        let default = default.as_deref().unwrap_or("(depends on the store)");
        help.push_str(&format!("\n  {name}={default} ({unit})"));
    }
    help
}

/// Prints the script that completes commands and options.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    clap_complete::generate(shell, &mut Cli::command(), "pollgate", &mut io::stdout());
    ExitCode::SUCCESS
}

/// Writes a page for each command.
pub(crate) fn man(directory: &Path) -> Result<ExitCode, Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)?;
    Ok(ExitCode::SUCCESS)
}
