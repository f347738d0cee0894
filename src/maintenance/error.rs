//! Why an export or import failed.

use std::io;

use crate::export::ExportError;
use crate::stream::{AppendError, ChangeError, CreateError, InvalidContentType, InvalidName};

/// Why an export or import failed.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The export cannot be written.
    #[error("cannot write the export: {0}")]
    Write(io::Error),
    /// The export cannot be read.
    #[error("cannot read the export: {0}")]
    Read(io::Error),
    /// The store cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A line cannot be imported, so nothing was imported.
    #[error("line {line}: {error}; nothing was imported")]
    Import {
        /// The number of the line, from 1.
        line: usize,
        /// Why the import of the line failed.
        error: ImportError,
    },
    /// A line could not be imported, and some of the streams that were imported before it could not be deleted again.
    #[error(
        "line {line}: {error}; {left} of the imported streams are left, because they cannot be deleted: {reason}"
    )]
    NotUndone {
        /// The number of the line, from 1.
        line: usize,
        /// Why the import of the line failed.
        error: ImportError,
        /// The number of streams that are left.
        left: usize,
        /// Why the first of them was not deleted.
        reason: ChangeError,
    },
}

/// Why a line cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The line is neither a stream nor a message nor the end.
    #[error("not a line of an export: {0}")]
    Line(#[from] serde_json::Error),
    /// The line is a message, and no line with a stream comes before it.
    #[error("a message without a stream before it")]
    NoStream,
    /// The export has no line that says that it is complete.
    #[error(
        "the export ends here, and no line says that it is complete, so the end is missing: it was cut off, or an earlier version \
         wrote it"
    )]
    CutOff,
    /// The export says that it is not complete.
    #[error("the export was broken off: {0}")]
    BrokenOff(String),
    /// The numbers in the last line differ from the content of the export.
    #[error("the export says that it has {said}, and it has {found}: lines are missing")]
    Count {
        /// The numbers in the last line.
        said: String,
        /// The numbers of streams and messages that were found.
        found: String,
    },
    /// There are lines after the end.
    #[error("a line after the end of the export")]
    AfterEnd,
    /// The name of the stream is invalid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The content type of the stream is invalid.
    #[error(transparent)]
    ContentType(#[from] InvalidContentType),
    /// A stream of this name exists.
    #[error("the stream exists already")]
    Exists,
    /// The source of a fork does not come before it.
    #[error("the source of the fork does not come before it")]
    Source,
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
