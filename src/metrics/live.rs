//! The metrics of the live delivery forms: SSE, NDJSON and WebSocket.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FormLabel {
    form: &'static str,
}

/// Counters of one live delivery form (SSE, NDJSON or WebSocket). Clones share the counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveMetrics {
    /// Readers that are connected.
    pub(crate) open: Gauge,
    /// Envelopes and events sent, heartbeats included.
    pub(crate) envelopes: Counter,
    /// Bytes of these envelopes and events.
    pub(crate) bytes: Counter,
    /// Envelopes and events sent only as heartbeats.
    pub(crate) heartbeats: Counter,
    /// Readers that were disconnected because they did not read.
    pub(crate) cut: Counter,
}

/// The names of the live delivery forms.
pub(super) const LIVE_FORMS: [&str; 3] = ["sse", "ndjson", "websocket"];

/// The counters of all live delivery forms.
#[derive(Debug, Default)]
pub(super) struct LiveFamilies {
    open: Family<FormLabel, Gauge>,
    envelopes: Family<FormLabel, Counter>,
    bytes: Family<FormLabel, Counter>,
    heartbeats: Family<FormLabel, Counter>,
    cut: Family<FormLabel, Counter>,
}

impl LiveFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self::default();
        registry.register(
            "live_connections",
            "Readers connected in a live delivery form, by form",
            families.open.clone(),
        );
        for (name, help, family) in [
            (
                "live_envelopes",
                "Envelopes and events sent in live delivery forms, heartbeats included, by form",
                &families.envelopes,
            ),
            (
                "live_bytes",
                "Bytes of envelopes and events sent in live delivery forms, by form",
                &families.bytes,
            ),
            (
                "live_heartbeats",
                "Heartbeats: envelopes and events sent without messages in live delivery forms, by form",
                &families.heartbeats,
            ),
            (
                "live_cut",
                "Readers disconnected because they did not read their live delivery form in time, by form",
                &families.cut,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        families
    }

    /// The readers that are connected in any form.
    pub(super) fn open(&self) -> i64 {
        LIVE_FORMS.iter().map(|form| self.open.get_or_create(&FormLabel { form }).get()).sum()
    }

    pub(super) fn of(&self, form: &'static str) -> LiveMetrics {
        let label = FormLabel { form };
        LiveMetrics {
            open: self.open.get_or_create_owned(&label),
            envelopes: self.envelopes.get_or_create_owned(&label),
            bytes: self.bytes.get_or_create_owned(&label),
            heartbeats: self.heartbeats.get_or_create_owned(&label),
            cut: self.cut.get_or_create_owned(&label),
        }
    }
}
