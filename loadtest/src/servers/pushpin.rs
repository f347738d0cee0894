//! Pushpin, a proxy that holds the requests of an origin: Debian's `pushpin`, and the origin `rivals/pushpin.js`, which keeps the
//! messages and publishes them by Pushpin's HTTP control API.

use std::path::Path;

use hyper::Request;
use tokio::time::{sleep, timeout};

use super::npm::{FOLDER, NODE};
use super::process::{ASK_AGAIN, Process, START_TIMEOUT, package_version};
use super::scratch::{Scratch, free_address};
use super::{Running, ServerError};
use crate::client::addressed;
use crate::dialects::Dialect;
use crate::strategies::Strategy;
use crate::target::Target;
use crate::wire::{Connection, WireError, accepted, open};

/// Name in the report, and of the package.
pub(super) const NAME: &str = "pushpin";

const PROGRAM: &str = "/usr/bin/pushpin";

const TEMPLATE: &str = include_str!("pushpin.conf");

/// Checks that it is installed.
pub(super) fn installed() -> Result<(), ServerError> {
    let missing = || ServerError::Missing(NAME.into(), "apt-get install pushpin nodejs".into());
    Path::new(PROGRAM).is_file().then_some(()).ok_or_else(missing)
}

/// Returns the version of its package.
pub(super) fn version() -> Option<String> {
    package_version(NAME)
}

pub(super) fn supports(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::LongPoll(_) | Strategy::Sse(None) | Strategy::WebSocket(None))
}

/// Starts the origin, which starts Pushpin. Messages are published to the origin.
pub(super) async fn start() -> Result<Running, ServerError> {
    installed()?;
    let (address, control, origin) = (free_address()?, free_address()?, free_address()?);
    let scratch = Scratch::new(NAME)?;
    let folder = scratch.path().display().to_string();
    let settings = TEMPLATE
        .replace("FOLDER", &folder)
        .replace("ADDRESS", &address.to_string())
        .replace("CONTROL", &control.port().to_string());
    let configuration = scratch.write("pushpin.conf", &settings)?;
    // WebSockets, too, reach the origin as requests.
    scratch.write("routes", &format!("* {origin},over_http\n"))?;
    let script = Path::new(FOLDER).join("pushpin.js").display().to_string();
    let arguments = [script, origin.port().to_string(), control.port().to_string(), configuration];
    let mut process = Process::start(Path::new(NODE), &arguments)?;
    process.listens(control).await?;
    process.listens(address).await?;
    let target = Target { publishing: Some(origin), ..Target::of(address, Dialect::Pushpin) };
    // It listens before its parts have found each other, and answers nothing until then.
    let serves = async {
        while !matches!(timeout(ASK_AGAIN * 20, ask(&target)).await, Ok(Ok(()))) {
            sleep(ASK_AGAIN).await;
        }
    };
    timeout(START_TIMEOUT, serves).await.map_err(|_| ServerError::Mute(NAME.into()))?;
    Ok(Running { _scratch: Some(scratch), ..Running::of(target, Some(process)) })
}

/// Requests something of the origin through Pushpin.
async fn ask(target: &Target) -> Result<(), WireError> {
    let mut connection = Connection::over(open(target.address).await?).await?;
    let request = addressed(Request::get("/ready").body(Default::default()), target)?;
    accepted(&connection.exchange(request).await?)
}
