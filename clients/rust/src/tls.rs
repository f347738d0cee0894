//! TLS by rustls. Certificates are verified by the rules and roots of the operating system, and by further roots of the
//! user's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore};

use crate::error::{BuildError, CertificateError, ConnectError};

/// How long a certificate that is not trusted is taken for that of a captive portal, after the gateway has shown one
/// that was.
const INTERCEPTED_MAX: Duration = Duration::from_secs(600);

/// Makes TLS connections to one host.
pub(crate) struct Tls {
    connector: TlsConnector,
    host: ServerName<'static>,
    trust: Mutex<Trust>,
}

/// What the handshakes of all connections so far have shown.
#[derive(Debug, Clone, Copy)]
enum Trust {
    Unknown,
    Verified,
    /// Verified before, and not since then.
    LostAt(Instant),
}

impl Tls {
    /// Loads the roots of the operating system, which may take some milliseconds, and adds those of a PEM text.
    pub(crate) fn new(host: &str, pem: &[u8]) -> Result<Self, BuildError> {
        let malformed = |error: &dyn fmt::Display| BuildError::RootCertificate(error.to_string());
        let roots: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| malformed(&error))?;
        if roots.is_empty() && !pem.is_empty() {
            return Err(malformed(&"there is none in the text"));
        }
        let mut parsed = RootCertStore::empty();
        for root in &roots {
            parsed.add(root.clone()).map_err(|error| malformed(&error))?;
        }
        let provider = Arc::new(default_provider());
        let unusable = |error: Error| BuildError::Tls(error.to_string());
        let verifier = Verifier::new_with_extra_roots(roots, provider.clone()).map_err(unusable)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let host = ServerName::try_from(host.to_owned())
            .map_err(|_| BuildError::Tls(format!("{host:?} is neither a host name nor an IP address")))?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { connector, host, trust: Mutex::new(Trust::Unknown) })
    }

    /// Makes the handshake on a connected socket.
    pub(crate) async fn connect(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, ConnectError> {
        let connected = self.connector.connect(self.host.clone(), socket).await;
        match &connected {
            Ok(_) => *self.trust.lock() = Trust::Verified,
            Err(error) => {
                let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                if let Some(Error::InvalidCertificate(reason)) = error {
                    let reason = reason.to_string();
                    let error = CertificateError { host: self.host.to_str().into_owned(), reason };
                    return Err(self.distrust(error));
                }
            }
        }
        connected.map_err(|_| ConnectError::Unreachable)
    }

    fn distrust(&self, error: CertificateError) -> ConnectError {
        let mut trust = self.trust.lock();
        let now = Instant::now();
        match *trust {
            Trust::Verified => {
                *trust = Trust::LostAt(now);
                ConnectError::Intercepted(error)
            }
            Trust::LostAt(since) if now - since < INTERCEPTED_MAX => ConnectError::Intercepted(error),
            Trust::Unknown | Trust::LostAt(_) => ConnectError::Untrusted(error),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_taken_for_a_portals_only_behind_a_trusted_one_and_not_for_ever() {
        let tls = Tls { trust: Mutex::new(Trust::Unknown), ..Tls::new("localhost", b"").unwrap() };
        let error = CertificateError { host: String::new(), reason: String::new() };
        assert_eq!(tls.distrust(error.clone()), ConnectError::Untrusted(error.clone()));
        *tls.trust.lock() = Trust::Verified;
        for _ in 0..3 {
            assert_eq!(tls.distrust(error.clone()), ConnectError::Intercepted(error.clone()));
            tokio::time::advance(INTERCEPTED_MAX / 3).await;
        }
        assert_eq!(tls.distrust(error.clone()), ConnectError::Untrusted(error));
    }

    #[test]
    fn roots_that_are_no_certificates_are_an_error() {
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in [empty, "-----BEGIN CERTIFICATE-----\n", "DER"] {
            let built = Tls::new("localhost", pem.as_bytes()).map(drop);
            assert!(matches!(built, Err(BuildError::RootCertificate(_))), "{built:?}");
        }
    }
}
