//! The metrics of a store on disk.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The metrics of a store on disk.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    pub(crate) sync_seconds: Histogram,
    pub(crate) group_changes: Histogram,
    pub(crate) written: Counter,
    pub(crate) reads_from_memory: Counter,
    pub(crate) reads_from_disk: Counter,
    pub(crate) size: Gauge<u64, AtomicU64>,
    pub(crate) live: Gauge<u64, AtomicU64>,
    pub(crate) reclaimed: Counter,
    pub(crate) damaged: Gauge<u64, AtomicU64>,
    opened_seconds: Gauge<f64, AtomicU64>,
}

impl StoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let sync_seconds = Histogram::new(exponential_buckets(0.000_05, 2.0, 18));
        let help = "Time in seconds that a sync of the log to disk took";
        registry.register_with_unit("store_sync", help, Unit::Seconds, sync_seconds.clone());
        let group_changes = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        registry.register(
            "store_group_changes",
            "Changes per group that was written to the log at once",
            group_changes.clone(),
        );
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let written = counter("store_written_bytes", "Bytes written to the log");
        let reads_from_memory =
            counter("store_reads_from_memory", "Messages read from the store with their content in memory");
        let reads_from_disk =
            counter("store_reads_from_disk", "Messages read from the store with their content on disk");
        let reclaimed = counter("store_reclaimed_bytes", "Bytes of log segments freed on disk");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
            gauge
        };
        let size = gauge("store_size", "Size of all log segments on disk in bytes, including unused room");
        let live = gauge(
            "store_live",
            "Bytes of records in log segments that are in use: kept messages and the state of streams and sessions",
        );
        let damaged = gauge("store_damaged", "Bytes of damaged records in the log files");
        let opened_seconds = Gauge::default();
        let help = "Time in seconds that the store took to open";
        registry.register_with_unit("store_opened", help, Unit::Seconds, opened_seconds.clone());
        Self {
            sync_seconds,
            group_changes,
            written,
            reads_from_memory,
            reads_from_disk,
            size,
            live,
            reclaimed,
            damaged,
            opened_seconds,
        }
    }

    pub(crate) fn opened(&self, took: Duration) {
        self.opened_seconds.set(took.as_secs_f64());
    }
}
