//! TLS for the listeners: certificate chains with their keys, read again when the files change, of which a client gets the one for
//! the name that it asks for (SNI, RFC 6066, section 3).

use std::cmp::Reverse;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::{Ticketer, default_provider};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig, SupportedCipherSuite};

/// What HTTP listeners speak, in the order of preference (RFC 7301).
const HTTP_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why TLS cannot be served. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },
    /// A file does not contain what it should.
    #[error("{path}: {error}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: pem::Error,
    },
    /// The key does not belong to the certificate, or the library refuses one of them.
    #[error("{certificate} and {key} cannot be used: {error}")]
    Unusable {
        /// File with the certificate chain.
        certificate: PathBuf,
        /// File with the key.
        key: PathBuf,
        /// Why.
        error: rustls::Error,
    },
    /// The library refuses the settings.
    #[error("TLS cannot be served: {0}")]
    Settings(rustls::Error),
}

/// The certificates of the listeners, in the order of the settings.
#[derive(Debug)]
pub(super) struct Certificates(Vec<Certificate>);

/// A certificate chain and its key.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    state: RwLock<(Stamps, Arc<CertifiedKey>)>,
}

/// Modification time and inode of both files, which tell whether they have changed.
type Stamps = [(Option<SystemTime>, u64); 2];

impl Certificates {
    /// Reads the files. `None`: there are none, and the listeners speak no TLS.
    pub(super) fn read(certificates: &[PathBuf], keys: &[PathBuf]) -> Result<Option<Arc<Self>>, TlsError> {
        let pairs = certificates.iter().zip(keys);
        let all: Vec<_> =
            pairs.map(|(certificate, key)| Certificate::read(certificate, key)).collect::<Result<_, _>>()?;
        Ok((!all.is_empty()).then(|| Arc::new(Self(all))))
    }

    /// Reads the files again that have changed. A certificate whose files cannot be used stays as it is. Open connections keep
    /// theirs. Returns whether one has changed, and the errors of the others.
    pub(super) fn reload(&self) -> (bool, Vec<TlsError>) {
        let (mut has_changed, mut errors) = (false, Vec::new());
        for certificate in &self.0 {
            match certificate.reload() {
                Ok(changed) => has_changed |= changed,
                Err(error) => errors.push(error),
            }
        }
        (has_changed, errors)
    }

    /// Settings of the HTTP listeners and of the MQTT listener.
    pub(super) fn configs(self: &Arc<Self>) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
        let config = |protocols: &[&[u8]]| {
            let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
            let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
            let mut config = builder.with_cert_resolver(self.clone());
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            config.ticketer = Ticketer::new()?;
            config.ignore_client_order = true;
            // A session outlives its handshake as keys alone.
            config.enable_secret_extraction = true;
            Ok(Arc::new(config))
        };
        let both = config(&HTTP_PROTOCOLS).and_then(|http| Ok((http, config(&[])?)));
        both.map_err(TlsError::Settings)
    }
}

impl ResolvesServerCert for Certificates {
    /// Chooses the first certificate for the name that the client asks for, or else the first of all. Of several for a name, one
    /// whose key the client can verify takes precedence.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = |certificate: &Certificate| certificate.state.read().1.clone();
        let [first, others @ ..] = self.0.as_slice() else { return None };
        if others.is_empty() {
            return Some(current(first));
        }
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let mut named = None;
        for certificate in self.0.iter().map(current) {
            if name.as_ref().is_some_and(|name| is_for(&certificate, name)) {
                if certificate.key.choose_scheme(hello.signature_schemes()).is_some() {
                    return Some(certificate);
                }
                named = named.or(Some(certificate));
            }
        }
        named.or_else(|| Some(current(first)))
    }
}

/// Whether a subject alternative name of the certificate, perhaps with a wildcard, is this name.
fn is_for(certificate: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = certificate.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

impl Certificate {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let state = RwLock::new((stamps(certificate, key)?, certified(certificate, key)?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), state })
    }

    fn reload(&self) -> Result<bool, TlsError> {
        let stamps = stamps(&self.certificate, &self.key)?;
        if self.state.read().0 == stamps {
            return Ok(false);
        }
        let certified = certified(&self.certificate, &self.key)?;
        *self.state.write() = (stamps, certified);
        Ok(true)
    }
}

/// The cryptography provider. Suites with keys of 16 bytes come last, because their sessions take more memory: rustls copies keys
/// of 32 bytes only, so that a cipher has to be kept.
fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        Reverse(match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.key_len(),
            SupportedCipherSuite::Tls12(suite) => suite.aead_alg.key_block_shape().enc_key_len,
        })
    });
    provider
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn stamps(certificate: &Path, key: &Path) -> Result<Stamps, TlsError> {
    let stamp = |path: &Path| {
        let metadata =
            std::fs::metadata(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })?;
        Ok((metadata.modified().ok(), metadata.ino()))
    };
    Ok([stamp(certificate)?, stamp(key)?])
}

fn certified(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let malformed = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsError::Pem { path, error }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(malformed(certificate))?.collect();
    let chain = chain.map_err(malformed(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(malformed(key))?;
    // This checks that the key belongs to the certificate.
    let certified = CertifiedKey::from_der(chain, private, &default_provider());
    certified.map(Arc::new).map_err(|error| TlsError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        error,
    })
}
