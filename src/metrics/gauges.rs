//! The gauges that only the hub knows, as it reports them at a scrape.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Snapshot of the gauges of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Existing streams.
    pub streams: usize,
    /// Streams with waiting readers or subscribers by name.
    pub watched_streams: usize,
    /// Waiters registered on streams, one per waiting reader of a single stream.
    pub waiters: usize,
    /// Long polls that are held.
    pub held_polls: usize,
    /// Connected clients that can subscribe to streams (MQTT).
    pub subscribers: usize,
    /// Topic filters of all subscribers, and streams that reads of many streams wait for.
    pub subscriptions: usize,
    /// Devices that are connected, woken, pending, and asleep.
    pub devices: [usize; 4],
}

/// The values of [`Counts`] at the last scrape.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    streams: Size,
    watched_streams: Size,
    waiters: Size,
    held_polls: Size,
    subscribers: Size,
    subscriptions: Size,
}

type Size = Gauge<u64, AtomicU64>;

impl Gauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        for (name, help, gauge) in [
            ("streams", "Existing streams", &gauges.streams),
            (
                "watched_streams",
                "Streams with waiting readers or subscribers by name",
                &gauges.watched_streams,
            ),
            (
                "waiters",
                "Waiters registered on streams, one per waiting reader of a single stream",
                &gauges.waiters,
            ),
            ("held_polls", "Long polls that are held", &gauges.held_polls),
            (
                "subscribers",
                "Connected MQTT clients, which can subscribe to streams, and subscriptions with workers",
                &gauges.subscribers,
            ),
            (
                "subscriptions",
                "Topic filters of all subscribers, and streams that reads of many streams wait for",
                &gauges.subscriptions,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        gauges
    }

    pub(super) fn set(&self, counts: Counts) {
        let Counts { streams, watched_streams, waiters, held_polls, subscribers, subscriptions, .. } = counts;
        self.streams.set(streams as u64);
        self.watched_streams.set(watched_streams as u64);
        self.waiters.set(waiters as u64);
        self.held_polls.set(held_polls as u64);
        self.subscribers.set(subscribers as u64);
        self.subscriptions.set(subscriptions as u64);
    }
}
