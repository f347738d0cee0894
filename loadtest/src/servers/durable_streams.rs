//! The upstream server of the same protocol: the crate `durable-streams`, whose program is named on the command line. Compared
//! with a gateway that keeps messages in memory it runs with `--durability memory`, which still has a data folder; compared
//! with one that syncs it runs with `--durability wal`, which also syncs before it answers an append.

use std::path::Path;

use super::process::Process;
use super::scratch::{Scratch, free_address};
use super::{Running, ServerError, Storage};
use crate::dialects::Dialect;
use crate::strategies::Strategy;
use crate::target::Target;

/// Name in the report.
pub(super) const NAME: &str = "durable-streams";

/// Starts it with the strategy's hold, which its clients cannot choose.
pub(super) async fn start(
    program: &Path,
    strategy: Strategy,
    storage: &Storage,
) -> Result<Running, ServerError> {
    let address = free_address()?;
    let (scratch, durability) = if let Storage::Disk(folder) = storage {
        (Scratch::within(folder, NAME)?, "wal")
    } else {
        (Scratch::new(NAME)?, "memory")
    };
    let (port, data) = (address.port().to_string(), scratch.path().display().to_string());
    let mut arguments = vec!["--port", &port, "--data-dir", &data, "--durability", durability];
    let hold =
        if let Strategy::LongPoll(hold) = strategy { hold.as_millis().to_string() } else { String::new() };
    if !hold.is_empty() {
        arguments.extend(["--long-poll-timeout-ms", &hold]);
    }
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let mut process = Process::start(program, &arguments)?;
    process.listens(address).await?;
    let target = Target::of(address, Dialect::DurableStreams);
    Ok(Running { _scratch: Some(scratch), ..Running::of(target, Some(process)) })
}
