//! The metrics of the memory budget.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::tenants::TenantUsage;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountLabel {
    account: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhyLabel {
    why: &'static str,
}

/// Snapshot of the memory budget.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryCounts {
    /// Bytes held by each account.
    pub accounts: Vec<(&'static str, u64)>,
    /// Number of refusals for each reason.
    pub refused: Vec<(&'static str, u64)>,
    /// The memory budget, in bytes.
    pub max: u64,
    /// Resident memory of the process when it was last read, in bytes.
    pub resident: u64,
    /// Subjects of tokens, and addresses of clients without one (IPv6: /64 networks), that are connected or have something stored.
    pub principals: u64,
    /// What each tenant has that has anything, by the prefix of its streams in the hub; without the default tenant.
    pub tenants: Vec<(String, TenantUsage)>,
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
        let help = "Estimated memory in bytes held by each account of the memory budget";
        registry.register_with_unit("memory_held", help, Unit::Bytes, metrics.held.clone());
        let help =
            "Memory budget in bytes (--memory-max); new streams and appends are refused from 85 % of it on";
        registry.register_with_unit("memory_max", help, Unit::Bytes, metrics.max.clone());
        let help = "Resident anonymous memory of the process in bytes (RssAnon) when it was last read";
        registry.register_with_unit("memory_resident", help, Unit::Bytes, metrics.resident.clone());
        let help = "Subjects of tokens, and addresses of clients without one (IPv6: /64 networks), that are connected or have something stored";
        registry.register("principals", help, metrics.principals.clone());
        let help =
            "Refused requests to create a stream or to append, for lack of memory or of streams, by reason";
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
