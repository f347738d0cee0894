//! The metrics of origins, by host.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::outbound::OutboundMetrics;

/// The purpose of the requests among those to other servers.
const PURPOSE: &str = "origin";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostLabel {
    destination: String,
}

/// The metrics of origins. Clones share them.
#[derive(Debug, Clone)]
pub struct OriginMetrics {
    outbound: OutboundMetrics,
    origins: Gauge,
    up: Family<HostLabel, Gauge>,
    answered: Family<HostLabel, Gauge<f64, AtomicU64>>,
}

impl OriginMetrics {
    /// Requests are counted among those in `outbound`.
    pub(super) fn register(registry: &mut Registry, outbound: &OutboundMetrics) -> Self {
        let (origins, up, answered) = Default::default();
        let metrics = Self { outbound: outbound.clone(), origins, up, answered };
        registry.register("origins", "Streams that are filled from an origin", metrics.origins.clone());
        let help = "Whether the last request to a host of origins succeeded (1) or failed (0)";
        registry.register("origin_up", help, metrics.up.clone());
        let help = "Time of day, in seconds since 1970, at which a host of origins last answered";
        registry.register("origin_answered_timestamp_seconds", help, metrics.answered.clone());
        metrics
    }

    /// Counts an origin more.
    pub fn added(&self) {
        self.origins.inc();
    }

    /// Counts an origin less.
    pub fn removed(&self) {
        self.origins.dec();
    }

    /// Counts a request that has succeeded.
    pub fn answered(&self, host: &str, is_new: bool, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let label = HostLabel { destination: self.outbound.label(host) };
        self.up.get_or_create(&label).set(1);
        self.answered.get_or_create(&label).set(since.as_secs_f64());
        self.outbound.requested(PURPOSE, host, if is_new { "new" } else { "unchanged" });
    }

    /// Counts a request that has failed.
    pub fn failed(&self, host: &str, outcome: &'static str) {
        self.up.get_or_create(&HostLabel { destination: self.outbound.label(host) }).set(0);
        self.outbound.requested(PURPOSE, host, outcome);
    }
}
