//! `pollgate completions` and `pollgate man`: what is made of the definition of the command line.

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use pollgate::config::Cli;

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
