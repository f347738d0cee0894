//! The servers that are compared: how each is started, and what it can do.

mod durable_streams;
mod gateway;
mod mosquitto;
mod nchan;
mod process;
mod scratch;
mod storage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::strategies::Strategy;
use crate::target::{Target, TargetError};

pub use process::Process;
pub(crate) use scratch::Scratch;
pub use storage::Storage;

/// A server by what it takes to have one.
#[derive(Debug, Clone)]
pub enum Server {
    /// The gateway's program, and the address that it gets if any port will not do.
    Gateway(PathBuf, Option<SocketAddr>),
    /// A gateway that runs already.
    Target(Target),
    /// nginx with nchan.
    Nchan,
    /// The MQTT broker.
    Mosquitto,
    /// The upstream server's program.
    DurableStreams(PathBuf),
}

/// A server that is there; what this command has started ends when it is dropped.
pub struct Running {
    /// How to reach it.
    pub target: Target,
    /// Where its operators ask, if it says so.
    pub admin: Option<SocketAddr>,
    /// Its process, if this command has started it.
    pub process: Option<Process>,
    /// Its files.
    _scratch: Option<Scratch>,
}

/// Why a server is not there, in one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The program cannot be run.
    #[error("{0} cannot be started: {1}")]
    Spawn(String, std::io::Error),
    /// The program ended instead of listening.
    #[error("{0} does not start: {1}")]
    Ended(String, String),
    /// The program says nothing, or nothing that it should.
    #[error("{0} does not start: it never said that it listens")]
    Mute(String),
    /// The program is not there.
    #[error("{0} is not installed: {1}")]
    Missing(String, String),
    /// Nobody built it.
    #[error("the gateway cannot be built: {0}")]
    Build(String),
    /// The program's files cannot be written.
    #[error("{0}: {1}")]
    Files(String, std::io::Error),
    /// A form that this server does not have.
    #[error("{0} has no {1}: {2}")]
    Unsupported(String, Strategy, &'static str),
    /// A server that cannot do what its rivals are to do.
    #[error("{0} keeps messages in memory alone: leave it or --store out")]
    MemoryAlone(String),
    /// A folder where syncing costs nothing.
    #[error("--store {0}: {1} is no disk, so syncing costs nothing there")]
    NoDisk(String, String),
    /// Of `--target`.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl FromStr for Server {
    type Err = String;

    /// A rival by name.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == nchan::NAME => Ok(Self::Nchan),
            None if text == mosquitto::NAME => Ok(Self::Mosquitto),
            Some((name, program)) if name == durable_streams::NAME => {
                Ok(Self::DurableStreams(program.into()))
            }
            _ => Err("want nchan, mosquitto or durable-streams=PROGRAM".to_owned()),
        }
    }
}

impl Server {
    /// The gateway: one that runs already, or else its program, which is built if nobody names one.
    pub fn own(
        target: Option<&str>,
        program: Option<&Path>,
        listen: Option<SocketAddr>,
    ) -> Result<Self, ServerError> {
        let server = match (target, program) {
            (Some(url), _) => Self::Target(Target::parse(url)?),
            (None, Some(program)) => Self::Gateway(program.to_owned(), listen),
            (None, None) => Self::Gateway(gateway::program()?, listen),
        };
        server.installed()?;
        Ok(server)
    }

    /// As in the report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gateway(..) | Self::Target(_) => gateway::NAME,
            Self::Nchan => nchan::NAME,
            Self::Mosquitto => mosquitto::NAME,
            Self::DurableStreams(_) => durable_streams::NAME,
        }
    }

    /// What to call it in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(..) | Self::Target(_) => "gateway",
            rival => rival.name(),
        }
    }

    /// Whether it is installed; an error names the package.
    pub fn installed(&self) -> Result<(), ServerError> {
        match self {
            Self::Nchan => nchan::installed(),
            Self::Mosquitto => mosquitto::installed(),
            Self::Gateway(program, _) | Self::DurableStreams(program) => {
                let missing =
                    || ServerError::Missing(self.name().into(), format!("no {}", program.display()));
                program.is_file().then_some(()).ok_or_else(missing)
            }
            Self::Target(_) => Ok(()),
        }
    }

    /// Whether it delivers in this form at all; an error says why not.
    pub fn supports(&self, strategy: Strategy) -> Result<(), ServerError> {
        use Strategy::{LongPoll, Mqtt, ShortPoll, Sse, WebSocket};
        let without = |why| Err(ServerError::Unsupported(self.name().into(), strategy, why));
        match (self, strategy) {
            (Self::Target(_), Mqtt(_)) => without("--target names its HTTP address alone"),
            (Self::Gateway(..) | Self::Target(_), _) => Ok(()),
            (Self::Nchan, ShortPoll(_) | LongPoll(_) | Sse(None) | WebSocket(None)) => Ok(()),
            (Self::Mosquitto, Mqtt(_)) => Ok(()),
            (Self::DurableStreams(_), ShortPoll(_) | LongPoll(_) | Sse(None)) => Ok(()),
            _ => without("not one of its forms"),
        }
    }

    /// Whether it can keep messages there; an error says that it cannot.
    pub fn keeps_in(&self, storage: &Storage) -> Result<(), ServerError> {
        let is_able = matches!(self, Self::Gateway(..) | Self::DurableStreams(_));
        let is_asked = matches!(storage, Storage::Disk(_));
        (is_able || !is_asked).then_some(()).ok_or_else(|| ServerError::MemoryAlone(self.name().into()))
    }

    /// Its program's version.
    pub fn version(&self) -> Option<String> {
        match self {
            Self::Gateway(program, _) => process::first_line(program, &["--version"]),
            Self::Nchan => nchan::version(),
            Self::Mosquitto => mosquitto::version(),
            // Neither says its version.
            Self::Target(_) | Self::DurableStreams(_) => None,
        }
    }

    /// Has it ready for a run of `strategy`, with nothing in `storage` yet.
    pub async fn start(&self, strategy: Strategy, storage: &Storage) -> Result<Running, ServerError> {
        match self {
            Self::Gateway(program, listen) => gateway::start(program, *listen, strategy, storage).await,
            Self::Target(target) => {
                Ok(Running { target: target.clone(), admin: None, process: None, _scratch: None })
            }
            Self::Nchan => nchan::start(strategy).await,
            Self::Mosquitto => mosquitto::start().await,
            Self::DurableStreams(program) => durable_streams::start(program, strategy, storage).await,
        }
    }
}

/// The gateway, by its program or the one that is built if nobody names one, with settings of its own.
pub async fn gateway_with(program: Option<&Path>, settings: &[String]) -> Result<Running, ServerError> {
    let program = program.map_or_else(gateway::program, |program| Ok(program.to_owned()))?;
    gateway::start_with(&program, settings).await
}

/// The gateway's program beside `own`, built anew if its sources are newer.
pub fn gateway_program(own: &Path) -> Result<PathBuf, ServerError> {
    gateway::program_beside(own)
}

impl Running {
    /// Ends it and waits until it is gone, so that neither its end is part of what is measured next nor its files are left.
    pub async fn end(self) {
        if let Some(process) = self.process {
            process.end().await;
        }
    }
}
