//! [`Totals`]: what the dashboard shows of the metrics, as numbers. `/metrics` has all of them, with their help texts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;

use super::durations::Durations;
use super::live::LIVE_FORMS;
use super::{Metrics, RequestLabels, stalls};
use crate::platform;

/// The statuses with which a short poll or a long poll is answered unless it fails.
const POLL_STATUSES: [u16; 3] = [200, 204, 304];

/// Totals since the start of the gateway, and what is connected now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    /// Processor time in seconds that the process has used.
    cpu_seconds: f64,
    /// File descriptors that are open, and the maximum.
    descriptors: [Option<u64>; 2],
    connections: i64,
    connections_refused: u64,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    forms: Vec<FormTotals>,
    /// From an append to the response or event for a reader of one stream that waited for it.
    publish_to_answer: Buckets,
    /// Tasks that held a worker thread for long: how often, and the longest time in seconds.
    stalls: (u64, f64),
    store: StoreTotals,
    engine: EngineTotals,
}

/// What one delivery form has delivered.
#[derive(Debug, Serialize)]
struct FormTotals {
    form: &'static str,
    /// Readers that are connected. `None`: those of this form do not stay connected.
    open: Option<i64>,
    /// Answers, envelopes, events or messages.
    sent: u64,
}

/// A histogram of durations.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Buckets {
    /// The upper bound of the first bucket in seconds. Each further bound is twice the one before, and the last bucket has none.
    first_seconds: f64,
    counts: Vec<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreTotals {
    /// Zero for a store without files.
    file_bytes: u64,
    live_bytes: u64,
    damaged_bytes: u64,
    written_bytes: u64,
    reads_from_memory: u64,
    reads_from_disk: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EngineTotals {
    /// Zero without an engine.
    calls: u64,
    failures: u64,
    blind_partitions: u64,
    call: Buckets,
}

impl<const N: usize> From<&Durations<N>> for Buckets {
    fn from(durations: &Durations<N>) -> Self {
        let (first_seconds, counts) = durations.counts();
        Self { first_seconds, counts: counts.into() }
    }
}

impl Metrics {
    /// Takes a snapshot for the dashboard.
    pub(crate) fn totals(&self, held_polls: usize) -> Totals {
        let live = LIVE_FORMS.iter().map(|form| {
            let metrics = self.live.of(form);
            FormTotals { form, open: Some(metrics.open.get()), sent: metrics.envelopes.get() }
        });
        let mqtt_sent = self.mqtt.delivered.iter().map(Counter::get).sum();
        let xmpp_open = [&self.xmpp.clients, &self.xmpp.subscriptions].into_iter().map(Gauge::get).sum();
        let (store, engine) = (&self.store, &self.engine);
        Totals {
            cpu_seconds: platform::cpu_time().as_secs_f64(),
            descriptors: [platform::open_descriptors(), platform::descriptors_max()],
            connections: self.connections.get(),
            connections_refused: self.connections_refused.get(),
            messages_in: self.appended.messages.get(),
            messages_out: self.delivered.messages.get(),
            bytes_in: self.appended.bytes.get(),
            bytes_out: self.delivered.bytes.get(),
            forms: [
                FormTotals { form: "short-poll", open: None, sent: self.polls_answered("short-poll") },
                FormTotals {
                    form: "long-poll",
                    open: i64::try_from(held_polls).ok(),
                    sent: self.polls_answered("long-poll"),
                },
            ]
            .into_iter()
            .chain(live)
            .chain([
                FormTotals { form: "mqtt", open: Some(self.mqtt.open.get()), sent: mqtt_sent },
                FormTotals { form: "xmpp", open: Some(xmpp_open), sent: self.xmpp.notified.get() },
            ])
            .collect(),
            publish_to_answer: (&self.publish_to_answer_seconds).into(),
            stalls: stalls::totals(),
            store: StoreTotals {
                file_bytes: store.size.get(),
                live_bytes: store.live.get(),
                damaged_bytes: store.damaged.get(),
                written_bytes: store.written.get(),
                reads_from_memory: store.reads_from_memory.get(),
                reads_from_disk: store.reads_from_disk.get(),
            },
            engine: EngineTotals {
                calls: engine.call_seconds.counts().1.iter().sum(),
                failures: engine.failure_count(),
                blind_partitions: engine.blind.get(),
                call: (&engine.call_seconds).into(),
            },
        }
    }

    fn polls_answered(&self, form: &'static str) -> u64 {
        let count =
            |status| self.requests.get(&RequestLabels { form, status }).map_or(0, |count| count.get());
        POLL_STATUSES.into_iter().map(count).sum()
    }
}
