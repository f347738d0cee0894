//! What Prometheus scrapes, and the counters behind it.

mod durations;
mod mqtt;
mod store;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use durations::Durations;

pub(crate) use mqtt::MqttMetrics;
pub(crate) use store::StoreMetrics;

/// Which way a request took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Form {
    /// PUT.
    Create,
    /// POST.
    Append,
    /// GET without `live`.
    ShortPoll,
    /// GET with `live=long-poll`.
    LongPoll,
    /// GET with `live=sse`.
    Sse,
    /// GET with `live=ndjson`.
    Ndjson,
    /// GET with `live=websocket`.
    WebSocket,
    /// A WebSocket for MQTT.
    Mqtt,
    /// The page or the JavaScript client.
    File,
    /// HEAD.
    Head,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Preflight,
    /// Anything else.
    Other,
}

impl Form {
    /// As it is written in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Append => "append",
            Self::ShortPoll => "short-poll",
            Self::LongPoll => "long-poll",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::WebSocket => "websocket",
            Self::Mqtt => "mqtt",
            Self::File => "file",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::Preflight => "preflight",
            Self::Other => "other",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    form: Form,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FormLabel {
    form: Form,
}

/// The counters of one live form. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveMetrics {
    pub(crate) open: Gauge,
    pub(crate) envelopes: Counter,
    pub(crate) bytes: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) cut: Counter,
}

/// What the hub counts at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Streams that exist.
    pub streams: usize,
    /// Streams that somebody waits for or subscribes to by name.
    pub watched_streams: usize,
    /// Tasks that sleep until a stream moves.
    pub waiters: usize,
    /// Long polls that wait.
    pub held_polls: usize,
    /// Clients that subscribe.
    pub subscribers: usize,
    /// Their filters.
    pub subscriptions: usize,
}

/// All metrics of a gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    /// The counters of the answers that are given most often, found without a lock.
    frequent: [(RequestLabels, Counter); FREQUENT.len()],
    hold_seconds: Durations<18>,
    publish_to_answer_seconds: Durations<19>,
    messages: [Counter; 2],
    bytes: [Counter; 2],
    gauges: [Gauge<u64, AtomicU64>; 6],
    live: [(Form, LiveMetrics); 3],
    mqtt: MqttMetrics,
    store: StoreMetrics,
    follower_wakes: Counter,
    connections: Gauge,
    connections_refused: Counter,
    accept_errors: Counter,
}

const FREQUENT: [(Form, u16); 5] = [
    (Form::ShortPoll, 200),
    (Form::LongPoll, 200),
    (Form::LongPoll, 204),
    (Form::Append, 204),
    (Form::Append, 200),
];

