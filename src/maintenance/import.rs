//! Imports the lines of an export into a store.

use std::io::BufRead;
use std::time::SystemTime;

use super::error::{ImportError, MaintenanceError, TransferCount};
use super::line::Line;
use crate::clock::{Clock, WallOffset};
use crate::stream::{Append, ContentType, CreateError, Payload, Store, StreamName};

/// The stream that the following message lines belong to.
struct Current {
    name: StreamName,
    content_type: ContentType,
    closed: bool,
}

/// Creates the streams of `lines` with their messages. The streams must not exist. If a line cannot be imported, the lines
/// before it stay imported.
pub(super) async fn import(
    store: &dyn Store,
    clock: Clock,
    lines: impl BufRead,
) -> Result<TransferCount, MaintenanceError> {
    let (now, offset) = (clock.now(), clock.wall_offset());
    let (mut imported, mut current) = (TransferCount::default(), None);
    let mut number = 0;
    for line in lines.lines() {
        number += 1;
        let line = line?;
        let done = import_line(store, (now, offset), &line, &mut current, &mut imported).await;
        done.map_err(|error| MaintenanceError::Import { line: number, error })?;
    }
    let closed = close(store, now, current).await;
    closed.map_err(|error| MaintenanceError::Import { line: number, error })?;
    Ok(imported)
}

async fn import_line(
    store: &dyn Store,
    (now, offset): (SystemTime, WallOffset),
    line: &str,
    current: &mut Option<Current>,
    imported: &mut TransferCount,
) -> Result<(), ImportError> {
    match Line::parse(line)? {
        Line::Stream(line) => {
            close(store, now, current.take()).await?;
            let name = StreamName::stored(&line.stream)?;
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
                Some(said) => Some(said.into_annotation(offset).ok_or(ImportError::Content)?),
                None => None,
            };
            let payload = match current.content_type.is_json() {
                true => Payload::json(bytes, Vec::new()),
                false => Payload::message(bytes),
            };
            let content_type = current.content_type.clone();
            let append = Append { annotation, ..Append::of(content_type, payload) };
            store.append(&current.name, append, offset.from_wall(line.at.into())).await?;
            imported.messages += 1;
        }
    }
    Ok(())
}

/// Closes the current stream if the export says that it was closed.
async fn close(store: &dyn Store, now: SystemTime, current: Option<Current>) -> Result<(), ImportError> {
    let Some(Current { name, closed: true, .. }) = current else { return Ok(()) };
    store.append(&name, Append::closing(), now).await?;
    Ok(())
}
