//! The servers that are compared: how each is started, and which strategies it supports.

mod certificate;
mod durable_streams;
mod ejabberd;
mod gateway;
mod mosquitto;
mod nats;
mod nchan;
mod npm;
mod process;
mod prosody;
mod pushpin;
mod python;
mod redis;
mod rival;
mod scratch;
mod storage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::providers::Providers;
use crate::strategies::Strategy;
use crate::target::{Target, TargetError};
use crate::wire::Transport;
use certificate::Certificate;

pub use nchan::Workers;
pub use npm::NpmServer;
pub use process::Process;
pub use redis::RedisServer;
pub use rival::Rival;
pub(crate) use scratch::Scratch;
pub use storage::Storage;

/// A server to start or to use.
#[derive(Debug, Clone)]
pub enum Server {
    /// The gateway's program, and the address to listen on; `None` for any free port.
    Gateway(PathBuf, Option<SocketAddr>),
    /// The program of another build of the gateway, as a rival.
    OtherBuild(PathBuf),
    /// A gateway that is already running.
    Target(Target),
    /// nginx with nchan.
    Nchan(Workers),
    /// The MQTT broker.
    Mosquitto,
    /// An XMPP server in Lua.
    Prosody,
    /// An XMPP server in Erlang.
    Ejabberd,
    /// A server from npm.
    Npm(NpmServer),
    /// A proxy that holds requests, in front of an origin.
    Pushpin,
    /// A server whose streams are read by a command that waits.
    Redis(RedisServer),
    /// A server of messages whose protocol is carried by WebSockets.
    Nats,
    /// The program of the upstream server.
    DurableStreams(PathBuf),
    /// The gateway's program, as one instance with messages in memory, wherever the others keep theirs.
    Memory(PathBuf),
    /// The engine of the gateways without a gateway in between. The gateway's program is started to learn how to call it.
    Engine(PathBuf),
}

/// A running server. If this program started it, a drop ends it.
pub struct Running {
    /// Its addresses and dialect.
    pub target: Target,
    /// Address of the admin listener, if the server reported it.
    pub admin: Option<SocketAddr>,
    /// Its process, if this program started it.
    pub process: Option<Process>,
    /// Further instances of the server that share its storage.
    pub others: Vec<Self>,
    /// Folder of its files.
    _scratch: Option<Scratch>,
    _certificate: Option<Certificate>,
    /// The fakes by which it wakes phones.
    _providers: Option<Providers>,
}

