//! The state of the HTTP front, which every handler shares.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::conn::MqttSocket;
use super::form::FormMetrics;
use super::origin::Origins;
use super::request::HoldPolicy;
use crate::clock::Clock;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// The front: answers requests from the hub.
pub struct Gateway {
    pub(super) hub: Arc<Hub>,
    pub(super) limits: Arc<Limits>,
    pub(super) holds: HoldPolicy,
    pub(super) metrics: Arc<Metrics>,
    pub(super) forms: FormMetrics,
    pub(super) clock: Clock,
    pub(super) origins: Origins,
    pub(super) mqtt_sockets: mpsc::Sender<MqttSocket>,
}

impl Gateway {
    /// A front of `hub`. WebSockets that speak MQTT are sent to `mqtt_sockets`.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        holds: HoldPolicy,
        metrics: Arc<Metrics>,
        clock: Clock,
        origins: Origins,
        mqtt_sockets: mpsc::Sender<MqttSocket>,
    ) -> Self {
        let forms = FormMetrics::new(metrics.clone());
        Self { hub, limits, holds, metrics, forms, clock, origins, mqtt_sockets }
    }
}
