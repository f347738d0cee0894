//! What the MQTT front counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QualityLabel {
    qos: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

/// The counters of the MQTT front. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct MqttMetrics {
    pub(crate) open: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) refused: Counter,
    pub(crate) publishes_refused: Counter,
    pub(crate) sent_again: Counter,
    pub(crate) missed: Counter,
    pub(crate) epochs_changed: Counter,
    pub(crate) expired: Counter,
    pub(crate) too_large: Counter,
    pub(crate) sessions_stored: Counter,
    pub(crate) sessions_discarded: Counter,
    delivered: [Counter; 3],
    ended: Family<ReasonLabel, Counter>,
}

impl MqttMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let refused = counter("mqtt_refused", "Connections that were refused");
        let publishes_refused = counter("mqtt_publishes_refused", "Messages of clients that were refused");
        let sent_again = counter("mqtt_sent_again", "Messages that were sent again after a reconnect");
        let missed = counter("mqtt_missed", "Messages (bytes, if not JSON) trimmed before a client got them");
        let epochs_changed =
            counter("mqtt_epochs_changed", "Streams that began anew behind a client's cursor");
        let expired = counter("mqtt_expired", "Messages that expired before a client got them");
        let too_large = counter("mqtt_too_large", "Messages too large for the packets of a client");
        let sessions_stored = counter(
            "mqtt_sessions_stored",
            "Changes of sessions that were stored, but for those with a message",
        );
        let sessions_discarded = counter(
            "mqtt_sessions_discarded",
            "Sessions of absent clients that gave way to others before their time was over",
        );
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let open = gauge("mqtt_connections", "Clients that are connected");
        let sessions = gauge("mqtt_sessions", "Sessions, of clients that are connected or away");
        let delivered = Family::<QualityLabel, Counter>::default();
        registry.register("mqtt_delivered", "Messages sent, by quality of service", delivered.clone());
        let delivered = [0, 1, 2].map(|qos| delivered.get_or_create_owned(&QualityLabel { qos }));
        let ended = Family::default();
        registry.register("mqtt_ended", "Connections that the gateway ended, by reason code", ended.clone());
        Self {
            open,
            sessions,
            refused,
            publishes_refused,
            sent_again,
            missed,
            epochs_changed,
            expired,
            too_large,
            sessions_stored,
            sessions_discarded,
            delivered,
            ended,
        }
    }

    /// A message was put on the wire with that quality of service.
    pub(crate) fn delivered(&self, qos: u8) {
        if let Some(counter) = self.delivered.get(usize::from(qos)) {
            counter.inc();
        }
    }

    /// The gateway ended a connection for the reason code.
    pub(crate) fn ended(&self, reason: u8) {
        self.ended.get_or_create(&ReasonLabel { reason: format!("0x{reason:02x}") }).inc();
    }
}
