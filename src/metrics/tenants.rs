//! The metrics by tenant: of each tenant that the settings name, and of all others together.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The label of the tenants that the settings do not name. No tenant can have this name.
const OTHERS: &str = "+";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabel {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassedLabels {
    tenant: String,
    kind: &'static str,
}

/// Counts messages in one direction, and their bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct MessageCounters {
    pub(super) messages: Counter,
    pub(super) bytes: Counter,
}

impl MessageCounters {
    pub(super) fn count(&self, messages: u64, bytes: usize) {
        self.messages.inc_by(messages);
        self.bytes.inc_by(bytes as u64);
    }
}

/// What a tenant has at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantUsage {
    /// Existing streams.
    pub streams: u64,
    /// Held polls, live responses and connections of MQTT clients.
    pub open: u64,
}

/// Which counters are those of a client, see [`TenantMetrics::place`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct TenantPlace(NonZeroU16);

impl TenantPlace {
    const DEFAULT: Self = Self(NonZeroU16::MIN);
    const OTHERS: Self = Self(NonZeroU16::MIN.saturating_add(1));
    const FIRST_NAMED: u16 = 3;

    fn index(self) -> usize {
        usize::from(self.0.get()) - 1
    }
}

/// The metrics by tenant. Their number is bounded, since only tenants of the settings have some of their own.
#[derive(Debug)]
pub(super) struct TenantMetrics {
    /// The places of the tenants of the settings, by the prefixes of their streams in the hub.
    places: HashMap<String, TenantPlace>,
    counters: Vec<TenantCounters>,
}

#[derive(Debug)]
struct TenantCounters {
    appended: MessageCounters,
    delivered: MessageCounters,
    refused: Counter,
    streams: Gauge<u64, AtomicU64>,
    open: Gauge<u64, AtomicU64>,
}

impl TenantMetrics {
    /// Registers the metrics of the tenants with these names and prefixes.
    pub(super) fn register(registry: &mut Registry, named: &[(String, String)]) -> Self {
        let (messages, bytes) = (Family::<PassedLabels, Counter>::default(), Family::default());
        let help = "Messages appended to streams (kind=in) and delivered to readers (kind=out), by tenant; + stands for all tenants that the settings do not name";
        registry.register("tenant_messages", help, messages.clone());
        let help =
            "Bytes of messages appended to streams (kind=in) and delivered to readers (kind=out), by tenant";
        registry.register_with_unit("tenant_message", help, Unit::Bytes, bytes.clone());
        let refused = Family::<TenantLabel, Counter>::default();
        let help = "HTTP requests and MQTT packets of clients with valid credentials that were refused for lack of rights or because of a quota, by tenant";
        registry.register("tenant_refused", help, refused.clone());
        let gauges = [(); 2].map(|()| Family::<TenantLabel, Gauge<u64, AtomicU64>>::default());
        let [streams, open] = &gauges;
        registry.register("tenant_streams", "Existing streams, by tenant", streams.clone());
        let help = "Held polls, responses in live delivery forms, and connected MQTT clients, by tenant";
        registry.register("tenant_open", help, open.clone());

        let names = ["default", OTHERS].into_iter().chain(named.iter().map(|(name, _)| name.as_str()));
        let counters = names.map(|tenant| {
            let passed = |kind| {
                let labels = PassedLabels { tenant: tenant.to_owned(), kind };
                MessageCounters {
                    messages: messages.get_or_create_owned(&labels),
                    bytes: bytes.get_or_create_owned(&labels),
                }
            };
            let label = TenantLabel { tenant: tenant.to_owned() };
            TenantCounters {
                appended: passed("in"),
                delivered: passed("out"),
                refused: refused.get_or_create_owned(&label),
                streams: streams.get_or_create_owned(&label),
                open: open.get_or_create_owned(&label),
            }
        });
        let places = named.iter().zip(TenantPlace::FIRST_NAMED..);
        let places =
            places.filter_map(|((_, prefix), at)| Some((prefix.clone(), TenantPlace(NonZeroU16::new(at)?))));
        Self { places: places.collect(), counters: counters.collect() }
    }

    /// The place of the tenant whose streams have this prefix in the hub; empty for the default tenant.
    pub(super) fn place(&self, prefix: &str) -> TenantPlace {
        match prefix {
            "" => TenantPlace::DEFAULT,
            prefix => self.places.get(prefix).copied().unwrap_or(TenantPlace::OTHERS),
        }
    }

    fn at(&self, place: TenantPlace) -> Option<&TenantCounters> {
        self.counters.get(place.index())
    }

    pub(super) fn messages_in(&self, prefix: &str, messages: u64, bytes: usize) {
        if let Some(counters) = self.at(self.place(prefix)) {
            counters.appended.count(messages, bytes);
        }
    }

    pub(super) fn messages_out(&self, prefix: &str, messages: u64, bytes: usize) {
        if let Some(counters) = self.at(self.place(prefix)) {
            counters.delivered.count(messages, bytes);
        }
    }

    pub(super) fn refused(&self, place: TenantPlace) {
        if let Some(counters) = self.at(place) {
            counters.refused.inc();
        }
    }

    /// Sets the gauges. `total` is the usage of all tenants together; `usages` lists each tenant that uses something, with its prefix,
    /// except for the default tenant.
    pub(super) fn set(&self, total: TenantUsage, usages: &[(String, TenantUsage)]) {
        let mut sums = vec![TenantUsage::default(); self.counters.len()];
        let mut left = total;
        for (prefix, usage) in usages {
            if let Some(sum) = sums.get_mut(self.place(prefix).index()) {
                (sum.streams, sum.open) = (sum.streams + usage.streams, sum.open + usage.open);
            }
            left.streams = left.streams.saturating_sub(usage.streams);
            left.open = left.open.saturating_sub(usage.open);
        }
        if let Some(of_default) = sums.get_mut(TenantPlace::DEFAULT.index()) {
            *of_default = left;
        }
        for (counters, sum) in self.counters.iter().zip(sums) {
            counters.streams.set(sum.streams);
            counters.open.set(sum.open);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn tenants_that_the_settings_do_not_name_share_their_metrics() {
        let mut registry = Registry::default();
        let named = [("acme".to_owned(), "$tenant/acme/".to_owned())];
        let metrics = TenantMetrics::register(&mut registry, &named);
        metrics.messages_in("", 1, 10);
        metrics.messages_in("$tenant/acme/", 2, 20);
        metrics.messages_out("$tenant/b/", 3, 30);
        metrics.messages_out("$tenant/c/", 4, 40);
        metrics.refused(metrics.place("$tenant/c/"));
        let usage = |streams, open| TenantUsage { streams, open };
        let usages = [
            ("$tenant/acme/".to_owned(), usage(1, 2)),
            ("$tenant/b/".to_owned(), usage(3, 4)),
            ("$tenant/c/".to_owned(), usage(5, 6)),
        ];
        metrics.set(usage(20, 30), &usages);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "tenant_messages_total{tenant=\"default\",kind=\"in\"} 1",
            "tenant_messages_total{tenant=\"acme\",kind=\"in\"} 2",
            "tenant_messages_total{tenant=\"+\",kind=\"out\"} 7",
            "tenant_message_bytes_total{tenant=\"+\",kind=\"out\"} 70",
            "tenant_refused_total{tenant=\"+\"} 1",
            "tenant_streams{tenant=\"default\"} 11",
            "tenant_streams{tenant=\"acme\"} 1",
            "tenant_streams{tenant=\"+\"} 8",
            "tenant_open{tenant=\"default\"} 18",
            "tenant_open{tenant=\"+\"} 10",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
