//! The state of the HTTP front, which every handler shares.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::access::AccessPolicy;
use super::form::FormMetrics;
use crate::clock::{Clock, jittered};
use crate::http::conn::MqttSocket;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// The front: answers requests from the hub.
pub struct Gateway {
    pub(in crate::http) hub: Arc<Hub>,
    pub(in crate::http) limits: Arc<Limits>,
    pub(in crate::http) holds: HoldPolicy,
    pub(in crate::http) metrics: Arc<Metrics>,
    pub(in crate::http) forms: FormMetrics,
    pub(in crate::http) clock: Clock,
    /// Which requests are taken.
    pub(in crate::http) access: AccessPolicy,
    /// The way of WebSockets that speak MQTT to their front.
    pub(in crate::http) mqtt_sockets: mpsc::Sender<MqttSocket>,
}

impl Gateway {
    /// A front of `hub`. WebSockets that speak MQTT are sent to `mqtt_sockets`.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        holds: HoldPolicy,
        metrics: Arc<Metrics>,
        clock: Clock,
        access: AccessPolicy,
        mqtt_sockets: mpsc::Sender<MqttSocket>,
    ) -> Self {
        let forms = FormMetrics::new(metrics.clone());
        Self { hub, limits, holds, metrics, forms, clock, access, mqtt_sockets }
    }
}

/// How long polls are held: the settings `hold` and `hold_max`.
#[derive(Debug, Clone, Copy)]
pub struct HoldPolicy {
    /// The hold time of a poll that names none, give or take a tenth.
    pub default: Duration,
    /// The longest hold time that a poll may name.
    pub max: Duration,
}

impl HoldPolicy {
    /// How long a poll is held that asks for so many seconds, or does not ask.
    pub(in crate::http) fn hold(self, asked: Option<u64>) -> Duration {
        asked.map_or_else(|| jittered(self.default), Duration::from_secs).min(self.max)
    }
}