/// Why a server cannot be used, in one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The program cannot be run.
    #[error("{0} cannot be started: {1}")]
    Spawn(String, std::io::Error),
    /// The program ended before it listened.
    #[error("{0} does not start: {1}")]
    Ended(String, String),
    /// The program did not report or open its listening address in time.
    #[error("{0} does not start: no listening address in time")]
    Mute(String),
    /// The program is not installed.
    #[error("{0} is not installed: {1}")]
    Missing(String, String),
    /// The build of the gateway failed.
    #[error("the gateway cannot be built: {0}")]
    Build(String),
    /// The program's files cannot be written.
    #[error("{0}: {1}")]
    Files(String, std::io::Error),
    /// The server does not support the strategy.
    #[error("{0} has no {1}: {2}")]
    Unsupported(String, Strategy, &'static str),
    /// The server does not support the strategy over this transport.
    #[error("{0} has no {1} over {2}: {3}")]
    UnsupportedOver(String, Strategy, Transport, &'static str),
    /// The server cannot keep messages where it is asked to.
    #[error("{0} cannot keep messages in --store: remove one of them")]
    CannotKeep(String),
    /// Several instances of a server have nothing in common.
    #[error("--gateways needs --store with the URL of the Redis that they share")]
    NothingShared,
    /// There is no engine to call, or the load has nothing that an engine does.
    #[error("--rival engine needs --store with the URL of a Redis, and the command appends without wrk")]
    NoEngine,
    /// The rival is the gateway's program, which is not known.
    #[error("--rival memory and --rival engine start the gateway: remove --target")]
    NoProgram,
    /// The folder is in memory, where a sync costs nothing.
    #[error("--store {0}: {1} is no disk, so syncing costs nothing there")]
    NoDisk(String, String),
    /// From `--target`.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// The rivals that are named alone, as they are installed at a known place.
const INSTALLED: [Server; 11] = [
    Server::Nchan(Workers::One),
    Server::Nchan(Workers::PerProcessor),
    Server::Mosquitto,
    Server::Prosody,
    Server::Ejabberd,
    Server::Npm(NpmServer::SocketIo),
    Server::Npm(NpmServer::DurableStreams),
    Server::Pushpin,
    Server::Redis(RedisServer::Redis),
    Server::Redis(RedisServer::Valkey),
    Server::Nats,
];

/// What a rival may be, for an error.
const NAMES: &str = "want nchan, nchan-workers, mosquitto, prosody, ejabberd, socket.io, durable-streams-node, \
                     pushpin, redis-streams, valkey-streams, nats, durable-streams=PROGRAM or pollgate=PROGRAM";

impl FromStr for Server {
    type Err = String;

    /// Parses a rival.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = match text.split_once('=') {
            Some((name, program)) if name == durable_streams::NAME => {
                Some(Self::DurableStreams(program.into()))
            }
            Some((name, program)) if name == gateway::NAME => Some(Self::OtherBuild(program.into())),
            Some(_) => None,
            None => INSTALLED.into_iter().find(|server| server.name() == text),
        };
        found.ok_or_else(|| NAMES.to_owned())
    }
}

impl Server {
    /// Returns the gateway: a running one, or its program, which is built if the user names none.
    pub fn own(
        target: Option<Target>,
        program: Option<&Path>,
        listen: Option<SocketAddr>,
    ) -> Result<Self, ServerError> {
        let server = match (target, program) {
            (Some(target), _) => Self::Target(target),
            (None, Some(program)) => Self::Gateway(program.to_owned(), listen),
            (None, None) => Self::Gateway(gateway::program()?, listen),
        };
        server.installed()?;
        Ok(server)
    }

