//! Opens the store that the settings name, and counts what it does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::{Settings, StorePlace};
use crate::metrics::{Metrics, StoreMetrics};
use crate::store::{Disk, DiskOptions, Memory, OpenError};
use crate::stream::{Observer, Store};

/// The cache of a store on disk takes at most the memory budget divided by this.
const CACHE_DIVISOR: u64 = 8;

/// Opens the store. A store on disk reads its log first. An error comes with the directory of the store.
pub(super) fn open_store(
    settings: &Settings,
    metrics: &Metrics,
    budget: &Arc<Budget>,
    clock: Clock,
) -> Result<Arc<dyn Store>, (PathBuf, OpenError)> {
    let StorePlace::Directory(directory) = &settings.store else {
        return Ok(Arc::new(Memory::within(budget.clone())));
    };
    let observer = Arc::new(Counting(metrics.store().clone()));
    let options = DiskOptions::new(settings.sync);
    let cache_bytes = settings.limits.store_cache_bytes.min(budget.max() / CACHE_DIVISOR);
    let options = DiskOptions { cache_bytes, accept_damage: settings.accept_damage, ..options };
    let opened = Disk::open_within(directory, options, observer, budget, clock.now());
    let (disk, opened) = opened.map_err(|error| (directory.clone(), error))?;
    let (streams, records, took) = (opened.streams, opened.records, opened.took);
    tracing::info!(directory = %directory.display(), streams, records, ?took, "opened the store");
    if opened.may_lack_end {
        tracing::warn!(
            "the end of the log may be missing; messages there are lost, and their offsets get 410"
        );
    }
    Ok(Arc::new(disk))
}

/// Records in the metrics what a store on disk does.
struct Counting(StoreMetrics);

impl Observer for Counting {
    fn opened(&self, took: Duration) {
        self.0.opened(took);
    }

    fn written(&self, changes: usize, bytes: usize) {
        self.0.group_changes.observe(changes as f64);
        self.0.written.inc_by(bytes as u64);
    }

    fn synced(&self, took: Duration) {
        self.0.sync_seconds.observe(took.as_secs_f64());
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

    fn damaged(&self, bytes: u64) {
        self.0.damaged.set(bytes);
    }
}
