//! [`Metrics`]: the counters, gauges and histograms of one gateway, and their exposition as OpenMetrics text.
//!
//! Counters are incremented where the counted thing happens. Gauges that only the hub knows come as
//! [`Counts`] and [`MemoryCounts`] when the text is requested.

mod durations;
mod engine;
mod gauges;
mod live;
mod memory;
mod mqtt;
mod origins;
mod outbound;
mod overview;
mod process;
mod stalls;
mod store;
mod tenants;
mod upstream;
mod wakes;
mod xmpp;

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use durations::Durations;
use gauges::Gauges;
use live::LiveFamilies;
use memory::MemoryMetrics;
use tenants::{MessageCounters, TenantMetrics};

pub use engine::EngineMetrics;
pub use gauges::Counts;
pub use memory::MemoryCounts;
pub use tenants::TenantUsage;

pub(crate) use prometheus_client::metrics::counter::Counter;

pub(crate) use live::LiveMetrics;
pub(crate) use mqtt::MqttMetrics;
pub use origins::OriginMetrics;
pub use outbound::OutboundMetrics;
pub(crate) use overview::Totals;
pub(crate) use stalls::stall_timed;
pub(crate) use store::StoreMetrics;
pub(crate) use tenants::TenantPlace;
pub use upstream::UpstreamMetrics;
pub(crate) use wakes::WakeMetrics;
pub(crate) use xmpp::XmppMetrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    form: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Counter of answered requests of one form and status. Callers keep the counters of frequent combinations, so
/// that counting takes no lock.
#[derive(Debug, Clone)]
pub(crate) struct Answered(Counter);

impl Answered {
    pub(crate) fn count(&self) {
        self.0.inc();
    }
}

/// All metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The metrics of the process, whose names do not begin with `pollgate_`.
    process: Registry,
    requests: Family<RequestLabels, Counter>,
    hold_seconds: Durations<18>,
    publish_to_answer_seconds: Durations<19>,
    appended: MessageCounters,
    delivered: MessageCounters,
    gauges: Gauges,
    live: LiveFamilies,
    mqtt: MqttMetrics,
    origins: OriginMetrics,
    outbound: OutboundMetrics,
    store: StoreMetrics,
    upstream: UpstreamMetrics,
    engine: EngineMetrics,
    wakes: WakeMetrics,
    xmpp: XmppMetrics,
    memory: MemoryMetrics,
    /// `None`: the gateway has no tenants.
    tenants: Option<TenantMetrics>,
    follower_wakes: Counter,
    takeovers_delayed: Family<KindLabel, Counter>,
    connections: Gauge,
    connections_refused: Counter,
    accept_errors: Counter,
    access_log_lost: Counter,
    audit_log_lost: Counter,
    key_fetches_failed: Counter,
}

