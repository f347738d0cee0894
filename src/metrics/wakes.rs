//! The metrics of devices and their wakes.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    provider: &'static str,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabel {
    provider: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiptLabels {
    provider: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SuppressedLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceStateLabel {
    state: &'static str,
}

/// Counters and gauges of devices. Clones share them. The providers are kinds, whose number is small.
#[derive(Debug, Clone)]
pub(crate) struct WakeMetrics {
    wakes: Family<VerdictLabels, Counter>,
    polls: Family<ProviderLabel, Counter>,
    to_poll_seconds: Family<ProviderLabel, Histogram>,
    suppressed: Family<SuppressedLabel, Counter>,
    alarms: Family<ProviderLabel, Counter>,
    receipts: Family<ReceiptLabels, Counter>,
    devices: Family<DeviceStateLabel, Gauge<u64, AtomicU64>>,
}

/// The states of devices, in the order of [`Counts`](super::Counts).
const STATES: [&str; 4] = ["connected", "woken", "pending", "asleep"];

/// Buckets from 50 ms to 7 hours.
fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.05, 2.0, 20))
}

impl WakeMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let wakes = Family::default();
        registry.register(
            "wakes",
            "Wakes sent to devices, by provider and by what the provider answered",
            wakes.clone(),
        );
        let polls = Family::default();
        registry.register(
            "wake_polls",
            "Wakes that a poll of the device followed, by provider",
            polls.clone(),
        );
        let to_poll_seconds = Family::new_with_constructor(buckets as fn() -> Histogram);
        registry.register_with_unit(
            "wake_to_poll",
            "Time in seconds from a wake that a provider accepted to the next poll of the device",
            Unit::Seconds,
            to_poll_seconds.clone(),
        );
        let suppressed = Family::default();
        registry.register(
            "wakes_suppressed",
            "Wakes that were not sent, or not yet, by reason",
            suppressed.clone(),
        );
        let alarms = Family::default();
        let help = "Times that a provider called all devices gone, of which none is removed then";
        registry.register("wake_alarms", help, alarms.clone());
        let receipts = Family::default();
        registry.register(
            "wake_receipts",
            "Receipts for wakes that a provider has accepted, by provider and by what became of the wake",
            receipts.clone(),
        );
        let devices = Family::default();
        registry.register("devices", "Registered devices, by state", devices.clone());
        Self { wakes, polls, to_poll_seconds, suppressed, alarms, receipts, devices }
    }

    /// A provider has answered a wake.
    pub(crate) fn answered(&self, provider: &'static str, verdict: &'static str) {
        self.wakes.get_or_create(&VerdictLabels { provider, verdict }).inc();
    }

    /// A poll has followed a wake.
    pub(crate) fn confirmed(&self, provider: &'static str, took: Duration) {
        self.polls.get_or_create(&ProviderLabel { provider }).inc();
        self.to_poll_seconds.get_or_create(&ProviderLabel { provider }).observe(took.as_secs_f64());
    }

    /// A provider tells what became of a wake that it had accepted.
    pub(crate) fn receipt(&self, provider: &'static str, state: &'static str) {
        self.receipts.get_or_create(&ReceiptLabels { provider, state }).inc();
    }

    /// A device is not woken, or not yet.
    pub(crate) fn suppressed(&self, reason: &'static str) {
        self.suppressed.get_or_create(&SuppressedLabel { reason }).inc();
    }

    /// A provider calls all devices gone.
    pub(crate) fn alarm(&self, provider: &'static str) {
        self.alarms.get_or_create(&ProviderLabel { provider }).inc();
    }

    pub(super) fn count(&self, devices: [usize; 4]) {
        for (state, count) in STATES.into_iter().zip(devices) {
            self.devices.get_or_create(&DeviceStateLabel { state }).set(count as u64);
        }
    }
}
