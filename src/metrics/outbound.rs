//! The metrics of requests that the gateway sends itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::durations::Durations;

/// Destinations with a label of their own. Further ones, which strangers choose, share the label `other`.
const DESTINATIONS_MAX: usize = 64;

/// The longest label, in bytes.
const LABEL_BYTES_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutboundLabels {
    /// What the request is for, such as `webhook`.
    purpose: &'static str,
    destination: String,
    outcome: &'static str,
}

/// Counts requests to other servers. Clones share the counts.
#[derive(Debug, Clone)]
pub struct OutboundMetrics {
    requests: Family<OutboundLabels, Counter>,
    seconds: Durations<18>,
    destinations: Arc<Mutex<HashSet<String>>>,
}

impl OutboundMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests = Family::default();
        registry.register(
            "outbound_requests",
            "Requests sent to other servers, by purpose, host and outcome; hosts beyond the first 64 count as `other`",
            requests.clone(),
        );
        let seconds = Durations::from(Duration::from_millis(1));
        registry.register_with_unit(
            "outbound_request",
            "Time from the lookup of a host to the last byte of its response",
            Unit::Seconds,
            seconds.clone(),
        );
        Self { requests, seconds, destinations: Arc::default() }
    }

    /// Counts a request to a destination.
    pub fn requested(&self, purpose: &'static str, destination: &str, outcome: &'static str) {
        let destination = self.label(destination);
        self.requests.get_or_create(&OutboundLabels { purpose, destination, outcome }).inc();
    }

    /// Notes how long an exchange took.
    pub fn took(&self, time: Duration) {
        self.seconds.observe(time);
    }

    pub(super) fn label(&self, destination: &str) -> String {
        let mut known = self.destinations.lock();
        let is_known = known.contains(destination);
        if !is_known && (known.len() >= DESTINATIONS_MAX || destination.len() > LABEL_BYTES_MAX) {
            return "other".to_owned();
        }
        if !is_known {
            known.insert(destination.to_owned());
        }
        destination.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_make_labels_without_end() {
        let metrics = OutboundMetrics::register(&mut Registry::default());
        for number in 0..1000 {
            metrics.requested("webhook", &format!("h{number}.example"), "ok");
        }
        metrics.requested("webhook", &"x".repeat(200), "ok");
        assert_eq!(metrics.label("h1.example"), "h1.example");
        assert_eq!(metrics.label("h999.example"), "other");
    }
}