const IN: usize = 0;
const OUT: usize = 1;

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pollgate");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Requests answered, by form and status", requests.clone());

        let frequent = FREQUENT.map(|(form, status)| {
            let labels = RequestLabels { form, status };
            (labels.clone(), requests.get_or_create_owned(&labels))
        });

        let hold_seconds = Durations::from(Duration::from_millis(1));
        registry.register_with_unit("hold", "How long polls were held", Unit::Seconds, hold_seconds.clone());
        let publish_to_answer_seconds = Durations::from(Duration::from_micros(10));
        let help = "From the append to the answer of a reader that waited for it";
        registry.register_with_unit(
            "publish_to_answer",
            help,
            Unit::Seconds,
            publish_to_answer_seconds.clone(),
        );

        let messages = Family::<KindLabel, Counter>::default();
        registry.register("messages", "Messages appended (in) and delivered (out)", messages.clone());
        let bytes = Family::<KindLabel, Counter>::default();
        registry.register_with_unit("message", "Bytes of those messages", Unit::Bytes, bytes.clone());
        let both = |family: &Family<KindLabel, Counter>| {
            ["in", "out"].map(|kind| family.get_or_create_owned(&KindLabel { kind }))
        };

        let live = live_metrics(&mut registry);
        let mqtt = MqttMetrics::register(&mut registry);
        let store = StoreMetrics::register(&mut registry);
        let gauges = [
            ("streams", "Streams that exist"),
            ("watched_streams", "Streams that somebody waits for or subscribes to by name"),
            ("waiters", "Tasks that sleep until a stream moves"),
            ("held_polls", "Long polls that wait"),
            ("subscribers", "Clients that subscribe to streams"),
            ("subscriptions", "Filters of those"),
        ]
        .map(|(name, help)| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        });
        let follower_wakes = Counter::default();
        let help = "How often a reader of many streams woke because some had changed";
        registry.register("follower_wakes", help, follower_wakes.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let connections_refused = Counter::default();
        registry.register("connections_refused", "Connections answered 503", connections_refused.clone());
        let accept_errors = Counter::default();
        registry.register("accept_errors", "Connections that could not be accepted", accept_errors.clone());

        let (messages, bytes) = (both(&messages), both(&bytes));
        Self {
            registry,
            requests,
            frequent,
            hold_seconds,
            publish_to_answer_seconds,
            messages,
            bytes,
            gauges,
            live,
            mqtt,
            store,
            follower_wakes,
            connections,
            connections_refused,
            accept_errors,
        }
    }

    /// The exposition text, with what the hub counts now.
    pub fn text(&self, counts: Counts) -> String {
        let Counts { streams, watched_streams, waiters, held_polls, subscribers, subscriptions } = counts;
        let counts = [streams, watched_streams, waiters, held_polls, subscribers, subscriptions];
        for (gauge, count) in self.gauges.iter().zip(counts) {
            gauge.set(count as u64);
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }

    /// A request was answered.
    pub fn request(&self, form: Form, status: u16) {
        let labels = RequestLabels { form, status };
        match self.frequent.iter().find(|(frequent, _)| *frequent == labels) {
            Some((_, counter)) => counter.inc(),
            None => self.requests.get_or_create(&labels).inc(),
        };
    }

    /// The counters of a live form.
    pub(crate) fn live(&self, form: Form) -> LiveMetrics {
        let known = self.live.iter().find(|(known, _)| *known == form);
        known.map(|(_, metrics)| metrics.clone()).unwrap_or_default()
    }

    /// The counters of the MQTT front.
    pub(crate) fn mqtt(&self) -> &MqttMetrics {
        &self.mqtt
    }

    /// The metrics of a store on disk.
    pub(crate) fn store(&self) -> &StoreMetrics {
        &self.store
    }

    pub(crate) fn messages_in(&self, messages: u64, bytes: usize) {
        self.count(IN, messages, bytes);
    }

    pub(crate) fn messages_out(&self, messages: u64, bytes: usize) {
        self.count(OUT, messages, bytes);
    }

    fn count(&self, way: usize, messages: u64, bytes: usize) {
        if let (Some(counter), Some(byte_counter)) = (self.messages.get(way), self.bytes.get(way)) {
            counter.inc_by(messages);
            byte_counter.inc_by(bytes as u64);
        }
    }

    pub(crate) fn held_poll_answered(&self, since: Instant, published: Option<Instant>) {
        let now = Instant::now();
        self.hold_seconds.observe(now.duration_since(since));
        if let Some(published) = published {
            self.publish_to_answer_seconds.observe(now.duration_since(published));
        }
    }

    pub(crate) fn published_to_answer(&self, published: Option<Instant>) {
        if let Some(published) = published {
            self.publish_to_answer_seconds.observe(published.elapsed());
        }
    }

    /// A reader of many streams woke.
    pub(crate) fn follower_woken(&self) {
        self.follower_wakes.inc();
    }

    /// A connection was opened; it is counted until the guard is dropped.
    pub(crate) fn connection(&self) -> ConnectionGuard {
        self.connections.inc();
        ConnectionGuard(self.connections.clone())
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub(crate) fn accept_error(&self) {
        self.accept_errors.inc();
    }
}

fn live_metrics(registry: &mut Registry) -> [(Form, LiveMetrics); 3] {
    let open = Family::<FormLabel, Gauge>::default();
    registry.register("live_connections", "Readers in a live form", open.clone());
    let mut counters = |name, help| {
        let family = Family::<FormLabel, Counter>::default();
        registry.register(name, help, family.clone());
        family
    };
    let envelopes = counters("live_envelopes", "Envelopes and events sent in a live form");
    let bytes = counters("live_bytes", "Bytes of those");
    let heartbeats = counters("live_heartbeats", "Envelopes and events that only showed life");
    let cut = counters("live_cut", "Readers that were cut because they did not read");
    [Form::Sse, Form::Ndjson, Form::WebSocket].map(|form| {
        let label = FormLabel { form };
        let metrics = LiveMetrics {
            open: open.get_or_create_owned(&label),
            envelopes: envelopes.get_or_create_owned(&label),
            bytes: bytes.get_or_create_owned(&label),
            heartbeats: heartbeats.get_or_create_owned(&label),
            cut: cut.get_or_create_owned(&label),
        };
        (form, metrics)
    })
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
