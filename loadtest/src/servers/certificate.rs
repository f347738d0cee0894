//! [`Certificate`]: a self-signed certificate of a server that speaks TLS on loopback, made by `openssl`.

use std::process::Command;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::ServerError;
use super::scratch::Scratch;

/// A certificate of 127.0.0.1 with its key, in files that a drop removes.
pub(super) struct Certificate {
    /// Path of the certificate, in PEM.
    pub(super) certificate: String,
    /// Path of the key, in PEM.
    pub(super) key: String,
    /// The certificate, in DER.
    pub(super) der: Vec<u8>,
    _folder: Scratch,
}

impl Certificate {
    /// Makes a certificate with a key on the curve P-256, as most servers have it.
    pub(super) fn new() -> Result<Self, ServerError> {
        let folder = Scratch::new("tls")?;
        let path = |name| folder.path().join(name).display().to_string();
        let (certificate, key) = (path("tls.pem"), path("tls.key"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-keyout", &key, "-out", &certificate, "-subj", "/CN=127.0.0.1", "-days", "30"]);
        openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        let output =
            openssl.output().map_err(|error| ServerError::Missing("openssl".into(), error.to_string()))?;
        let der = CertificateDer::from_pem_file(&certificate).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            ServerError::Ended("openssl".into(), said.lines().last().unwrap_or("no certificate").to_owned())
        })?;
        Ok(Self { certificate, key, der: der.to_vec(), _folder: folder })
    }
}
