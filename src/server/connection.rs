//! Starts the tasks that serve accepted connections, and holds what an open connection occupies until it ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;

use super::proxies::ProxyProtocol;
use crate::access_log::LoggedAddress;
use crate::budget::{Budget, principal_of};
use crate::http::TrustedProxies;
use crate::http::conn::{
    self, ConnectionContext, ConnectionDetails, ConnectionState, GuardedStream, IdleConnections,
    OpenConnection, Phase, Service, SubprotocolSocket, Transport,
};
use crate::limits::Limits;
use crate::metrics::{ConnectionGuard, Metrics, stall_timed};
use crate::mqtt::{Broker, Peer, ServedConnection, WebSocketBytes};
use crate::platform::close_when_unacknowledged_for;
use crate::xmpp::ClientFront;

/// How long a refusal may take, so that clients that send nothing do not delay the refusal of others.
const REFUSAL_TIME: Duration = Duration::from_secs(3);

/// Idle time after which the kernel probes an MQTT connection (TCP keep-alive). It finds clients that agreed on no keep alive
/// and vanished without a FIN.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(300);

/// The front that serves the connections of a listener.
#[derive(Clone)]
pub(super) enum Front {
    Http(Arc<Service>),
    Mqtt(Arc<Broker>),
}

/// Starts the tasks that serve connections.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) front: Front,
    /// `None`: the listener speaks no TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Arc<Budget>,
    /// The proxies in front of the gateway, which tell the addresses of their clients. `None`: there are none.
    pub(super) proxies: Option<Arc<TrustedProxies>>,
    /// Clients are asked for certificates.
    pub(super) identifies_clients: bool,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) idle: Arc<IdleConnections>,
    pub(super) freed: Arc<Notify>,
}

/// Resources of an open connection, which are released when it ends. There may be very many, so what is the same for all of them is
/// shared.
pub(super) struct Open {
    _counted: ConnectionGuard,
    places: Arc<Places>,
}

/// The number of connections that may be open at the same time.
pub(super) struct Places {
    free: Semaphore,
    metrics: Arc<Metrics>,
    /// A drain waits until this is dropped with the last connection, so also for WebSockets.
    _phase: watch::Receiver<Phase>,
    /// Notified when a file descriptor is free again.
    freed: Arc<Notify>,
}

/// Resources of an open connection, with what its requests need to know of it.
struct DetailedOpen {
    _open: Open,
    details: ConnectionDetails,
}

impl Starter {
    /// Room for `max` connections.
    pub(super) fn places(&self, max: usize) -> Arc<Places> {
        Arc::new(Places {
            free: Semaphore::new(max),
            metrics: self.metrics.clone(),
            _phase: self.phase.clone(),
            freed: self.freed.clone(),
        })
    }

    /// Starts to serve a connection once its proxy has told the address of the client. A connection without that is closed.
    pub(super) async fn start_behind(
        self,
        protocol: &ProxyProtocol,
        mut stream: TcpStream,
        peer: SocketAddr,
        open: Open,
        refuse: bool,
    ) {
        let told = timeout(self.limits.head_timeout.get(), protocol.client(&mut stream, peer)).await;
        match told.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(address) => self.start(stream, address, open, refuse),
            Err(error) => {
                self.metrics.connection_refused();
                tracing::debug!(%peer, %error, "a connection without the PROXY protocol is closed");
            }
        }
    }

    fn is_proxy(&self, address: SocketAddr) -> bool {
        self.proxies.as_ref().is_some_and(|proxies| proxies.contains(address.ip()))
    }

    pub(super) fn start(&self, stream: TcpStream, address: SocketAddr, open: Open, refuse: bool) {
        let (limits, mut phase) = (self.limits.clone(), self.phase.clone());
        // A shortage of memory that is over is no change for a new connection.
        if phase.has_changed().unwrap_or(true) && *phase.borrow_and_update() >= Phase::Closing {
            phase.mark_changed();
        }
        let owner = self.budget.owner(principal_of(address.ip()));
        let state = match &self.front {
            Front::Http(service)
                if service.logs_addresses() || self.identifies_clients || self.is_proxy(address) =>
            {
                let proxies = self.proxies.clone().filter(|proxies| proxies.contains(address.ip()));
                let details = ConnectionDetails::new(address, proxies);
                ConnectionState::new(DetailedOpen { _open: open, details }, &owner)
            }
            Front::Http(_) | Front::Mqtt(_) => ConnectionState::new(open, &owner),
        };
        let state = Arc::new(state.refused_if(refuse));
        if let Err(error) = prepare(&stream, &limits) {
            return tracing::debug!(%error, "a connection closed before it was served");
        }
        // One kind of task per protocol: a common one would reserve the memory of the larger protocol for each connection.
        match &self.front {
            Front::Http(service) => {
                let (service, idle) = (service.clone(), self.idle.clone());
                let context = ConnectionContext { service, limits, state, phase, idle };
                run(|| "an HTTP connection", conn::serve(stream, self.tls.clone(), context), refuse);
            }
            Front::Mqtt(broker) => {
                let served = serve_mqtt(
                    (stream, address),
                    self.tls.clone(),
                    broker.clone(),
                    limits,
                    state,
                    phase,
                    refuse,
                );
                let served = stall_timed(|| "an MQTT connection", served);
                if refuse {
                    tokio::spawn(timeout(REFUSAL_TIME, served).map(drop));
                } else {
                    tokio::spawn(served);
                }
            }
        }
    }
}

