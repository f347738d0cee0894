//! The metrics of the MQTT front.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QosLabel {
    qos: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

/// Counters and gauges of the MQTT front. Clones share them.
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
    pub(super) delivered: [Counter; 3],
    ended: Family<ReasonLabel, Counter>,
}

impl MqttMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let refused = counter("mqtt_refused", "MQTT connections refused during their handshake");
        let publishes_refused = counter(
            "mqtt_publishes_refused",
            "Messages published by MQTT clients and refused; without a reason code for the client they are dropped, or its connection ends",
        );
        let sent_again = counter("mqtt_sent_again", "Messages sent again to MQTT clients after a reconnect");
        let missed = counter(
            "mqtt_missed",
            "Messages (JSON) or bytes (other content) trimmed or damaged before an MQTT client got them",
        );
        let epochs_changed = counter(
            "mqtt_epochs_changed",
            "Times that the offset of an MQTT client was from another epoch of the stream",
        );
        let expired = counter(
            "mqtt_expired",
            "Messages not sent to an MQTT client because their expiry interval was over",
        );
        let too_large = counter(
            "mqtt_too_large",
            "Messages not sent because they exceed the maximum packet size of an MQTT client",
        );
        let sessions_stored = counter(
            "mqtt_sessions_stored",
            "Changes of MQTT sessions written to the store, except those written together with a message",
        );
        let sessions_discarded = counter(
            "mqtt_sessions_discarded",
            "Sessions of disconnected MQTT clients ended before their expiry to make room for others",
        );
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let open = gauge("mqtt_connections", "Connected MQTT clients");
        let sessions = gauge("mqtt_sessions", "MQTT sessions of connected and disconnected clients");
        let delivered = Family::<QosLabel, Counter>::default();
        registry.register(
            "mqtt_delivered",
            "Messages sent to MQTT clients, without repetitions, by QoS",
            delivered.clone(),
        );
        let delivered = [0, 1, 2].map(|qos| delivered.get_or_create_owned(&QosLabel { qos }));
        let ended = Family::default();
        registry.register(
            "mqtt_ended",
            "MQTT connections ended by the gateway, by reason code",
            ended.clone(),
        );
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

    /// Counts a message sent with this QoS.
    pub(crate) fn delivered(&self, qos: u8) {
        if let Some(counter) = self.delivered.get(usize::from(qos)) {
            counter.inc();
        }
    }

    /// Counts a connection that the gateway ended with this reason code.
    pub(crate) fn ended(&self, reason: u8) {
        self.ended.get_or_create(&ReasonLabel { reason: format!("0x{reason:02x}") }).inc();
    }
}
