//! mosquitto, the MQTT broker: Debian's `mosquitto`, without its limits on messages in flight.

use std::path::Path;

use super::process::{Process, first_line};
use super::scratch::{Scratch, free_address};
use super::{Running, ServerError};
use crate::dialects::Dialect;
use crate::target::Target;

/// Name in the report.
pub(super) const NAME: &str = "mosquitto";

const PROGRAM: &str = "/usr/sbin/mosquitto";

/// Checks that it is installed.
pub(super) fn installed() -> Result<(), ServerError> {
    let missing = || ServerError::Missing(NAME.into(), "apt-get install mosquitto".into());
    Path::new(PROGRAM).is_file().then_some(()).ok_or_else(missing)
}

/// Returns its version.
pub(super) fn version() -> Option<String> {
    first_line(Path::new(PROGRAM), &["-h"])
}

/// Starts it without persistence.
pub(super) async fn start() -> Result<Running, ServerError> {
    installed()?;
    let address = free_address()?;
    let scratch = Scratch::new(NAME)?;
    let settings = format!(
        "listener {} {}\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type error\n\
         max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n",
        address.port(),
        address.ip()
    );
    let file = scratch.write("mosquitto.conf", &settings)?;
    let mut process = Process::start(Path::new(PROGRAM), &["-c".to_owned(), file])?;
    process.listens(address).await?;
    let target = Target { mqtt: Some(address), ..Target::of(address, Dialect::Mqtt) };
    Ok(Running { _scratch: Some(scratch), ..Running::of(target, Some(process)) })
}
