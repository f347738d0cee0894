//! The server: listeners, what stands behind them, and how it all comes to an end.

mod accept;
mod berth;
mod connection;
mod conversation;
mod guard;
mod head;
mod held;
mod http1;
mod http2;
mod mqtt;
mod store;
mod tracked;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::config::{MqttAddress, Settings};
use crate::http::admin::Admin;
use crate::http::{Gateway, HoldPolicy, Origins};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::mqtt::Broker;
use crate::store::OpenError;
use crate::stream::Store;
use accept::{Acceptor, Front};
use connection::Site;

/// Addresses that are bound, with nothing served yet.
pub struct Server {
    gateway: TcpListener,
    admin: TcpListener,
    mqtt: Option<(TcpListener, SocketAddr)>,
    gateway_address: SocketAddr,
    admin_address: SocketAddr,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    clock: Clock,
    limits: Arc<Limits>,
    holds: HoldPolicy,
    drain: Duration,
    origins: Origins,
}

/// Why nothing can be served, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address can not be listened on.
    #[error(transparent)]
    Listen(#[from] io::Error),
    /// The store can not be opened.
    #[error("store: {0}")]
    Store(#[from] OpenError),
}

/// A server that runs until it is drained or dropped.
pub struct Running {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    /// From the signal to the hard stop.
    drain: Duration,
    phase: watch::Sender<Phase>,
    tasks: Vec<JoinHandle<()>>,
}

/// As long as anything is free in a socket's buffer, the kernel takes one more piece, with what it keeps about it.
const LAST_PIECE_BYTES: usize = 8 * 1024;

/// How far the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// No connection is accepted; those that are open end with the answer they are at.
    Closing,
    /// Connections are dropped as they are.
    Stopped,
}

impl Server {
    /// Binds the addresses and opens the store.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
        let limits = Arc::new(settings.limits.clone());
        let gateway = listen(settings.listen, &limits)?;
        let admin = listen(settings.admin, &limits)?;
        let mqtt = match settings.mqtt {
            MqttAddress::Off => None,
            MqttAddress::At(address) => {
                let listener = listen(address, &limits)?;
                let address = listener.local_addr()?;
                Some((listener, address))
            }
        };
        Ok(Self {
            gateway_address: gateway.local_addr()?,
            admin_address: admin.local_addr()?,
            gateway,
            admin,
            mqtt,
            store: store::open(settings, &metrics, clock)?,
            metrics,
            clock,
            limits,
            holds: HoldPolicy { default: settings.hold.get(), max: settings.hold_max.get() },
            drain: settings.drain.get(),
            origins: Origins::new(settings.origin.clone()),
        })
    }

    /// Where publishers and readers reach it.
    pub fn gateway_address(&self) -> SocketAddr {
        self.gateway_address
    }

    /// Where operators reach it.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where MQTT clients reach it over TCP, if they do.
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.mqtt.as_ref().map(|(_, address)| *address)
    }

    /// Starts to serve, in tasks of the runtime that this is called in.
    pub fn start(self) -> Running {
        let (clock, metrics, store) = (self.clock, self.metrics, self.store);
        let hub = Arc::new(Hub::new(store.clone(), self.limits.clone(), metrics.clone(), clock));
        let broker = Arc::new(Broker::new(hub.clone(), self.limits.clone(), &metrics, clock));
        let tunnel = mqtt::tunnel(broker.clone(), self.limits.mqtt_packet_bytes_max);
        let gateway = Gateway::new(
            hub.clone(),
            self.limits.clone(),
            self.holds,
            metrics.clone(),
            clock,
            self.origins,
            tunnel,
        );
        let admin = Admin::new(hub.clone(), metrics.clone());
        let (phase, at_first) = watch::channel(Phase::Serving);
        let acceptor = |front, connections_max, listener| {
            let (limits, metrics, phase) = (self.limits.clone(), metrics.clone(), at_first.clone());
            let acceptor = Acceptor::new(front, connections_max, limits, metrics, phase);
            tokio::spawn(acceptor.run(listener))
        };
        let (sweeper, mqtt_sweeper) = (hub.clone(), broker.clone());
        let mut tasks = vec![
            acceptor(
                Front::Http(Arc::new(Site::Gateway(Arc::new(gateway)))),
                self.limits.connections_max,
                self.gateway,
            ),
            acceptor(
                Front::Http(Arc::new(Site::Admin(admin))),
                self.limits.admin_connections_max,
                self.admin,
            ),
            tokio::spawn(async move { sweeper.sweep().await }),
            tokio::spawn(async move { mqtt_sweeper.sweep().await }),
        ];
        if let Some((listener, _)) = self.mqtt {
            tasks.push(acceptor(Front::Mqtt(broker), self.limits.connections_max, listener));
        }
        drop(at_first);
        Running { hub, store, drain: self.drain, phase, tasks }
    }
}

impl Running {
    /// Comes to an end without losing anything that a client could not ask for again: not ready at once, held
    /// polls and streams end with their cursors over the spread, then connections close, then whatever is left
    /// is dropped at the hard stop.
    pub async fn drain(&self) {
        let hard_stop = Instant::now() + self.drain;
        if timeout_at(hard_stop, self.hub.drain()).await.is_ok() {
            self.phase.send_replace(Phase::Closing);
            let _all_closed = timeout_at(hard_stop, self.phase.closed()).await;
        }
        self.phase.send_replace(Phase::Stopped);
        self.store.close().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stopped);
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn listen(address: SocketAddr, limits: &Limits) -> io::Result<TcpListener> {
    let context =
        |error: io::Error| io::Error::new(error.kind(), format!("can not listen on {address}: {error}"));
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Linux doubles what is asked for, and connections inherit it.
        let send_bytes = limits.socket_send_bytes.saturating_sub(LAST_PIECE_BYTES);
        socket.set_send_buffer_size(send_bytes / 2)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(limits.backlog)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(context)
}
