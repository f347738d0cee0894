//! A server as readers and publishers reach it.

use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};

use crate::dialects::Dialect;

/// Addresses, and how the server wants to be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// Of its HTTP listener; of its MQTT listener if it has no other.
    pub address: SocketAddr,
    /// Of its MQTT listener, if it has one.
    pub mqtt: Option<SocketAddr>,
    /// How it is asked.
    pub dialect: Dialect,
}

/// A `--target` that cannot be used, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not of the form.
    #[error("--target {0}: want http://HOST:PORT")]
    Form(String),
    /// The name has no address.
    #[error("--target {0}: {1}")]
    Address(String, std::io::Error),
}

impl Target {
    /// A gateway by its URL, `http://host:port`.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let form = || TargetError::Form(url.to_owned());
        let host = url.strip_prefix("http://").ok_or_else(form)?.trim_end_matches('/');
        let mut addresses =
            host.to_socket_addrs().map_err(|error| TargetError::Address(url.to_owned(), error))?;
        let address = addresses.next().ok_or_else(form)?;
        Ok(Self { address, mqtt: None, dialect: Dialect::DurableStreams })
    }
}
