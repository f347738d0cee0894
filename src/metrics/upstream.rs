//! The metrics of an edge, which follows the streams of an upstream gateway.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

/// The metrics of an edge. Clones share them.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    requests: Family<OperationLabel, Counter>,
    reachable: Gauge,
    pub(crate) followed: Gauge<u64, AtomicU64>,
    pub(crate) subscriptions: Gauge<u64, AtomicU64>,
    pub(crate) kept: Gauge<u64, AtomicU64>,
    pub(crate) reads_from_mirror: Counter,
    pub(crate) messages: Counter,
}

impl UpstreamMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            reachable: Gauge::default(),
            followed: Gauge::default(),
            subscriptions: Gauge::default(),
            kept: Gauge::default(),
            reads_from_mirror: Counter::default(),
            messages: Counter::default(),
        };
        let help = "Requests to the upstream gateway by operation, without the subscriptions to it";
        registry.register("upstream_requests", help, metrics.requests.clone());
        let help = "Whether the last request to the upstream gateway was answered (1) or not (0)";
        registry.register("upstream_reachable", help, metrics.reachable.clone());
        let help = "Streams of the upstream gateway that this gateway follows";
        registry.register("upstream_followed_streams", help, metrics.followed.clone());
        let help = "Subscriptions to the upstream gateway, each a connection for up to 1000 streams";
        registry.register("upstream_subscriptions", help, metrics.subscriptions.clone());
        let help = "Bytes of messages of the upstream gateway that are kept in memory";
        registry.register_with_unit("upstream_kept", help, Unit::Bytes, metrics.kept.clone());
        let help = "Reads of streams of the upstream gateway that were answered from memory";
        registry.register("upstream_reads_from_memory", help, metrics.reads_from_mirror.clone());
        let help = "Messages received by subscriptions to the upstream gateway";
        registry.register("upstream_messages", help, metrics.messages.clone());
        metrics
    }

    /// Counts a request to the upstream gateway.
    pub(crate) fn asked(&self, operation: &'static str) {
        self.requests.get_or_create(&OperationLabel { operation }).inc();
    }

    /// Sets whether the upstream gateway answers.
    pub(crate) fn reachable(&self, is_reachable: bool) {
        self.reachable.set(is_reachable.into());
    }
}
