//! Runs external commands with a time limit.

use std::process::Command;

/// Longer than any of the commands takes on a busy machine, in seconds. `timeout` ends one that hangs.
const SECONDS_MAX: &str = "30";

/// Runs a command that must succeed, and returns its output.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|why| panic!("{why}"))
}

/// Runs a command, and returns its output or why it failed.
pub fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let command = [&[program], arguments].concat();
    let output = Command::new("timeout").args(["--kill-after=1", SECONDS_MAX]).args(&command).output();
    let output = output.map_err(|error| format!("timeout (of coreutils): {error}"))?;
    let [wrote, complained] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if output.status.success() {
        Ok(wrote)
    } else {
        Err(format!("{command:?}: {}: {complained}", output.status))
    }
}
