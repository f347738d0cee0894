//! Export and import of a store on disk while no gateway has it open. [`check`] checks such a store.

mod error;
mod import;
mod line;

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::clock::{Clock, WallOffset};
use crate::store::{ClockFile, Disk, DiskOptions, OpenError};
use crate::stream::{MessageLimit, ReadError, Start, Store, StreamName, SyncPolicy};

pub use crate::store::{Checked, check};
pub use error::{ImportError, MaintenanceError, TransferCount};

use line::{MessageLine, StreamLine};

/// A store on disk that no gateway has open. Nothing is synced until [`close`](Self::close).
pub struct OfflineStore {
    store: Disk,
    clock: Clock,
}

impl OfflineStore {
    /// Opens the store in `directory`, and creates the directory if it does not exist. Fails if records are damaged, unless
    /// `accept_damage` is set.
    pub fn open(directory: &Path, accept_damage: bool) -> Result<Self, OpenError> {
        let clock = ClockFile::read(directory).clock();
        let options = DiskOptions { accept_damage, ..DiskOptions::new(SyncPolicy::Never) };
        let (store, _) = Disk::open(directory, options, Arc::new(()), clock.now())?;
        store.follow_wall(clock.now(), clock.wall());
        Ok(Self { store, clock })
    }

    /// Writes all streams and their messages to `out` as lines of JSON, and returns their number.
    pub async fn export(&self, out: &mut dyn Write) -> Result<TransferCount, MaintenanceError> {
        let exported = export(&self.store, self.clock, out).await?;
        out.flush()?;
        Ok(exported)
    }

    /// Creates the streams of an export with their messages, and returns their number.
    pub async fn import(&self, lines: impl BufRead) -> Result<TransferCount, MaintenanceError> {
        import::import(&self.store, self.clock, lines).await
    }

    /// Syncs everything that was imported.
    pub async fn close(self) {
        self.store.close().await;
    }
}

/// How much of a stream an export holds in memory at once.
const CHUNK: MessageLimit = MessageLimit { bytes_max: 1024 * 1024, count_max: 1000 };

/// Writes all streams in the order of their names, each followed by its messages.
async fn export(
    store: &dyn Store,
    clock: Clock,
    out: &mut dyn Write,
) -> Result<TransferCount, MaintenanceError> {
    let (now, offset) = (clock.now(), clock.wall_offset());
    let mut exported = TransferCount::default();
    let mut after = None;
    loop {
        let page = store.page("", after.as_ref(), now);
        for (name, _) in page.streams {
            export_stream(store, &name, (now, offset), out, &mut exported).await?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(exported);
        }
    }
}

async fn export_stream(
    store: &dyn Store,
    name: &StreamName,
    (now, offset): (SystemTime, WallOffset),
    out: &mut dyn Write,
    exported: &mut TransferCount,
) -> Result<(), MaintenanceError> {
    // The stream may have ended since the page was read.
    let Ok(described) = store.describe(name, now).await else { return Ok(()) };
    write_line(out, &StreamLine::of(name, &described))?;
    exported.streams += 1;
    let mut start = Start::Earliest;
    loop {
        let read = store.messages(name, start, CHUNK, now).await;
        if let Err(ReadError::Gap(gap)) = read {
            tracing::warn!(
                stream = %name, reason = ?gap.reason, next = %gap.earliest,
                "messages are missing from the export; it continues at the next message"
            );
            start = Start::At(gap.earliest);
            continue;
        }
        let chunk = read.map_err(|error| MaintenanceError::Read { stream: name.to_string(), error })?;
        for message in &chunk.messages {
            write_line(out, &MessageLine::of(message, described.content_type.encoding(), offset))?;
            exported.messages += 1;
        }
        if chunk.up_to_date {
            return Ok(());
        }
        start = Start::At(chunk.next);
    }
}

fn write_line(out: &mut dyn Write, line: &impl Serialize) -> Result<(), MaintenanceError> {
    serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
