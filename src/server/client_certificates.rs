//! Certificates of clients: which authorities are trusted, and which certificates they have revoked, read again when the files change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::tls_files::{FileStamp, TlsError, stamp};

/// Verifies the certificates of clients. The trusted authorities change with their file, so that rustls' verifier is replaced.
pub(super) struct ClientCertificates {
    authorities: PathBuf,
    /// Certificates that the authorities have revoked. `None`: revocation is not checked.
    revoked: Option<PathBuf>,
    is_required: bool,
    state: RwLock<(Vec<FileStamp>, Arc<dyn ClientCertVerifier>)>,
    /// The lists of `revoked` as they were read last, until [`take_revoked`](Self::take_revoked) takes them.
    lists: Mutex<Option<Lists>>,
}

/// Lists of revoked certificates.
pub(super) type Lists = Vec<CertificateRevocationListDer<'static>>;

impl ClientCertificates {
    pub(super) fn read(
        authorities: &Path,
        revoked: Option<&Path>,
        is_required: bool,
    ) -> Result<Self, TlsError> {
        let stamps = stamps(authorities, revoked)?;
        let (verifier, lists) = verifier(authorities, revoked, is_required)?;
        let (authorities, revoked) = (authorities.to_owned(), revoked.map(Path::to_owned));
        let (state, lists) = (RwLock::new((stamps, verifier)), Mutex::new(Some(lists)));
        Ok(Self { authorities, revoked, is_required, state, lists })
    }

    /// Reads the files again if they have changed. If they cannot be used, the ones before stay in use.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let revoked = self.revoked.as_deref();
        let stamps = stamps(&self.authorities, revoked)?;
        if self.state.read().0 == stamps {
            return Ok(false);
        }
        let (verifier, lists) = verifier(&self.authorities, revoked, self.is_required)?;
        *self.state.write() = (stamps, verifier);
        *self.lists.lock() = Some(lists);
        Ok(true)
    }

    /// Returns the lists of revoked certificates if they were read since the last call.
    pub(super) fn take_revoked(&self) -> Option<Lists> {
        self.lists.lock().take()
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        self.state.read().1.clone()
    }
}

fn stamps(authorities: &Path, revoked: Option<&Path>) -> Result<Vec<FileStamp>, TlsError> {
    [Some(authorities), revoked].into_iter().flatten().map(stamp).collect()
}

/// With a list of revocations, a certificate whose authority has none in it is refused. Also returns the lists.
fn verifier(
    authorities: &Path,
    revoked: Option<&Path>,
    is_required: bool,
) -> Result<(Arc<dyn ClientCertVerifier>, Lists), TlsError> {
    let malformed = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsError::Pem { path, error }
    };
    let refused = |path: &Path, error: &dyn fmt::Display| TlsError::Authorities {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(authorities).map_err(malformed(authorities))? {
        let root = root.map_err(malformed(authorities))?;
        roots.add(root).map_err(|error| refused(authorities, &error))?;
    }
    let provider = Arc::new(default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let mut lists = Lists::new();
    if let Some(path) = revoked {
        let read = CertificateRevocationListDer::pem_file_iter(path).map_err(malformed(path))?;
        lists = read.collect::<Result<_, _>>().map_err(malformed(path))?;
        builder = builder.with_crls(lists.clone()).only_check_end_entity_revocation();
    }
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(|error| match (&error, revoked) {
        (VerifierBuilderError::InvalidCrl(_), Some(path)) => refused(path, &error),
        _ => refused(authorities, &error),
    });
    Ok((verifier?, lists))
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    /// None, as they would have to outlive a change of the file: clients choose among their certificates without a hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}
