//! The state that a connection shares with its requests and the server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio::task::yield_now;

use crate::auth::Grants;
use crate::budget::{ConnectionCharge, Owner};
use crate::http::api::fields::Fields;
use crate::http::api::forwarded::{ClientSource, TrustedProxies};
use crate::hub::Signal;
use crate::metrics::stall_timed;
use crate::stream::Principal;

/// The phase of the server, from serving to its shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are accepted and served.
    Serving,
    /// The same, but memory is critical: connections without a request close.
    Shedding,
    /// No connection is accepted; open connections close after their current response.
    Closing,
    /// All connections are dropped at once.
    Stopped,
}

/// Connections that are woken between two yields.
const WAKES_PER_TURN: usize = 64;

/// The idle connections of a listener, which a change of the server's phase wakes. There may be very many, and each takes one slot of a table.
#[derive(Default)]
pub struct IdleConnections(pub(super) Signal<()>);

impl IdleConnections {
    /// Starts a task that wakes them at each change of phase, until the server closes.
    pub fn of(mut phase: watch::Receiver<Phase>) -> Arc<Self> {
        let idle = Arc::<Self>::default();
        let connections = idle.clone();
        let wakes = async move {
            let mut is_last = false;
            while !is_last {
                // An error means that the server is gone, which is later than any phase.
                is_last = phase.changed().await.is_err() || *phase.borrow_and_update() >= Phase::Closing;
                let mut woken = connections.0.change(|()| ());
                while !woken.is_empty() {
                    woken.wake(WAKES_PER_TURN);
                    yield_now().await;
                }
            }
        };
        tokio::spawn(stall_timed(|| "waking idle connections", Box::pin(wakes)));
        idle
    }
}

/// State of one connection. It counts as open until the last holder drops this, so a WebSocket that outlives the HTTP
/// connection still counts.
pub struct ConnectionState {
    stalled: AtomicBool,
    unsent: AtomicBool,
    /// The connection is above the limit: its first request is answered with 503.
    is_refused: bool,
    /// `open` has details. Most connections have none, and are not asked for them.
    is_detailed: bool,
    charge: ConnectionCharge,
    open: Box<dyn OpenConnection>,
}

/// Resources that the server holds while a connection is open.
pub trait OpenConnection: Send + Sync + 'static {
    /// What only some connections have.
    fn details(&self) -> Option<&ConnectionDetails> {
        None
    }
}

/// Details of a connection. It has them if requests are logged, if a proxy has opened it, or if clients may send certificates.
#[derive(Debug)]
pub struct ConnectionDetails {
    /// The address of the client, or of the proxy.
    pub peer: SocketAddr,
    /// The client is one of these proxies, and tells the address of its own client.
    pub proxies: Option<Arc<TrustedProxies>>,
    /// The rights of the client's certificate.
    certificate: OnceLock<Arc<Grants>>,
}

impl ConnectionDetails {
    /// Details of a connection whose client has not sent a certificate yet.
    pub fn new(peer: SocketAddr, proxies: Option<Arc<TrustedProxies>>) -> Self {
        Self { peer, proxies, certificate: OnceLock::new() }
    }
}

impl ConnectionState {
    /// State of a new connection of `owner`; `open` is dropped with the last holder.
    pub fn new(open: impl OpenConnection, owner: &Arc<Owner>) -> Self {
        let [stalled, unsent] = Default::default();
        let (is_detailed, charge) = (open.details().is_some(), ConnectionCharge::new(owner));
        Self { stalled, unsent, is_refused: false, is_detailed, charge, open: Box::new(open) }
    }

    /// The same for a connection above the limit, if `is_refused`: its first request is answered with 503.
    pub fn refused_if(self, is_refused: bool) -> Self {
        Self { is_refused, ..self }
    }

    /// Whether the connection is above the limit.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    fn details(&self) -> Option<&ConnectionDetails> {
        if self.is_detailed { self.open.details() } else { None }
    }

    /// The owner of the memory that the client takes.
    pub(in crate::http) fn owner(&self) -> &Arc<Owner> {
        self.charge.owner()
    }

    /// The address of the client, if it is known.
    pub(in crate::http) fn peer(&self) -> Option<SocketAddr> {
        self.details().map(|details| details.peer)
    }

    /// Whether the client is a proxy in front of the gateway, whose header fields can be trusted.
    pub(in crate::http) fn is_of_proxy(&self) -> bool {
        self.details().is_some_and(|details| details.proxies.is_some())
    }

    /// Where a request comes from that has these header fields.
    pub(in crate::http) fn source(&self, fields: &(impl Fields + ?Sized)) -> ClientSource<'_> {
        let proxies = self.details().and_then(|details| details.proxies.as_ref());
        ClientSource {
            connection: self.principal(),
            forwarded: proxies.and_then(|proxies| proxies.client(fields)),
            certificate: self.certificate(),
        }
    }

    /// Sets the rights of the client's certificate.
    pub(super) fn identify(&self, grants: Arc<Grants>) {
        if let Some(details) = self.details() {
            details.certificate.get_or_init(|| grants);
        }
    }

    /// The rights of the client's certificate. A proxy's certificate is not that of its client.
    pub(in crate::http) fn certificate(&self) -> Option<&Arc<Grants>> {
        let details = self.details().filter(|details| details.proxies.is_none())?;
        details.certificate.get()
    }

    /// The principal of the client, which its address determines.
    pub fn principal(&self) -> Principal {
        self.owner().principal()
    }

    /// Records that the client stopped reading and is being disconnected.
    pub(super) fn set_stalled(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Whether the client was disconnected because it stopped reading.
    pub(in crate::http) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Records whether the kernel has not accepted all of the last write.
    pub(super) fn set_unsent(&self, unsent: bool) {
        self.unsent.store(unsent, Ordering::Relaxed);
    }

    /// Whether a part of the last write still has to be written.
    pub(super) fn is_unsent(&self) -> bool {
        self.unsent.load(Ordering::Relaxed)
    }
}
