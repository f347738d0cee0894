//! What operators do with a store on disk while no gateway has it open: export it and import it. `store::check` checks it.

mod export;
mod import;
mod line;

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::store::{Disk, DiskOptions, OpenError, SyncPolicy};
use crate::stream::{ReadError, Store};

pub use import::ImportError;

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
pub struct Moved {
    /// Streams.
    pub streams: usize,
    /// Messages.
    pub messages: usize,
}

/// A store on disk that no gateway has open. Nothing is synced before it is closed.
pub struct OfflineStore {
    store: Disk,
    clock: Clock,
}

impl OfflineStore {
    /// Opens the store in `directory`, which is made if it is not there.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let clock = Clock::start();
        let options = DiskOptions::new(SyncPolicy::Never);
        let (store, _) = Disk::open(directory, options, Arc::new(()), clock.now())?;
        Ok(Self { store, clock })
    }

    /// Writes all streams and their messages to `out`, as lines of JSON.
    pub async fn export(&self, out: &mut dyn Write) -> Result<Moved, MaintenanceError> {
        let exported = export::export(&self.store, self.clock.now(), out).await?;
        out.flush()?;
        Ok(exported)
    }

    /// Makes the streams that lines of JSON tell of.
    pub async fn import(&self, lines: impl BufRead) -> Result<Moved, MaintenanceError> {
        import::import(&self.store, self.clock.now(), lines).await
    }

    /// Makes all of it durable.
    pub async fn close(self) {
        self.store.close().await;
    }
}
