//! The MQTT front: serves MQTT 3.1.1 and 5 clients, over TCP and over WebSocket, from the same streams that
//! HTTP reads.
//!
//! [`Broker`] is the front. `codec` parses and encodes packets, and `session` is the state kept for a client;
//! both are without IO and clock. `connection` drives them over a socket.

mod audit;
mod authorization;
mod claims;
mod codec;
mod connect;
mod connection;
mod deliver;
mod dispatch;
mod forms;
mod groups;
mod keep_alive;
mod parts;
mod publish;
mod serving;
mod session;
mod session_store;
mod sessions;
mod shares;
mod subscribe;
mod unconfirmed;
mod walks;
mod websocket;
mod wire;

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

pub use serving::ServedConnection;
pub use websocket::WebSocketBytes;

use crate::access_log::LoggedAddress;
use crate::access_log::audit::AuditLog;
use crate::auth::{Authenticator, Grants};
use crate::clock::Clock;
use crate::hub::{Hub, Takeovers};
use crate::limits::Limits;
use crate::metrics::{Metrics, MqttMetrics};
use crate::stream::{Filter, Principal};
use groups::Groups;
use keep_alive::KeepAlives;
use sessions::Sessions;
use shares::Share;

/// Interval between two checks for wills and sessions that are due.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The client of a connection, before its CONNECT.
pub struct Peer {
    /// The principal of its address. Its session and its messages are charged to it, unless it has credentials.
    pub principal: Principal,
    /// The rights of its certificate, or of the credentials in the handshake of its WebSocket.
    pub grants: Option<Arc<Grants>>,
    /// Where it is, if that is known.
    pub address: Option<LoggedAddress>,
}

/// The MQTT front. Serves connections with messages from the hub.
pub struct Broker {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    metrics: MqttMetrics,
    clock: Clock,
    sessions: Arc<Sessions>,
    groups: Arc<Groups>,
    takeovers: Takeovers,
    keep_alives: Arc<KeepAlives>,
    /// See [`stop`](Self::stop).
    is_stopped: AtomicBool,
    /// Verifies the credentials of clients.
    auth: Arc<Authenticator>,
    /// Where changes and refusals are logged, if they are.
    audit_log: Option<AuditLog>,
    /// See [`closing_on_refused`](Self::closing_on_refused).
    closes_on_refused: bool,
    /// Filters that clients may not subscribe to, as clients of any tenant write them.
    refused_filters: HashSet<Box<str>>,
    /// Bytes that connections without a complete CONNECT may hold together, beyond 4 KiB each.
    connecting: Semaphore,
}

impl Broker {
    /// Creates the front of `hub`.
    pub fn new(hub: Arc<Hub>, limits: Arc<Limits>, metrics: &Metrics, clock: Clock) -> Self {
        let takeovers = Takeovers::new("connections", &limits, metrics);
        let metrics = metrics.mqtt().clone();
        let sessions = Arc::new(Sessions::new(Share::of(&limits), hub.budget().clone(), metrics.clone()));
        let groups = Arc::new(Groups::new(hub.shares_sessions()));
        let connecting = Semaphore::new(limits.mqtt_connecting_bytes_max.min(Semaphore::MAX_PERMITS));
        Self {
            hub,
            limits,
            metrics,
            clock,
            sessions,
            groups,
            takeovers,
            keep_alives: KeepAlives::new(),
            is_stopped: AtomicBool::new(false),
            auth: Arc::new(Authenticator::open()),
            audit_log: None,
            closes_on_refused: false,
            refused_filters: HashSet::new(),
            connecting,
        }
    }

    /// With `closes` set, a refused message ends the connection of a client that cannot be told the reason.
    /// Otherwise the message is acknowledged and dropped if it would be refused again each time.
    pub fn closing_on_refused(self, closes: bool) -> Self {
        Self { closes_on_refused: closes, ..self }
    }

    /// Checks the credentials of all clients.
    pub fn with_auth(self, auth: Arc<Authenticator>) -> Self {
        Self { auth, ..self }
    }

    /// Logs changes and refusals.
    pub fn auditing(self, audit_log: Option<AuditLog>) -> Self {
        Self { audit_log, ..self }
    }

    /// Refuses subscriptions with these filters.
    pub fn refusing_filters(self, filters: Vec<Filter>) -> Self {
        Self { refused_filters: filters.iter().map(|filter| filter.as_str().into()).collect(), ..self }
    }

    /// The rights of a client certificate, which TLS has verified.
    pub fn grants_of_certificate(&self, certificate: &[u8]) -> Option<Arc<Grants>> {
        self.auth.certificate(certificate)
    }

    /// Publishes wills, ends sessions that are due, and stores groups, once per second while there are any, and follows the claims of
    /// other gateways. Wakes connections whose clients are silent, and all of them for a drain. Never returns; runs as long as it is
    /// polled.
    pub async fn sweep(&self) {
        let sweeps = async {
            loop {
                tokio::select! {
                    () = self.sessions.until_scheduled() => {}
                    () = self.groups.until_any(), if self.hub.keeps_sessions() => {}
                }
                self.handle_due().await;
                self.store_groups().await;
                sleep(SWEEP_INTERVAL).await;
            }
        };
        let mut drain = self.hub.drain_waiter();
        let drains = async {
            poll_fn(|context| drain.poll(context)).await;
            self.sessions.wake_holders();
        };
        tokio::join!(sweeps, self.follow_claims(), self.keep_alives.run(), drains);
    }
}
