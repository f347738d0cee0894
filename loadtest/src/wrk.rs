//! The program wrk as a generator: one request, the same on all connections and all the time.

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

/// Its program, and the Debian package that brings it.
const NAME: &str = "wrk";

/// How it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrk {
    /// Connections, each with one request under way.
    pub connections: u32,
    /// Threads, which share the connections.
    pub threads: u32,
}

/// Why there are no figures of it.
#[derive(Debug, thiserror::Error)]
pub enum WrkError {
    /// The program is not there.
    #[error("wrk is not installed: apt-get install wrk")]
    Missing,
    /// It cannot send to more than one stream.
    #[error("wrk sends the same request on all connections: leave --streams {0} or --generator wrk out")]
    Streams(u32),
    /// It has no times but these.
    #[error("wrk counts whole seconds: --seconds {0} is none")]
    Seconds(f64),
    /// The program cannot be run.
    #[error("wrk cannot be started: {0}")]
    Spawn(io::Error),
    /// It ended with an error.
    #[error("wrk: {0}")]
    Ended(String),
    /// It has not said something, or not in a form that is known.
    #[error("wrk has not said its {0}")]
    Unsaid(&'static str),
    /// Connections that did not come to be or broke, and answers that did not come.
    #[error("wrk: socket errors: {0}")]
    Sockets(String),
    /// Refusals.
    #[error("wrk: answers beyond 2xx and 3xx: {0}")]
    Refused(u64),
    /// What it is to send could not be made out, or is not what was meant.
    #[error(transparent)]
    Request(#[from] WireError),
    /// Its script cannot be written.
    #[error(transparent)]
    Files(#[from] ServerError),
}

impl Wrk {
    /// Whether it is there.
    pub fn installed() -> Result<(), WrkError> {
        // It ends with 1 when it is asked for its version.
        let asked = std::process::Command::new(NAME).arg("-v").stdin(Stdio::null()).output();
        asked.map(drop).map_err(not_started)
    }

    /// Sends `request` for so many whole seconds. It ends when the future is dropped.
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
            // Ctrl-C reaches it through this command alone: it would take it for the end of its time.
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