/// Sets the options of a TCP socket. Sockets of other families, which only [`super::Running::serve`] hands over, have none of them.
fn prepare(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    match stream.set_nodelay(true) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(error) => Err(error),
        Ok(()) => close_when_unacknowledged_for(SockRef::from(stream), limits.write_timeout.get()),
    }
}

/// Serves an MQTT connection over TCP to its end. `refuse`: the connection is above a limit, and the client is told so.
fn serve_mqtt(
    (stream, address): (TcpStream, SocketAddr),
    tls: Option<Arc<ServerConfig>>,
    broker: Arc<Broker>,
    limits: Arc<Limits>,
    state: Arc<ConnectionState>,
    mut phase: watch::Receiver<Phase>,
    refuse: bool,
) -> ServedConnection<GuardedStream> {
    let (later, certificates) = (phase.clone(), broker.clone());
    let begun = async move {
        let accepted = async {
            SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE_TIME))?;
            Transport::accept(stream, tls, limits.head_timeout.get()).await
        };
        match accepted.await {
            Ok((stream, certificate)) => {
                let grants =
                    certificate.and_then(|certificate| certificates.grants_of_certificate(&certificate));
                let address = Some(LoggedAddress::Peer(address));
                let peer = Peer { principal: state.principal(), grants, address };
                Some((GuardedStream::new(stream, Bytes::new(), state, limits, later), peer))
            }
            Err(error) => {
                tracing::debug!(%error, "connection ended");
                None
            }
        }
    };
    let stopped = async move {
        let _or_gone = phase.wait_for(|phase| *phase >= Phase::Stopped).await;
    };
    broker.serve_when(begun, refuse, stopped)
}

/// Serves MQTT over the WebSockets that the HTTP front hands over, until that front is gone.
pub(super) async fn serve_sockets(
    broker: Arc<Broker>,
    limits: Arc<Limits>,
    mut sockets: mpsc::Receiver<SubprotocolSocket>,
) {
    while let Some(SubprotocolSocket { io, state, principal, grants, address }) = sockets.recv().await {
        let broker = broker.clone();
        let (first_bytes_max, frame_bytes_max) =
            (limits.mqtt_connect_bytes_max, limits.mqtt_packet_bytes_max);
        let served = Box::pin(async move {
            let io = Box::new(WebSocketBytes::new(io, first_bytes_max, frame_bytes_max));
            broker.serve(io, Peer { principal, grants, address }, false).await;
            drop(state);
        });
        tokio::spawn(stall_timed(|| "an MQTT connection over WebSocket", served));
    }
}

/// Serves XMPP over the WebSockets that the HTTP front hands over, until that front is gone.
pub(super) async fn serve_xmpp_sockets(
    front: Arc<ClientFront>,
    mut sockets: mpsc::Receiver<SubprotocolSocket>,
) {
    while let Some(SubprotocolSocket { io, state, principal, .. }) = sockets.recv().await {
        let front = front.clone();
        let served = Box::pin(async move {
            front.serve_websocket(io, principal).await;
            drop(state);
        });
        tokio::spawn(stall_timed(|| "an XMPP connection over WebSocket", served));
    }
}

/// Spawns the task of a connection. This is not an async block, because that would reserve the memory of `serve` twice.
fn run(
    name: impl Fn() -> &'static str + Send + Unpin + 'static,
    serve: impl Future<Output = io::Result<()>> + Send + Unpin + 'static,
    refuse: bool,
) {
    let serve = stall_timed(name, serve);
    let log = |outcome| {
        if let Err::<(), io::Error>(error) = outcome {
            tracing::debug!(%error, "connection ended");
        }
    };
    if refuse {
        tokio::spawn(timeout(REFUSAL_TIME, serve).map(move |outcome| log(outcome.unwrap_or(Ok(())))));
    } else {
        tokio::spawn(serve.map(log));
    }
}

impl OpenConnection for Open {}

impl OpenConnection for DetailedOpen {
    fn details(&self) -> Option<&ConnectionDetails> {
        Some(&self.details)
    }
}

impl Places {
    /// Takes a place. `None`: there is none.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Open> {
        self.free.try_acquire().ok()?.forget();
        Some(Open { _counted: self.metrics.connection(), places: self.clone() })
    }

    /// Waits for a place.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Open> {
        self.free.acquire().await.ok()?.forget();
        Some(Open { _counted: self.metrics.connection(), places: self.clone() })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.places.free.add_permits(1);
        self.places.freed.notify_one();
    }
}
