//! From a store to lines.

use std::io::Write;
use std::time::SystemTime;

use serde::Serialize;

use super::line::{MessageLine, StreamLine};
use super::{MaintenanceError, Moved};
use crate::stream::{ANY_LEVELS, Filter, MessageLimit, Start, Store};

/// How much of a stream is in memory at once.
const CHUNK: MessageLimit = MessageLimit { bytes_max: 1024 * 1024, count_max: 1000 };

/// Writes all streams, in the order of their names, and behind each its messages.
pub(super) async fn export(
    store: &dyn Store,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<Moved, MaintenanceError> {
    let mut exported = Moved::default();
    let all = Filter::parse(ANY_LEVELS).into_iter().flat_map(|filter| store.names(&filter, now));
    let mut names: Vec<_> = all.collect();
    names.sort();
    for name in names {
        // Whatever has ended since is not there.
        let Ok(described) = store.describe(&name, now).await else { continue };
        put(out, &StreamLine::of(&name, &described))?;
        exported.streams += 1;
        let mut start = Start::Earliest;
        loop {
            let read = store.messages(&name, start, CHUNK, now).await;
            let chunk = read.map_err(|error| MaintenanceError::Read { stream: name.to_string(), error })?;
            for message in &chunk.messages {
                put(out, &MessageLine::of(message, described.content_type.encoding()))?;
                exported.messages += 1;
            }
            if chunk.up_to_date {
                break;
            }
            start = Start::At(chunk.next);
        }
    }
    Ok(exported)
}

fn put(out: &mut dyn Write, line: &impl Serialize) -> Result<(), MaintenanceError> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
