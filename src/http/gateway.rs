//! The state of the HTTP front, which every handler shares.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::conn::MqttSocket;
use super::origin::Origins;
use crate::clock::Clock;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// The front: answers requests from the hub.
pub struct Gateway {
    pub(super) hub: Arc<Hub>,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) origins: Origins,
    pub(super) mqtt_sockets: mpsc::Sender<MqttSocket>,
}

impl Gateway {
    /// A front of `hub`. WebSockets that speak MQTT are sent to `mqtt_sockets`.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        clock: Clock,
        origins: Origins,
        mqtt_sockets: mpsc::Sender<MqttSocket>,
    ) -> Self {
        Self { hub, limits, metrics, clock, origins, mqtt_sockets }
    }
}
