//! From lines to a store.

use std::io::BufRead;
use std::time::SystemTime;

use super::line::Line;
use super::{MaintenanceError, Moved};
use crate::stream::{
    Append, AppendError, ContentType, CreateError, InvalidContentType, InvalidName, Payload, Store,
    StreamName,
};

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

/// The stream whose messages follow.
struct Current {
    name: StreamName,
    content_type: ContentType,
    closed: bool,
}

/// Makes the streams that lines tell of, which must not be there. What came before a line that can not be imported is
/// there afterwards.
pub(super) async fn import(
    store: &dyn Store,
    now: SystemTime,
    lines: impl BufRead,
) -> Result<Moved, MaintenanceError> {
    let (mut imported, mut current) = (Moved::default(), None);
    let mut number = 0;
    for line in lines.lines() {
        number += 1;
        let line = line?;
        let taken = take(store, now, &line, &mut current, &mut imported).await;
        taken.map_err(|error| MaintenanceError::Import { line: number, error })?;
    }
    let closed = close(store, now, current).await;
    closed.map_err(|error| MaintenanceError::Import { line: number, error })?;
    Ok(imported)
}

async fn take(
    store: &dyn Store,
    now: SystemTime,
    line: &str,
    current: &mut Option<Current>,
    imported: &mut Moved,
) -> Result<(), ImportError> {
    match Line::parse(line)? {
        Line::Stream(line) => {
            close(store, now, current.take()).await?;
            let name = StreamName::parse(&line.stream)?;
            let create = line.creation()?;
            let content_type = create.content_type.clone();
            match store.create(&name, create, now).await {
                Ok(created) if created.fresh => {}
                Ok(_) | Err(CreateError::ExistsDifferently) => return Err(ImportError::Exists),
                Err(error) => return Err(error.into()),
            }
            imported.streams += 1;
            *current = Some(Current { name, content_type, closed: line.closed });
        }
        Line::Message(line) => {
            let current = current.as_ref().ok_or(ImportError::NoStream)?;
            let bytes = line.bytes().ok_or(ImportError::Content)?;
            let annotation = match line.said {
                Some(said) => Some(said.into_annotation().ok_or(ImportError::Content)?),
                None => None,
            };
            let payload = match current.content_type.is_json() {
                true => Payload::json(bytes, Vec::new()),
                false => Payload::raw(bytes),
            };
            let content_type = current.content_type.clone();
            let append = Append { annotation, ..Append::of(content_type, payload) };
            store.append(&current.name, append, line.at.into()).await?;
            imported.messages += 1;
        }
    }
    Ok(())
}

/// Closes a stream that was closed, behind its last message.
async fn close(store: &dyn Store, now: SystemTime, current: Option<Current>) -> Result<(), ImportError> {
    let Some(Current { name, closed: true, .. }) = current else { return Ok(()) };
    store.append(&name, Append::closing(), now).await?;
    Ok(())
}
