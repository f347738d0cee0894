//! What operators are told of an export or import: how much was moved, or why not.

use std::io;

use crate::stream::{AppendError, CreateError, InvalidContentType, InvalidName, ReadError};

/// Why an operator did not get what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// A file can not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The store can not be read.
    #[error("stream {stream}: {error}")]
    Read {
        /// The stream.
        stream: String,
        /// Why.
        error: ReadError,
    },
    /// A line can not be imported.
    #[error("line {line}: {error}")]
    Import {
        /// Its number, from 1.
        line: usize,
        /// Why.
        error: ImportError,
    },
}

/// How much was taken from one place to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferCount {
    /// Streams.
    pub streams: usize,
    /// Messages.
    pub messages: usize,
}

/// Why a line can not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is neither a stream nor a message.
    #[error("not a line of an export: {0}")]
    Line(#[from] serde_json::Error),
    /// There is no stream before it.
    #[error("a message without a stream before it")]
    NoStream,
    /// The stream has a name that none can have.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The stream has a content type that none can have.
    #[error(transparent)]
    ContentType(#[from] InvalidContentType),
    /// A stream of that name is there.
    #[error("the stream is there already")]
    Exists,
    /// What the message has beside its content can not be meant.
    #[error("the content or what was said with it can not be read")]
    Content,
    /// The store refused the stream.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The store refused the message.
    #[error(transparent)]
    Append(#[from] AppendError),
}
