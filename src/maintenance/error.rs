//! The results of an export or import: how much was transferred, or why it failed.

use std::io;

use crate::stream::{AppendError, CreateError, InvalidContentType, InvalidName, ReadError};

/// Why an export or import failed.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// A file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The store cannot be read.
    #[error("stream {stream}: {error}")]
    Read {
        /// The name of the stream.
        stream: String,
        /// Why reading failed.
        error: ReadError,
    },
    /// A line cannot be imported.
    #[error("line {line}: {error}")]
    Import {
        /// The number of the line, from 1.
        line: usize,
        /// Why the import of the line failed.
        error: ImportError,
    },
}

/// How much an export or import has transferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferCount {
    /// Number of streams.
    pub streams: usize,
    /// Number of messages.
    pub messages: usize,
}

/// Why a line cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The line is neither a stream nor a message.
    #[error("not a line of an export: {0}")]
    Line(#[from] serde_json::Error),
    /// The line is a message, and no line with a stream comes before it.
    #[error("a message without a stream before it")]
    NoStream,
    /// The name of the stream is invalid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The content type of the stream is invalid.
    #[error(transparent)]
    ContentType(#[from] InvalidContentType),
    /// A stream of this name exists.
    #[error("the stream exists already")]
    Exists,
    /// The content or the publisher's note of the message is invalid.
    #[error("the content or the publisher note (`said`) is invalid")]
    Content,
    /// The store refused the stream.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The store refused the message.
    #[error(transparent)]
    Append(#[from] AppendError),
}
