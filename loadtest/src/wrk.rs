//! The program wrk as a generator: it repeats one request on all connections.

mod output;
mod script;

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::process::Command;

use crate::servers::{Scratch, ServerError};
use crate::wire::{Request, WireError};

pub use output::Counted;

/// Name of the program and of its Debian package.
const NAME: &str = "wrk";

/// How wrk sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrk {
    /// Connections, each with one request in flight.
    pub connections: u32,
    /// Threads that share the connections.
    pub threads: u32,
}

/// Why wrk produced no figures.
#[derive(Debug, thiserror::Error)]
pub enum WrkError {
    /// wrk is not installed.
    #[error("wrk is not installed: apt-get install wrk")]
    Missing,
    /// wrk cannot send to more than one stream.
    #[error("wrk sends the same request on all connections: remove --streams {0} or --generator wrk")]
    Streams(u32),
    /// wrk takes only whole seconds.
    #[error("wrk takes whole seconds only, not --seconds {0}")]
    Seconds(f64),
    /// The program cannot be run.
    #[error("wrk cannot be started: {0}")]
    Spawn(io::Error),
    /// wrk ended with an error.
    #[error("wrk: {0}")]
    Ended(String),
    /// A figure is missing in wrk's output or has an unknown format.
    #[error("the output of wrk has no {0}")]
    Unsaid(&'static str),
    /// Failed connections, or missing responses.
    #[error("wrk: socket errors: {0}")]
    Sockets(String),
    /// Responses that are refusals.
    #[error("wrk: answers beyond 2xx and 3xx: {0}")]
    Refused(u64),
    /// The request to repeat could not be built, or its response is wrong.
    #[error(transparent)]
    Request(#[from] WireError),
    /// The script for wrk cannot be written.
    #[error(transparent)]
    Files(#[from] ServerError),
}

impl Wrk {
    /// Checks that wrk is installed.
    pub fn installed() -> Result<(), WrkError> {
        // wrk ends with 1 after it prints its version.
        let asked = std::process::Command::new(NAME).arg("-v").stdin(Stdio::null()).output();
        asked.map(drop).map_err(not_started)
    }

    /// Repeats `request` for `lasting`, in whole seconds. wrk is killed if the future is dropped.
    pub async fn send(
        self,
        address: SocketAddr,
        request: &Request,
        lasting: Duration,
    ) -> Result<Counted, WrkError> {
        let scratch = Scratch::new(NAME)?;
        let Ok(body) = request.body().clone().collect().await;
        let script = scratch.write("request.lua", &script::of(request, &body.to_bytes()))?;
        let numbers = [
            ("--connections", u64::from(self.connections)),
            ("--threads", u64::from(self.threads)),
            ("--duration", lasting.as_secs()),
        ];
        let ended = Command::new(NAME)
            .args(numbers.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]))
            .args(["--latency", "--script", &script])
            .arg(format!("http://{address}{}", request.uri()))
            .stdin(Stdio::null())
            // Ctrl-C must reach wrk only through this program: wrk would take it for the end of its run.
            .process_group(0)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(not_started)?;
        if !ended.status.success() {
            let words = String::from_utf8_lossy(&ended.stderr);
            let words = words.lines().next().map_or_else(|| ended.status.to_string(), str::to_owned);
            return Err(WrkError::Ended(words));
        }
        Counted::parse(&String::from_utf8_lossy(&ended.stdout))
    }
}

fn not_started(error: io::Error) -> WrkError {
    if error.kind() == io::ErrorKind::NotFound { WrkError::Missing } else { WrkError::Spawn(error) }
}
