//! What the memory budget tells.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountLabel {
    account: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhyLabel {
    why: &'static str,
}

/// The memory budget at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryCounts {
    /// Each account with its bytes.
    pub accounts: Vec<(&'static str, u64)>,
    /// Each reason to refuse with how often it came up.
    pub refused: Vec<(&'static str, u64)>,
    /// Bytes that the process may take.
    pub max: u64,
    /// Bytes that were resident when that was last looked at.
    pub resident: u64,
    /// Addresses that are connected or hold something that is stored.
    pub principals: u64,
}

/// The metrics of the memory budget.
#[derive(Debug, Default)]
pub(super) struct MemoryMetrics {
    held: Family<AccountLabel, Gauge<u64, AtomicU64>>,
    refused: Family<WhyLabel, Counter>,
    max: Gauge<u64, AtomicU64>,
    resident: Gauge<u64, AtomicU64>,
    principals: Gauge<u64, AtomicU64>,
}

impl MemoryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Memory that the accounts of the budget hold, as estimated";
        registry.register_with_unit("memory_held", help, Unit::Bytes, metrics.held.clone());
        let help = "The memory budget: from 85 % of it on new streams and appends are refused";
        registry.register_with_unit("memory_max", help, Unit::Bytes, metrics.max.clone());
        let help =
            "Memory of the process that was resident when that was last looked at, without pages of files";
        registry.register_with_unit("memory_resident", help, Unit::Bytes, metrics.resident.clone());
        let help = "Addresses that are connected or hold something that is stored";
        registry.register("principals", help, metrics.principals.clone());
        let help = "Streams and appends that were refused for want of room, by reason";
        registry.register("memory_refused", help, metrics.refused.clone());
        metrics
    }

    pub(super) fn set(&self, counts: &MemoryCounts) {
        for (account, bytes) in &counts.accounts {
            self.held.get_or_create(&AccountLabel { account }).set(*bytes);
        }
        for (why, count) in &counts.refused {
            self.refused.get_or_create(&WhyLabel { why }).inner().store(*count, Ordering::Relaxed);
        }
        self.max.set(counts.max);
        self.resident.set(counts.resident);
        self.principals.set(counts.principals);
    }
}
