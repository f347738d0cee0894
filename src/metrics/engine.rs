//! The metrics of a store in an engine, such as Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::durations::Durations;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    kind: &'static str,
}

/// The metrics of a store in an engine.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    calls: Family<CallLabel, Counter>,
    pub(super) call_seconds: Durations<20>,
    failures: Family<CallLabel, Counter>,
    /// The failures of all kinds.
    failure_count: Arc<AtomicU64>,
    redirections: Counter,
    call_appends: Histogram,
    news: Counter,
    hot_reads: Counter,
    news_lag_seconds: Durations<20>,
    healed: Family<CallLabel, Counter>,
    pub(super) blind: Gauge<u64, AtomicU64>,
}

impl Default for EngineMetrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            call_seconds: Durations::from(Duration::from_micros(50)),
            failures: Family::default(),
            failure_count: Arc::default(),
            redirections: Counter::default(),
            call_appends: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
            news: Counter::default(),
            hot_reads: Counter::default(),
            news_lag_seconds: Durations::from(Duration::from_micros(50)),
            healed: Family::default(),
            blind: Gauge::default(),
        }
    }
}

impl EngineMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "engine_calls",
            "Calls of the engine that stores the streams, by the function that was called",
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "engine_call",
            "Time in seconds from a call of the engine to its answer or failure, redirections included",
            Unit::Seconds,
            metrics.call_seconds.clone(),
        );
        registry.register(
            "engine_failures",
            "Failed calls of the engine: no connection, no answer in time (timeout), keys on the way to another server (moving), the \
             engine still reads its files (loading), its memory is full (full), or it refused the call (refused)",
            metrics.failures.clone(),
        );
        registry.register(
            "engine_redirections",
            "Calls of the engine that were sent again, because another server had the keys or they were being moved",
            metrics.redirections.clone(),
        );
        registry.register(
            "engine_call_appends",
            "Appends per call of the engine that appends",
            metrics.call_appends.clone(),
        );
        registry.register(
            "engine_news",
            "Messages from the engine that a stream has changed, of all gateways",
            metrics.news.clone(),
        );
        registry.register(
            "engine_hot_reads",
            "Reads that were answered from the news of the engine, without a call",
            metrics.hot_reads.clone(),
        );
        registry.register_with_unit(
            "engine_news_lag",
            "Time in seconds that the news of the engine are behind, measured by a PING on their connections every ten seconds",
            Unit::Seconds,
            metrics.news_lag_seconds.clone(),
        );
        registry.register(
            "engine_news_healed",
            "Times that the tails of streams were read because their news may have been lost: a new connection (connection), or a \
             partition that has moved to another server (moved)",
            metrics.healed.clone(),
        );
        registry.register(
            "engine_news_blind_partitions",
            "Partitions of the streams whose news the gateway does not get at the moment",
            metrics.blind.clone(),
        );
        metrics
    }

    /// Counts a finished call, and the kind of its failure.
    pub(crate) fn called(&self, function: &'static str, took: Duration, failure: Option<&'static str>) {
        self.calls.get_or_create(&CallLabel { kind: function }).inc();
        self.call_seconds.observe(took);
        if let Some(kind) = failure {
            self.failures.get_or_create(&CallLabel { kind }).inc();
            self.failure_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Failed calls of all kinds.
    pub(super) fn failure_count(&self) -> u64 {
        self.failure_count.load(Ordering::Relaxed)
    }

    pub(crate) fn redirected(&self) {
        self.redirections.inc();
    }

    pub(crate) fn appended(&self, appends: usize) {
        self.call_appends.observe(appends as f64);
    }

    pub(crate) fn heard(&self) {
        self.news.inc();
    }

    pub(crate) fn answered_hot(&self) {
        self.hot_reads.inc();
    }

    pub(crate) fn lagged(&self, lag: Duration) {
        self.news_lag_seconds.observe(lag);
    }

    pub(crate) fn healed(&self, cause: &'static str) {
        self.healed.get_or_create(&CallLabel { kind: cause }).inc();
    }

    pub(crate) fn set_blind(&self, partitions: usize) {
        self.blind.set(partitions as u64);
    }
}
