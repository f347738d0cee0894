//! The files of TLS: whether they have changed, and why they cannot be used.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem;

/// Modification time and inode of a file, which tell whether it has changed.
pub(super) type FileStamp = (Option<SystemTime>, u64);

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
    /// The trusted authorities, or what they have revoked, cannot be used.
    #[error("{path} cannot be used: {why}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The library refuses the settings.
    #[error("TLS cannot be served: {0}")]
    Settings(rustls::Error),
}

pub(super) fn stamp(path: &Path) -> Result<FileStamp, TlsError> {
    let metadata =
        std::fs::metadata(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })?;
    Ok((metadata.modified().ok(), metadata.ino()))
}
