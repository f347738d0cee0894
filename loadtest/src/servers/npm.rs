//! Servers of Node.js: packages from npm, which `rivals/package-lock.json` pins, and the script that starts each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::process::Process;
use super::scratch::free_address;
use super::{Running, ServerError};
use crate::dialects::Dialect;
use crate::strategies::Strategy;
use crate::target::Target;

/// A server from npm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NpmServer {
    /// Socket.IO, on its transports WebSocket and long poll, which are those of Engine.IO.
    SocketIo,
    /// The reference server of the Durable Streams protocol.
    DurableStreams,
}

/// Folder of the scripts and of the installed packages.
pub(super) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rivals");

/// Found in `PATH`.
pub(super) const NODE: &str = "node";

/// How long a long poll waits where the strategy does not say it: Socket.IO's default.
const HOLD: Duration = Duration::from_secs(25);

/// What is read of a `package.json`.
#[derive(Deserialize)]
struct Manifest {
    version: String,
}

impl NpmServer {
    /// Name on the command line and in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SocketIo => "socket.io",
            Self::DurableStreams => "durable-streams-node",
        }
    }

    fn package(self) -> PathBuf {
        let name = match self {
            Self::SocketIo => "socket.io",
            Self::DurableStreams => "@durable-streams/server",
        };
        Path::new(FOLDER).join("node_modules").join(name)
    }

    fn script(self) -> PathBuf {
        Path::new(FOLDER).join(match self {
            Self::SocketIo => "socket-io.js",
            Self::DurableStreams => "durable-streams.js",
        })
    }

    /// Checks that the package is installed.
    pub(super) fn installed(self) -> Result<(), ServerError> {
        let missing =
            || ServerError::Missing(self.name().into(), format!("npm ci --ignore-scripts --prefix {FOLDER}"));
        self.package().is_dir().then_some(()).ok_or_else(missing)
    }

    /// Returns the version of the installed package.
    pub(super) fn version(self) -> Option<String> {
        let manifest = std::fs::read(self.package().join("package.json")).ok()?;
        serde_json::from_slice::<Manifest>(&manifest).ok().map(|manifest| manifest.version)
    }

    pub(super) fn supports(self, strategy: Strategy) -> bool {
        match self {
            Self::SocketIo => matches!(strategy, Strategy::LongPoll(_) | Strategy::WebSocket(None)),
            Self::DurableStreams => {
                matches!(strategy, Strategy::ShortPoll(_) | Strategy::LongPoll(_) | Strategy::Sse(None))
            }
        }
    }

    /// Starts it with the strategy's hold, which its clients cannot choose.
    pub(super) async fn start(self, strategy: Strategy) -> Result<Running, ServerError> {
        self.installed()?;
        let address = free_address()?;
        let hold = if let Strategy::LongPoll(hold) = strategy { hold } else { HOLD };
        let script = self.script().display().to_string();
        let arguments = [script, address.port().to_string(), hold.as_millis().to_string()];
        let mut process = Process::start(Path::new(NODE), &arguments)?;
        process.listens(address).await?;
        let dialect = match self {
            Self::SocketIo => Dialect::SocketIo,
            Self::DurableStreams => Dialect::DurableStreams,
        };
        Ok(Running::of(Target::of(address, dialect), Some(process)))
    }
}
