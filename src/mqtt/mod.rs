//! The MQTT front: 3.1.1 and 5, over TCP and over WebSocket, onto the same streams that HTTP reads.
//!
//! `codec` turns bytes into packets, `session` is what is remembered of a client (both without IO and clock), and
//! `connection` drives the two over a socket.

mod codec;
mod connect;
mod connection;
mod deliver;
mod dispatch;
mod forms;
mod publish;
mod session;
mod session_store;
mod sessions;
mod shares;
mod walks;
mod websocket;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

pub use websocket::WebSocketBytes;

use crate::clock::Clock;
use crate::hub::{Hub, Takeovers};
use crate::limits::Limits;
use crate::metrics::{Metrics, MqttMetrics};
use crate::stream::Principal;
use sessions::Sessions;
use shares::Share;
use wire::Wire;

/// How often wills and sessions whose time has come are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The front: serves connections from the hub.
pub struct Broker {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    metrics: MqttMetrics,
    clock: Clock,
    sessions: Arc<Sessions>,
    takeovers: Takeovers,
    /// Bytes that connections may hold whose CONNECT is not whole yet.
    connecting: Semaphore,
}

impl Broker {
    /// A front of `hub`, with the sessions that its store has kept.
    pub fn new(hub: Arc<Hub>, limits: Arc<Limits>, metrics: &Metrics, clock: Clock) -> Self {
        let takeovers = Takeovers::new("connections", &limits, metrics);
        let metrics = metrics.mqtt().clone();
        let sessions = Arc::new(Sessions::new(Share::of(&limits), hub.budget().clone(), metrics.clone()));
        let connecting = Semaphore::new(limits.mqtt_connecting_bytes_max.min(Semaphore::MAX_PERMITS));
        let broker = Self { hub, limits, metrics, clock, sessions, takeovers, connecting };
        broker.load();
        broker
    }

    /// Serves a connection to its end. Its session and what it publishes are charged to `principal`. `refuse`: it is one
    /// connection too many, and is told so.
    pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(
        self: Arc<Self>,
        io: S,
        principal: Principal,
        refuse: bool,
    ) {
        let wire = Wire::new(io, self.limits.mqtt_connect_bytes_max);
        // Boxed, or an idle connection would go on having room for its handshake.
        let connected = Box::pin(self.clone().connect(wire, principal, refuse)).await;
        let Some(connection) = connected else { return };
        self.metrics.open.inc();
        connection.run().await;
        self.metrics.open.dec();
    }

    /// Publishes wills and ends sessions whose time has come, for as long as it is polled.
    pub async fn sweep(&self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.come_due().await;
        }
    }
}
