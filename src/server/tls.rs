//! TLS for the listeners: certificate chains with their keys, read again when the files change, of which a client gets the one for
//! the name that it asks for (SNI, RFC 6066, section 3).

use std::cmp::Reverse;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::{Ticketer, default_provider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ServerConfig, SupportedCipherSuite};

use super::client_certificates::{ClientCertificates, Lists};
use super::tls_files::{FileStamp, TlsError, stamp};
use crate::config::Settings;

/// What HTTP listeners speak, in the order of preference (RFC 7301).
const HTTP_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificates of the listeners, and those of clients that they accept.
#[derive(Debug)]
pub(super) struct Certificates {
    own: Arc<OwnCertificates>,
    /// `None`: clients are not asked for certificates.
    clients: Option<Arc<ClientCertificates>>,
}

/// The certificates of the listeners, in the order of the settings.
#[derive(Debug)]
struct OwnCertificates(Vec<Certificate>);

/// A certificate chain and its key.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    state: RwLock<(FileStamps, Arc<CertifiedKey>)>,
}

/// Those of a certificate and of its key.
type FileStamps = [FileStamp; 2];

impl Certificates {
    /// Reads the files. `None`: there are none, and the listeners speak no TLS.
    pub(super) fn read(settings: &Settings) -> Result<Option<Arc<Self>>, TlsError> {
        let pairs = settings.tls_certificate.iter().zip(&settings.tls_key);
        let own: Vec<_> =
            pairs.map(|(certificate, key)| Certificate::read(certificate, key)).collect::<Result<_, _>>()?;
        let (revoked, is_required) = (settings.tls_client_crl.as_deref(), settings.tls_client_required);
        let clients = settings.tls_client_ca.as_deref();
        let clients = clients.map(|ca| ClientCertificates::read(ca, revoked, is_required)).transpose()?;
        let is_some = !own.is_empty();
        let (own, clients) = (Arc::new(OwnCertificates(own)), clients.map(Arc::new));
        Ok(is_some.then(|| Arc::new(Self { own, clients })))
    }

    /// Reads the files again that have changed. A certificate whose files cannot be used stays as it is. Open connections keep
    /// theirs. Returns whether one has changed, and the errors of the others.
    pub(super) fn reload(&self) -> (bool, Vec<TlsError>) {
        let (mut has_changed, mut errors) = (false, Vec::new());
        let of_clients = self.clients.iter().map(|clients| clients.reload());
        for reloaded in self.own.0.iter().map(Certificate::reload).chain(of_clients) {
            match reloaded {
                Ok(changed) => has_changed |= changed,
                Err(error) => errors.push(error),
            }
        }
        (has_changed, errors)
    }

    /// Returns the lists of revoked client certificates if they were read since the last call.
    pub(super) fn take_revoked(&self) -> Option<Lists> {
        self.clients.as_ref()?.take_revoked()
    }

    /// Settings of the HTTP listeners and of the MQTT listener.
    pub(super) fn configs(&self) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
        let config = |protocols: &[&[u8]]| {
            let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
            let builder = builder.with_safe_default_protocol_versions()?;
            let builder = match &self.clients {
                Some(clients) => builder.with_client_cert_verifier(clients.clone()),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(self.own.clone());
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            if self.clients.is_some() {
                // A resumed session would not verify the certificate of its client again, which may be revoked meanwhile.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            } else {
                config.ticketer = Ticketer::new()?;
            }
            config.ignore_client_order = true;
            // A session outlives its handshake as keys alone.
            config.enable_secret_extraction = true;
            Ok(Arc::new(config))
        };
        let both = config(&HTTP_PROTOCOLS).and_then(|http| Ok((http, config(&[])?)));
        both.map_err(TlsError::Settings)
    }
}

impl ResolvesServerCert for OwnCertificates {
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

fn stamps(certificate: &Path, key: &Path) -> Result<FileStamps, TlsError> {
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
