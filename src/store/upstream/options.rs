//! [`UpstreamOptions`]: the settings of an edge, the files that they name, and why an edge cannot be set up with them.

use std::path::{Path, PathBuf};

use pollgate_client::{BuildError, Token};

use crate::http_client::{InvalidUrl, TrustError};

/// Settings of an edge.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// URL of the parent.
    pub url: String,
    /// File with the token that the parent requires, for the default tenant.
    pub token_file: Option<PathBuf>,
    /// Folder with the tokens for other tenants, each in a file with the name of the tenant.
    pub token_directory: Option<PathBuf>,
    /// File with authorities that are trusted besides those of the operating system.
    pub ca: Option<PathBuf>,
    /// Streams that are followed at once.
    pub streams_max: usize,
    /// Memory of the messages of all streams that are kept.
    pub bytes_max: u64,
    /// Memory of the messages of one stream that are kept.
    pub stream_bytes_max: u64,
    /// Largest messages of one response.
    pub response_bytes_max: usize,
}

/// Why an edge cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The URL cannot be that of a parent.
    #[error("--upstream: {0}")]
    Url(#[from] InvalidUrl),
    /// The authorities cannot be used.
    #[error("--upstream-ca: {0}")]
    Trust(#[from] TrustError),
    /// The client of the parent cannot be built.
    #[error("--upstream: {0}")]
    Client(#[from] BuildError),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        error: std::io::Error,
    },
    /// The file of the token has something else.
    #[error("{}: a token consists of visible ASCII characters", .0.display())]
    Token(PathBuf),
    /// A file in the folder of the tokens has a name that no tenant has.
    #[error("--upstream-token-directory: {} has not the name of a tenant", .0.display())]
    Tenant(PathBuf),
}

/// Reads a token, which may have spaces and line ends around it.
pub(super) fn read_token(path: &Path) -> Result<String, UpstreamError> {
    let text = read(path)?;
    let token = text.trim();
    match Token::new(token) {
        Ok(_) => Ok(token.to_owned()),
        Err(_) => Err(UpstreamError::Token(path.to_owned())),
    }
}

pub(super) fn read(path: &Path) -> Result<String, UpstreamError> {
    std::fs::read_to_string(path).map_err(|error| UpstreamError::Read { path: path.to_owned(), error })
}