impl Metrics {
    /// Creates and registers all metrics.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pollgate");
        process::register_build(&mut registry);
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "requests",
            "HTTP requests answered, by operation or delivery form and by status",
            requests.clone(),
        );

        let hold_seconds = Durations::from(Duration::from_millis(1));
        registry.register_with_unit(
            "hold",
            "Time in seconds for which long polls were held",
            Unit::Seconds,
            hold_seconds.clone(),
        );
        let publish_to_answer_seconds = Durations::from(Duration::from_micros(10));
        let help = "Time in seconds from an append to the response or event for a reader of one stream that waited for it";
        registry.register_with_unit(
            "publish_to_answer",
            help,
            Unit::Seconds,
            publish_to_answer_seconds.clone(),
        );

        let messages = Family::<KindLabel, Counter>::default();
        registry.register(
            "messages",
            "Messages appended to streams (kind=in) and delivered to readers (kind=out)",
            messages.clone(),
        );
        let bytes = Family::<KindLabel, Counter>::default();
        registry.register_with_unit(
            "message",
            "Bytes of messages appended to streams (kind=in) and delivered to readers (kind=out)",
            Unit::Bytes,
            bytes.clone(),
        );
        let passed = |kind| MessageCounters {
            messages: messages.get_or_create_owned(&KindLabel { kind }),
            bytes: bytes.get_or_create_owned(&KindLabel { kind }),
        };
        let (appended, delivered) = (passed("in"), passed("out"));

        let live = LiveFamilies::register(&mut registry);
        let mqtt = MqttMetrics::register(&mut registry);
        let xmpp = XmppMetrics::register(&mut registry);
        let outbound = OutboundMetrics::register(&mut registry);
        let origins = OriginMetrics::register(&mut registry, &outbound);
        let store = StoreMetrics::register(&mut registry);
        let upstream = UpstreamMetrics::register(&mut registry);
        let engine = EngineMetrics::register(&mut registry);
        let wakes = WakeMetrics::register(&mut registry);
        let memory = MemoryMetrics::register(&mut registry);
        let gauges = Gauges::register(&mut registry);
        stalls::register(&mut registry);
        let follower_wakes = Counter::default();
        let help = "Wake-ups of readers of many streams because some of the streams changed";
        registry.register("follower_wakes", help, follower_wakes.clone());
        let takeovers_delayed = Family::default();
        let help = "Takeovers delayed because several programs with one client id take over from each other";
        registry.register("takeovers_delayed", help, takeovers_delayed.clone());
        let connections = Gauge::default();
        registry.register(
            "connections",
            "Open TCP connections, including those of the admin listener",
            connections.clone(),
        );
        let connections_refused = Counter::default();
        let help = "Connections refused (HTTP 503, MQTT 0x9f): too many, too frequent, or memory is critical";
        registry.register("connections_refused", help, connections_refused.clone());
        let accept_errors = Counter::default();
        registry.register(
            "accept_errors",
            "Failed attempts to accept a connection, for example for lack of file descriptors",
            accept_errors.clone(),
        );
        let access_log_lost = Counter::default();
        let help =
            "Lines of the access log that are lost, because they could not be written in time or at all";
        registry.register("access_log_lost", help, access_log_lost.clone());

        let audit_log_lost = Counter::default();
        let help =
            "Lines of the audit log that are lost, because they could not be written in time or at all";
        registry.register("audit_log_lost", help, audit_log_lost.clone());

        let key_fetches_failed = Counter::default();
        let help = "Failed attempts to fetch the keys of token issuers from their URLs";
        registry.register("key_fetches_failed", help, key_fetches_failed.clone());

        Self {
            registry,
            process: process::registry(),
            requests,
            hold_seconds,
            publish_to_answer_seconds,
            appended,
            delivered,
            gauges,
            live,
            mqtt,
            origins,
            outbound,
            xmpp,
            store,
            upstream,
            engine,
            wakes,
            memory,
            tenants: None,
            follower_wakes,
            takeovers_delayed,
            connections,
            connections_refused,
            accept_errors,
            access_log_lost,
            audit_log_lost,
            key_fetches_failed,
        }
    }

    /// Adds metrics by tenant: one series for each of these tenants, given with the prefix of its streams in the hub, and one for
    /// all others together.
    pub fn by_tenant(mut self, named: &[(String, String)]) -> Self {
        self.tenants = Some(TenantMetrics::register(&mut self.registry, named));
        self
    }

    /// Returns the exposition text, after setting the gauges to `counts` and `memory`.
    pub fn text(&self, counts: Counts, memory: &MemoryCounts) -> String {
        self.gauges.set(counts);
        self.wakes.count(counts.devices);
        self.memory.set(memory);
        if let Some(tenants) = &self.tenants {
            let of_mqtt = self.mqtt.open.get();
            let open = counts.held_polls as u64 + u64::try_from(self.live.open() + of_mqtt).unwrap_or(0);
            tenants.set(TenantUsage { streams: counts.streams as u64, open }, &memory.tenants);
        }
        let mut text = String::new();
        let encoded = [&self.registry, &self.process].map(|registry| encode_registry(&mut text, registry));
        let ended = encode_eof(&mut text);
        if encoded.into_iter().chain([ended]).any(|encoded| encoded.is_err()) {
            text.clear();
        }
        text
    }

    /// Returns the counter of answered requests of a form and status.
    pub(crate) fn answered(&self, form: &'static str, status: u16) -> Answered {
        Answered(self.requests.get_or_create_owned(&RequestLabels { form, status }))
    }

    /// Returns the counters of a live delivery form.
    pub(crate) fn live(&self, form: &'static str) -> LiveMetrics {
        self.live.of(form)
    }

    /// Returns the counters of the MQTT front.
    pub(crate) fn mqtt(&self) -> &MqttMetrics {
        &self.mqtt
    }

    /// The metrics of the XMPP front.
    pub(crate) fn xmpp(&self) -> &XmppMetrics {
        &self.xmpp
    }

    /// Returns the metrics of requests to other servers.
    pub(crate) fn outbound(&self) -> &OutboundMetrics {
        &self.outbound
    }

    /// Returns the metrics of origins.
    pub(crate) fn origins(&self) -> &OriginMetrics {
        &self.origins
    }

    /// Returns the metrics of a store on disk.
    pub(crate) fn store(&self) -> &StoreMetrics {
        &self.store
    }

    /// Returns the metrics of an edge.
    pub(crate) fn upstream(&self) -> &UpstreamMetrics {
        &self.upstream
    }

    /// Returns the metrics of a store in an engine.
    pub(crate) fn engine(&self) -> &EngineMetrics {
        &self.engine
    }

    /// Returns the metrics of devices and their wakes.
    pub(crate) fn wakes(&self) -> &WakeMetrics {
        &self.wakes
    }

    /// Counts messages that were appended to a stream of the tenant with this prefix.
    pub(crate) fn messages_in(&self, tenant: &str, messages: u64, bytes: usize) {
        self.appended.count(messages, bytes);
        if let Some(tenants) = &self.tenants {
            tenants.messages_in(tenant, messages, bytes);
        }
    }

    /// Counts messages of a stream of the tenant with this prefix that were delivered to a reader.
    pub(crate) fn messages_out(&self, tenant: &str, messages: u64, bytes: usize) {
        self.delivered.count(messages, bytes);
        if let Some(tenants) = &self.tenants {
            tenants.messages_out(tenant, messages, bytes);
        }
    }

    /// Returns where refusals of clients are counted, for the tenant with this prefix.
    pub(crate) fn tenant_place(&self, tenant: &str) -> Option<TenantPlace> {
        self.tenants.as_ref().map(|tenants| tenants.place(tenant))
    }

    /// Counts a refusal of a client with valid credentials.
    pub(crate) fn tenant_refused(&self, place: TenantPlace) {
        if let Some(tenants) = &self.tenants {
            tenants.refused(place);
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

    /// Counts a wake-up of a reader of many streams.
    pub(crate) fn follower_woken(&self) {
        self.follower_wakes.inc();
    }

    /// Returns the counter of delayed takeovers of one kind, `polls` or `connections`.
    pub(crate) fn takeovers_delayed(&self, kind: &'static str) -> Counter {
        self.takeovers_delayed.get_or_create_owned(&KindLabel { kind })
    }

    /// Counts an open connection until the guard is dropped.
    pub(crate) fn connection(&self) -> ConnectionGuard {
        self.connections.inc();
        ConnectionGuard(self.connections.clone())
    }

    /// Whether any connection is open.
    pub(crate) fn has_connections(&self) -> bool {
        self.connections.get() > 0
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Returns the counter of lost lines of the access log.
    pub(crate) fn access_log_lost(&self) -> Counter {
        self.access_log_lost.clone()
    }

    /// Returns the counter of lost lines of the audit log.
    pub(crate) fn audit_log_lost(&self) -> Counter {
        self.audit_log_lost.clone()
    }

    /// Counts a failed attempt to fetch the keys of a token issuer.
    pub(crate) fn key_fetch_failed(&self) {
        self.key_fetches_failed.inc();
    }

    pub(crate) fn accept_error(&self) {
        self.accept_errors.inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts an open connection until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
