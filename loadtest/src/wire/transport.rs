//! [`Transport`]: the version of HTTP, and whether TLS is below it. A [`Dialer`] opens connections of a transport.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{Connection, WireError};
use crate::target::Target;

/// What carries the requests of a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Transport {
    /// HTTP/1.1 over TCP.
    #[default]
    Http1,
    /// HTTP/2 over TCP, with prior knowledge (RFC 9113, section 3.3).
    Http2,
    /// HTTP/1.1 over TLS.
    Http1Tls,
    /// HTTP/2 over TLS, as browsers use it.
    Http2Tls,
}

/// All transports with their names on the command line and in tables.
const NAMES: [(Transport, &str, &str); 4] = [
    (Transport::Http1, "http1", "HTTP/1.1"),
    (Transport::Http2, "http2", "HTTP/2"),
    (Transport::Http1Tls, "http1+tls", "TLS"),
    (Transport::Http2Tls, "http2+tls", "HTTP/2 and TLS"),
];

impl Transport {
    /// Whether requests are streams of one HTTP/2 connection.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Tls)
    }

    /// Whether connections are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Http1Tls | Self::Http2Tls)
    }

    /// Returns what distinguishes it from HTTP/1.1 over TCP, for tables; `None` for that one.
    pub fn label(self) -> Option<&'static str> {
        let is_plain = self == Self::Http1;
        NAMES.iter().find(|(transport, ..)| *transport == self && !is_plain).map(|(_, _, label)| *label)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(transport, ..)| transport == self).map(|(_, name, _)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

impl FromStr for Transport {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(_, name, _)| *name == text).map(|(transport, ..)| *transport);
        found.ok_or("want http1, http2, http1+tls or http2+tls")
    }
}

/// A connection below HTTP.
pub trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for IO {}

/// A connection below HTTP, with TLS or without.
pub type Io = Box<dyn ReadWrite>;

/// Opens the connections of one client, which resumes its TLS sessions.
#[derive(Clone, Default)]
pub struct Dialer {
    transport: Transport,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialer {
    /// Prepares connections to a server, of whose certificates the target has the only one that is trusted.
    pub fn new(target: &Target) -> Result<Self, WireError> {
        let transport = target.transport;
        if !transport.has_tls() {
            return Ok(Self { transport, tls: None });
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(target.certificate.clone()))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(1);
        config.alpn_protocols =
            vec![if transport.is_http2() { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { transport, tls: Some((connector, ServerName::from(target.address.ip()))) })
    }

    /// Returns what it opens.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Shakes hands over a connection, if the transport has TLS.
    pub async fn secure(&self, io: impl ReadWrite + 'static) -> Result<Io, WireError> {
        Ok(match &self.tls {
            Some((connector, name)) => Box::new(connector.connect(name.clone(), io).await?),
            None => Box::new(io),
        })
    }

    /// Starts HTTP over a connection.
    pub async fn start_http(&self, io: impl ReadWrite + 'static) -> Result<Connection, WireError> {
        let io = self.secure(io).await?;
        match self.transport {
            Transport::Http1 | Transport::Http1Tls => Connection::over(io).await,
            Transport::Http2 => Connection::over_http2(io, "http").await,
            Transport::Http2Tls => Connection::over_http2(io, "https").await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_parse_and_print_the_same_text() {
        for (transport, name, label) in NAMES {
            assert_eq!((name.parse(), transport.to_string()), (Ok(transport), name.to_owned()));
            assert_eq!(transport.label(), (name != "http1").then_some(label));
        }
        assert!("http3".parse::<Transport>().is_err());
    }
}
