//! Opening the store that the settings name, and counting what it does.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Settings, StorePlace};
use crate::metrics::{Metrics, StoreMetrics};
use crate::store::{Disk, DiskOptions, Memory, OpenError};
use crate::stream::{Observer, Store};

/// Opens the store; one on disk reads its log first.
pub(super) fn open(
    settings: &Settings,
    metrics: &Metrics,
    clock: Clock,
) -> Result<Arc<dyn Store>, OpenError> {
    let StorePlace::Directory(directory) = &settings.store else { return Ok(Arc::new(Memory::new())) };
    let observer = Arc::new(Counting(metrics.store().clone()));
    let (disk, opened) = Disk::open(directory, DiskOptions::new(settings.sync), observer, clock.now())?;
    let (streams, records, took) = (opened.streams, opened.records, opened.took);
    tracing::info!(directory = %directory.display(), streams, records, ?took, "opened the store");
    if opened.renewed {
        tracing::warn!(
            "what lay behind the end of the log, if anything, is lost; cursors from there get 410"
        );
    }
    Ok(Arc::new(disk))
}

/// Puts what a store tells into the metrics.
struct Counting(StoreMetrics);

impl Observer for Counting {
    fn opened(&self, took: Duration) {
        self.0.opened(took);
    }

    fn synced(&self, took: Duration, changes: usize, bytes: usize) {
        self.0.sync_seconds.observe(took.as_secs_f64());
        self.0.group_changes.observe(changes as f64);
        self.0.written.inc_by(bytes as u64);
    }

    fn read(&self, hot: usize, cold: usize) {
        self.0.reads_from_memory.inc_by(hot as u64);
        self.0.reads_from_disk.inc_by(cold as u64);
    }

    fn sized(&self, bytes: u64, live: u64) {
        self.0.size.set(bytes);
        self.0.live.set(live);
    }

    fn reclaimed(&self, bytes: u64) {
        self.0.reclaimed.inc_by(bytes);
    }
}
