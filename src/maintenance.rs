//! Export and import of a store on disk while no gateway has it open. [`check`] checks such a store.

mod error;
mod import;
#[cfg(test)]
mod tests;

use std::io::{BufRead, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::export::Exporter;
use crate::store::{ClockFile, Disk, DiskOptions, OpenError};
use crate::stream::{Store, SyncPolicy};

pub use crate::export::{ExportError, TransferCount};
pub use crate::store::{Checked, check};
pub use error::{ImportError, MaintenanceError};
pub use import::{CheckedExport, check_export};

/// A store on disk that no gateway has open. Nothing is synced until [`close`](Self::close).
pub struct OfflineStore {
    store: Arc<Disk>,
    clock: Clock,
}

impl OfflineStore {
    /// Opens the store in `directory`, which must have one. Fails if records are damaged, unless `accept_damage` is set.
    pub fn open(directory: &Path, accept_damage: bool) -> Result<Self, OpenError> {
        let options = DiskOptions { accept_damage, must_exist: true, ..DiskOptions::new(SyncPolicy::Never) };
        Self::open_with(directory, options)
    }

    /// Opens the store in `directory`, and creates it if there is none.
    pub fn open_or_create(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with(directory, DiskOptions::new(SyncPolicy::Never))
    }

    fn open_with(directory: &Path, options: DiskOptions) -> Result<Self, OpenError> {
        let clock = ClockFile::read(directory).clock();
        let (store, _) = Disk::open(directory, options, Arc::new(()), clock.now())?;
        store.follow_wall(clock.now(), clock.wall());
        Ok(Self { store: Arc::new(store), clock })
    }

    /// Writes all streams and their messages to `out` as lines of JSON, and returns their number.
    pub async fn export(&self, out: &mut dyn Write) -> Result<TransferCount, MaintenanceError> {
        let mut exporter = Exporter::new(self.store.clone(), self.clock);
        while let Some(piece) = exporter.next().await {
            out.write_all(&piece?).map_err(MaintenanceError::Write)?;
        }
        out.flush().map_err(MaintenanceError::Write)?;
        Ok(exporter.count())
    }

    /// Creates the streams of an export with their messages, and returns their number. If one of them exists or cannot be
    /// created, none of them is imported.
    pub async fn import(
        &self,
        export: &mut CheckedExport<impl BufRead + Seek>,
    ) -> Result<TransferCount, MaintenanceError> {
        import::import(&*self.store, self.clock, export).await
    }

    /// Syncs everything that was imported.
    pub async fn close(self) {
        self.store.close().await;
    }
}
