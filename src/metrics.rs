//! What Prometheus scrapes, and the counters behind it.

mod durations;
mod memory;
mod mqtt;
mod stalls;
mod store;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use durations::Durations;
use memory::MemoryMetrics;

pub use memory::MemoryCounts;

pub(crate) use prometheus_client::metrics::counter::Counter;

pub(crate) use mqtt::MqttMetrics;
pub(crate) use stalls::stall_timed;
pub(crate) use store::StoreMetrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    form: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FormLabel {
    form: &'static str,
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

/// Answered requests of one form and status. The requests that are answered most often have one of their own, so that
/// counting them takes no lock.
#[derive(Debug, Clone)]
pub(crate) struct Answered(Counter);

impl Answered {
    pub(crate) fn count(&self) {
        self.0.inc();
    }
}

/// Messages that went one way, and their bytes.
#[derive(Debug, Clone, Default)]
struct Passed {
    messages: Counter,
    bytes: Counter,
}

impl Passed {
    fn count(&self, messages: u64, bytes: usize) {
        self.messages.inc_by(messages);
        self.bytes.inc_by(bytes as u64);
    }
}

/// What `Counts` says, as it was when the metrics were scraped last.
#[derive(Debug, Default)]
struct Gauges {
    streams: Size,
    watched_streams: Size,
    waiters: Size,
    held_polls: Size,
    subscribers: Size,
    subscriptions: Size,
}

type Size = Gauge<u64, AtomicU64>;

/// All metrics of a gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    hold_seconds: Durations<18>,
    publish_to_answer_seconds: Durations<19>,
    appended: Passed,
    delivered: Passed,
    gauges: Gauges,
    live: LiveFamilies,
    mqtt: MqttMetrics,
    store: StoreMetrics,
    memory: MemoryMetrics,
    follower_wakes: Counter,
    takeovers_delayed: Family<KindLabel, Counter>,
    connections: Gauge,
    connections_refused: Counter,
    accept_errors: Counter,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pollgate");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Requests answered, by form and status", requests.clone());

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
        let passed = |kind| Passed {
            messages: messages.get_or_create_owned(&KindLabel { kind }),
            bytes: bytes.get_or_create_owned(&KindLabel { kind }),
        };
        let (appended, delivered) = (passed("in"), passed("out"));

        let live = LiveFamilies::register(&mut registry);
        let mqtt = MqttMetrics::register(&mut registry);
        let store = StoreMetrics::register(&mut registry);
        let memory = MemoryMetrics::register(&mut registry);
        let gauges = Gauges::register(&mut registry);
        stalls::register(&mut registry);
        let follower_wakes = Counter::default();
        let help = "How often a reader of many streams woke because some had changed";
        registry.register("follower_wakes", help, follower_wakes.clone());
        let takeovers_delayed = Family::default();
        let help =
            "Takeovers that were delayed since programs with the same client id take over from each other";
        registry.register("takeovers_delayed", help, takeovers_delayed.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let connections_refused = Counter::default();
        registry.register("connections_refused", "Connections answered 503", connections_refused.clone());
        let accept_errors = Counter::default();
        registry.register("accept_errors", "Connections that could not be accepted", accept_errors.clone());

        Self {
            registry,
            requests,
            hold_seconds,
            publish_to_answer_seconds,
            appended,
            delivered,
            gauges,
            live,
            mqtt,
            store,
            memory,
            follower_wakes,
            takeovers_delayed,
            connections,
            connections_refused,
            accept_errors,
        }
    }

    /// The exposition text, with what the hub counts now.
    pub fn text(&self, counts: Counts, memory: &MemoryCounts) -> String {
        self.gauges.set(counts);
        self.memory.set(memory);
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }

    /// The answered requests of a form and status.
    pub(crate) fn answered(&self, form: &'static str, status: u16) -> Answered {
        Answered(self.requests.get_or_create_owned(&RequestLabels { form, status }))
    }

    /// The counters of a live form.
    pub(crate) fn live(&self, form: &'static str) -> LiveMetrics {
        self.live.of(form)
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
        self.appended.count(messages, bytes);
    }

    pub(crate) fn messages_out(&self, messages: u64, bytes: usize) {
        self.delivered.count(messages, bytes);
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

    /// The delayed takeovers of one kind.
    pub(crate) fn takeovers_delayed(&self, kind: &'static str) -> Counter {
        self.takeovers_delayed.get_or_create_owned(&KindLabel { kind })
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

impl Gauges {
    fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        for (name, help, gauge) in [
            ("streams", "Streams that exist", &gauges.streams),
            (
                "watched_streams",
                "Streams that somebody waits for or subscribes to by name",
                &gauges.watched_streams,
            ),
            ("waiters", "Tasks that sleep until a stream moves", &gauges.waiters),
            ("held_polls", "Long polls that wait", &gauges.held_polls),
            ("subscribers", "Clients that subscribe to streams", &gauges.subscribers),
            ("subscriptions", "Filters of those", &gauges.subscriptions),
        ] {
            registry.register(name, help, gauge.clone());
        }
        gauges
    }

    fn set(&self, counts: Counts) {
        let Counts { streams, watched_streams, waiters, held_polls, subscribers, subscriptions } = counts;
        self.streams.set(streams as u64);
        self.watched_streams.set(watched_streams as u64);
        self.waiters.set(waiters as u64);
        self.held_polls.set(held_polls as u64);
        self.subscribers.set(subscribers as u64);
        self.subscriptions.set(subscriptions as u64);
    }
}

/// The counters of all live forms.
#[derive(Debug, Default)]
struct LiveFamilies {
    open: Family<FormLabel, Gauge>,
    envelopes: Family<FormLabel, Counter>,
    bytes: Family<FormLabel, Counter>,
    heartbeats: Family<FormLabel, Counter>,
    cut: Family<FormLabel, Counter>,
}

impl LiveFamilies {
    fn register(registry: &mut Registry) -> Self {
        let families = Self::default();
        registry.register("live_connections", "Readers in a live form", families.open.clone());
        for (name, help, family) in [
            ("live_envelopes", "Envelopes and events sent in a live form", &families.envelopes),
            ("live_bytes", "Bytes of those", &families.bytes),
            ("live_heartbeats", "Envelopes and events that only showed life", &families.heartbeats),
            ("live_cut", "Readers that were cut because they did not read", &families.cut),
        ] {
            registry.register(name, help, family.clone());
        }
        families
    }

    fn of(&self, form: &'static str) -> LiveMetrics {
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
