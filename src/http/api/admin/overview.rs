//! [`Overview`]: the state of the gateway in numbers, for the dashboard.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::parameters::json;
use crate::clock::{Clock, rfc3339};
use crate::hub::Hub;
use crate::metrics::{Metrics, Totals};

/// How long an overview is served again. Less than the time between two events, so that each event is a new one.
const FRESH: Duration = Duration::from_millis(700);

/// An overview is served again for at least this many times as long as its computation took, which counts all waiters: so it takes at most one
/// percent of a core.
const FRESH_TIMES: u32 = 100;

/// Computes the overview when it is asked for, once for all who ask within [`FRESH`].
pub(super) struct Overview {
    metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    started: Instant,
    last: Mutex<Option<Computed>>,
}

/// An overview that is served until `fresh_until`, unless the state changes.
struct Computed {
    fresh_until: Instant,
    state: Readiness,
    json: Bytes,
}

/// The overview as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OverviewBody<'a> {
    version: &'static str,
    time: String,
    /// Seconds since the start of the gateway.
    uptime: f64,
    state: Readiness,
    counts: CountsView,
    memory: MemoryView<'a>,
    totals: Totals,
}

/// Whether the gateway serves, as `/ready` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Readiness {
    Ready,
    Draining,
    StoreFailed,
    StoreDamaged,
    UpstreamUnreachable,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountsView {
    streams: usize,
    watched_streams: usize,
    held_polls: usize,
    subscribers: usize,
    subscriptions: usize,
    /// Devices that are connected, woken, pending, and asleep.
    devices: [usize; 4],
}

#[derive(Serialize)]
struct MemoryView<'a> {
    max: u64,
    resident: u64,
    accounts: &'a [(&'static str, u64)],
    refused: &'a [(&'static str, u64)],
}

impl Readiness {
    pub(super) fn of(hub: &Hub) -> Self {
        if hub.is_draining() {
            Self::Draining
        } else if hub.store_has_failed() {
            Self::StoreFailed
        } else if hub.store_is_damaged() {
            Self::StoreDamaged
        } else if !hub.store_is_reachable() {
            Self::UpstreamUnreachable
        } else {
            Self::Ready
        }
    }

    /// The text of `/ready`.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Ready => "ready\n",
            Self::Draining => "draining\n",
            Self::StoreFailed => "the store has failed\n",
            Self::StoreDamaged => "ready, but the store is damaged\n",
            Self::UpstreamUnreachable => "ready, but the upstream gateway cannot be reached\n",
        }
    }

    /// Whether new requests are served. Without its upstream gateway, an edge still answers reads from the messages in its memory, and keeps
    /// polls held.
    pub(super) fn is_ready(self) -> bool {
        !matches!(self, Self::Draining | Self::StoreFailed)
    }
}

impl Overview {
    pub(super) fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { metrics, clock, started: Instant::now(), last: Mutex::default() }
    }

    /// Returns the overview as JSON. A change of the state is shown at once.
    pub(super) async fn json(&self, hub: &Hub) -> Bytes {
        let mut last = self.last.lock().await;
        let state = Readiness::of(hub);
        let began = Instant::now();
        if let Some(last) = &*last
            && began < last.fresh_until
            && last.state == state
        {
            return last.json.clone();
        }
        let json = self.compute(hub, state);
        let fresh_until = began + FRESH.max(began.elapsed() * FRESH_TIMES);
        *last = Some(Computed { fresh_until, state, json: json.clone() });
        json
    }

    fn compute(&self, hub: &Hub, state: Readiness) -> Bytes {
        let (counts, memory) = (hub.counts(), hub.memory());
        json(&OverviewBody {
            version: env!("CARGO_PKG_VERSION"),
            time: rfc3339(self.clock.wall()),
            uptime: self.started.elapsed().as_secs_f64(),
            state,
            totals: self.metrics.totals(counts.held_polls),
            counts: CountsView {
                streams: counts.streams,
                watched_streams: counts.watched_streams,
                held_polls: counts.held_polls,
                subscribers: counts.subscribers,
                subscriptions: counts.subscriptions,
                devices: counts.devices,
            },
            memory: MemoryView {
                max: memory.max,
                resident: memory.resident,
                accounts: &memory.accounts,
                refused: &memory.refused,
            },
        })
    }
}
