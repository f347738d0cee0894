//! Export and import of a store on disk while no gateway has it open. [`check`] checks such a store, and [`EngineAccess`] an engine.

mod error;
mod import;
#[cfg(test)]
mod tests;

use std::io::{BufRead, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::export::Exporter;
use crate::metrics::EngineMetrics;
use crate::store::{
    ClockFile, Disk, DiskOptions, EngineError, NewsRoom, OpenError, Redis, RedisOptions, Severity,
};
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

/// How to reach an engine.
#[derive(Debug, Clone)]
pub struct EngineAccess {
    /// The URL, as for `--store`.
    pub url: String,
    /// Certificate authorities (PEM) of an engine with TLS. `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// File with the password, which replaces that of the URL.
    pub password_file: Option<PathBuf>,
}

impl EngineAccess {
    /// Checks the settings of all servers. Returns a line for each finding, with what to do about it, and whether a gateway can use the
    /// engine.
    pub async fn check(&self) -> Result<(Vec<String>, bool), EngineError> {
        let findings = self.open()?.inspect().await?;
        let is_usable = findings.iter().all(|finding| finding.severity < Severity::Error);
        Ok((findings.iter().map(ToString::to_string).collect(), is_usable))
    }

    /// Describes the servers, their calls, and the sizes of the partitions, as lines.
    pub async fn stats(&self) -> Result<Vec<String>, EngineError> {
        self.open()?.stats().await
    }

    fn open(&self) -> Result<Redis, EngineError> {
        let options = RedisOptions {
            url: self.url.clone(),
            ca_file: self.ca_file.clone(),
            password_file: self.password_file.clone(),
            gateway: String::new(),
            follows_engine_clock: true,
            // It has no readers.
            news_room: NewsRoom { bytes_max: 0, stream_bytes_max: 0 },
            metrics: EngineMetrics::default(),
        };
        Redis::new(options, Budget::unlimited(), Handle::current())
    }
}