    /// Returns the name in the report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gateway(..) | Self::Target(_) => gateway::NAME,
            Self::OtherBuild(_) => "other build",
            Self::Nchan(workers) => workers.name(),
            Self::Mosquitto => mosquitto::NAME,
            Self::Prosody => prosody::NAME,
            Self::Ejabberd => ejabberd::NAME,
            Self::Npm(server) => server.name(),
            Self::Pushpin => pushpin::NAME,
            Self::Redis(server) => server.name(),
            Self::Nats => nats::NAME,
            Self::DurableStreams(_) => durable_streams::NAME,
            Self::Memory(_) => rival::MEMORY,
            Self::Engine(_) => rival::ENGINE,
        }
    }

    /// Returns the name in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(..) | Self::OtherBuild(_) | Self::Target(_) => "gateway",
            rival => rival.name(),
        }
    }

    /// Checks that the server is installed; the error names the package.
    pub fn installed(&self) -> Result<(), ServerError> {
        match self {
            Self::Nchan(_) => nchan::installed(),
            Self::Npm(server) => server.installed(),
            Self::Pushpin => pushpin::installed(),
            Self::Redis(server) => server.installed().map(drop),
            Self::Nats => nats::installed(),
            Self::Mosquitto => mosquitto::installed(),
            Self::Prosody => prosody::installed(),
            Self::Ejabberd => ejabberd::installed(),
            Self::Gateway(program, _)
            | Self::OtherBuild(program)
            | Self::DurableStreams(program)
            | Self::Memory(program)
            | Self::Engine(program) => {
                let missing =
                    || ServerError::Missing(self.name().into(), format!("no {}", program.display()));
                program.is_file().then_some(()).ok_or_else(missing)
            }
            Self::Target(_) => Ok(()),
        }
    }

    /// Checks that the server supports the strategy; the error says why not.
    pub fn supports(&self, strategy: Strategy) -> Result<(), ServerError> {
        use Strategy::{LongPoll, Mqtt, ShortPoll, Sse, Wake, WebSocket, XmppBosh, XmppWebSocket};
        let without = |why| Err(ServerError::Unsupported(self.name().into(), strategy, why));
        match (self, strategy) {
            (Self::Target(_), Mqtt(_)) => without("--target is an HTTP address only"),
            (Self::Target(_), XmppWebSocket | XmppBosh) => {
                without("a running gateway may have another --xmpp-domain")
            }
            (Self::Target(_), Wake(_)) => {
                without("a running gateway does not know this program's push services")
            }
            (
                Self::Gateway(..) | Self::OtherBuild(_) | Self::Target(_) | Self::Memory(_) | Self::Engine(_),
                _,
            ) => Ok(()),
            (Self::Nchan(_), ShortPoll(_) | LongPoll(_) | Sse(None) | WebSocket(None)) => Ok(()),
            (Self::Mosquitto, Mqtt(_)) => Ok(()),
            (Self::Prosody | Self::Ejabberd, XmppWebSocket | XmppBosh) => Ok(()),
            (Self::Npm(server), _) if server.supports(strategy) => Ok(()),
            (Self::Pushpin, _) if pushpin::supports(strategy) => Ok(()),
            (Self::Redis(_), LongPoll(_)) | (Self::Nats, WebSocket(None)) => Ok(()),
            (Self::DurableStreams(_), ShortPoll(_) | LongPoll(_) | Sse(None)) => Ok(()),
            _ => without("this server does not support it"),
        }
    }

    /// Checks that the server supports the strategy over this transport; the error says why not.
    pub fn supports_over(&self, strategy: Strategy, transport: Transport) -> Result<(), ServerError> {
        use Strategy::{Mqtt, WebSocket, XmppBosh, XmppWebSocket};
        self.supports(strategy)?;
        let without = |why| Err(ServerError::UnsupportedOver(self.name().into(), strategy, transport, why));
        match (self, strategy) {
            (Self::Target(target), _) if transport.has_tls() == target.certificate.is_empty() => without(
                "TLS needs an https:// --target, --target-certificate, and --transport http1+tls or http2+tls",
            ),
            _ if transport == Transport::Http1 => Ok(()),
            (_, Mqtt(_) | XmppWebSocket | XmppBosh) => without("it is no strategy over HTTP"),
            (Self::Gateway(..) | Self::OtherBuild(_) | Self::Target(_), _) => Ok(()),
            (Self::Nchan(_), WebSocket(_)) if transport.is_http2() => {
                without("nginx has no WebSockets over HTTP/2")
            }
            (Self::Nchan(_), _) => Ok(()),
            _ => without("this server is compared over HTTP/1.1 alone"),
        }
    }

    /// Checks that the server can keep messages in this storage.
    pub fn keeps_in(&self, storage: &Storage) -> Result<(), ServerError> {
        let is_able = match storage {
            Storage::Engine(..) => {
                matches!(
                    self,
                    Self::Gateway(..)
                        | Self::OtherBuild(_)
                        | Self::Nchan(_)
                        | Self::Memory(_)
                        | Self::Engine(_)
                )
            }
            Storage::Memory | Storage::Disk(_) if matches!(self, Self::Engine(_)) => {
                return Err(ServerError::NoEngine);
            }
            Storage::Memory => true,
            Storage::Disk(_) => matches!(
                self,
                Self::Gateway(..) | Self::OtherBuild(_) | Self::DurableStreams(_) | Self::Memory(_)
            ),
        };
        is_able.then_some(()).ok_or_else(|| ServerError::CannotKeep(self.name().into()))
    }

    /// Returns the version of its program, if it reports one.
    pub fn version(&self) -> Option<String> {
        match self {
            Self::Gateway(program, _)
            | Self::OtherBuild(program)
            | Self::Memory(program)
            | Self::Engine(program) => process::first_line(program, &["--version"]),
            Self::Nchan(_) => nchan::version(),
            Self::Npm(server) => server.version(),
            Self::Pushpin => pushpin::version(),
            Self::Redis(server) => server.version(),
            Self::Nats => nats::version(),
            Self::Mosquitto => mosquitto::version(),
            Self::Prosody | Self::Ejabberd => process::package_version(self.name()),
            // Neither reports a version.
            Self::Target(_) | Self::DurableStreams(_) => None,
        }
    }

    /// Starts the server for a run of `strategy` over HTTP/1.1, with an empty `storage`, and all its instances if they share one.
    pub async fn start(&self, strategy: Strategy, storage: &Storage) -> Result<Running, ServerError> {
        let over = Transport::Http1;
        let mut first = self.start_over(over, strategy, storage).await?;
        let instances = match self {
            Self::Memory(_) | Self::Engine(_) => 1,
            _ => storage.instances(),
        };
        for _ in 1..instances {
            first.others.push(self.start_over(over, strategy, storage).await?);
        }
        Ok(first)
    }

    /// Starts one instance of the server for a run of `strategy` over a transport that it supports.
    pub async fn start_over(
        &self,
        over: Transport,
        strategy: Strategy,
        storage: &Storage,
    ) -> Result<Running, ServerError> {
        match self {
            Self::Gateway(program, listen) => gateway::start(program, *listen, over, strategy, storage).await,
            Self::OtherBuild(program) | Self::Engine(program) => {
                gateway::start(program, None, over, strategy, storage).await
            }
            Self::Memory(program) => gateway::start(program, None, over, strategy, &Storage::Memory).await,
            Self::Target(target) => Ok(Running::of(Target { transport: over, ..target.clone() }, None)),
            Self::Nchan(workers) => nchan::start(*workers, over, strategy, storage).await,
            Self::Mosquitto => mosquitto::start().await,
            Self::Prosody => prosody::start().await,
            Self::Ejabberd => ejabberd::start().await,
            Self::Npm(server) => server.start(strategy).await,
            Self::Pushpin => pushpin::start().await,
            Self::Redis(server) => server.start().await,
            Self::Nats => nats::start().await,
            Self::DurableStreams(program) => durable_streams::start(program, strategy, storage).await,
        }
    }

    /// Starts the server and ends it again, so that one that cannot start is reported before anything is measured.
    pub async fn rehearse(&self, strategy: Strategy, storage: &Storage) -> Result<(), ServerError> {
        self.start(strategy, storage).await?.end().await;
        Ok(())
    }
}

/// Starts the gateway with additional settings; `None` builds its program first if it is outdated.
pub async fn gateway_with(program: Option<&Path>, settings: &[String]) -> Result<Running, ServerError> {
    let program = program.map_or_else(gateway::program, |program| Ok(program.to_owned()))?;
    gateway::start_with(&program, settings).await
}

/// Returns the gateway's program beside `own`, rebuilt if its sources are newer.
pub fn gateway_program(own: &Path) -> Result<PathBuf, ServerError> {
    gateway::program_beside(own)
}

impl Running {
    /// One instance with its process, or none if this program did not start it.
    fn of(target: Target, process: Option<Process>) -> Self {
        let (others, _scratch, _certificate) = (Vec::new(), None, None);
        Self { target, admin: None, process, others, _scratch, _certificate, _providers: None }
    }

    /// Ends the server and waits until it is gone, so that neither its shutdown affects the next measurement nor its files
    /// remain.
    pub async fn end(self) {
        for process in self.others.into_iter().filter_map(|other| other.process).chain(self.process) {
            process.end().await;
        }
    }
}
