//! [`Target`]: the addresses and the dialect of a server.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};

use crate::dialects::Dialect;
use crate::providers::ProviderTarget;
use crate::strategies::Strategy;
use crate::wire::Transport;

/// Addresses and dialect of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// Address of the HTTP listener, or of the MQTT listener if there is no other.
    pub address: SocketAddr,
    /// Address of the MQTT listener, if there is one.
    pub mqtt: Option<SocketAddr>,
    /// Address for publishers, if it is another one.
    pub publishing: Option<SocketAddr>,
    /// How requests are built.
    pub dialect: Dialect,
    /// What carries them.
    pub transport: Transport,
    /// The certificate of the server, in DER; empty without TLS.
    pub certificate: Vec<u8>,
    /// The fakes by which the server wakes phones, if it has some.
    pub providers: Option<ProviderTarget>,
}

/// Why a `--target` cannot be used, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It does not have the form of a URL with a port.
    #[error("--target {0}: want http://HOST:PORT, or https://HOST:PORT and --target-certificate")]
    Form(String),
    /// The host name cannot be resolved.
    #[error("--target {0}: {1}")]
    Address(String, std::io::Error),
    /// The file has no certificate.
    #[error("--target-certificate {0}: {1}")]
    Certificate(PathBuf, pem::Error),
}

impl Target {
    /// Parses the URL of a gateway: `http://host:port`, or `https://host:port` with the file of its certificate, in PEM.
    pub fn parse(url: &str, certificate: Option<&Path>) -> Result<Self, TargetError> {
        let form = || TargetError::Form(url.to_owned());
        let scheme = if certificate.is_some() { "https://" } else { "http://" };
        let host = url.strip_prefix(scheme).ok_or_else(form)?.trim_end_matches('/');
        let mut addresses =
            host.to_socket_addrs().map_err(|error| TargetError::Address(url.to_owned(), error))?;
        let mut target = Self::of(addresses.next().ok_or_else(form)?, Dialect::DurableStreams);
        if let Some(file) = certificate {
            let certificate = CertificateDer::from_pem_file(file);
            let certificate =
                certificate.map_err(|error| TargetError::Certificate(file.to_owned(), error))?;
            target.certificate = certificate.to_vec();
        }
        Ok(target)
    }

    /// A server with one listener.
    pub fn of(address: SocketAddr, dialect: Dialect) -> Self {
        let (transport, certificate) = (Transport::default(), Vec::new());
        Self { address, mqtt: None, publishing: None, dialect, transport, certificate, providers: None }
    }

    /// Address of the listener for readers of `strategy`.
    pub fn address_for(&self, strategy: Strategy) -> SocketAddr {
        match strategy {
            Strategy::Mqtt(_) => self.mqtt.unwrap_or(self.address),
            _ => self.address,
        }
    }

    /// The same server as its publishers reach it.
    pub fn for_publishers(&self) -> Self {
        Self { address: self.publishing.unwrap_or(self.address), ..self.clone() }
    }
}
