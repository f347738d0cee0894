//! [`Rival`]: what the loads compare the gateway with: other servers, and the gateway's own limits.

use std::path::PathBuf;
use std::str::FromStr;

use super::{Server, ServerError};

/// Names on the command line, and in the report.
pub(super) const MEMORY: &str = "memory";
pub(super) const ENGINE: &str = "engine";

/// A rival of the gateway in a load.
#[derive(Debug, Clone)]
pub enum Rival {
    /// Another server.
    Server(Server),
    /// One gateway with messages in memory, wherever the others keep theirs.
    Memory,
    /// The engine of the gateways, whose append function is called directly.
    Engine,
}

impl FromStr for Rival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            MEMORY => Ok(Self::Memory),
            ENGINE => Ok(Self::Engine),
            server => {
                server.parse().map(Self::Server).map_err(|error| format!("{error}, {MEMORY} or {ENGINE}"))
            }
        }
    }
}

impl Rival {
    /// Returns the server to start beside `own`, the gateway.
    pub fn server(&self, own: &Server) -> Result<Server, ServerError> {
        let program = || match own {
            Server::Gateway(program, _) => Ok(PathBuf::clone(program)),
            _ => Err(ServerError::NoProgram),
        };
        Ok(match self {
            Self::Server(server) => server.clone(),
            Self::Memory => Server::Memory(program()?),
            Self::Engine => Server::Engine(program()?),
        })
    }
}
