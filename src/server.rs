//! The server: listeners, what stands behind them, and how it all comes to an end.

mod accept;
mod connection;
mod guard;
mod head;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::config::{Settings, StoreKind};
use crate::http::admin::Admin;
use crate::http::{Gateway, Origins};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::{Memory, Store};
use accept::Acceptor;
use connection::Front;

/// Addresses that are bound, with nothing served yet.
#[derive(Debug)]
pub struct Server {
    gateway: TcpListener,
    admin: TcpListener,
    gateway_address: SocketAddr,
    admin_address: SocketAddr,
    store: StoreKind,
    limits: Arc<Limits>,
    origins: Origins,
}

/// A server that runs until it is drained or dropped.
pub struct Running {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    phase: Arc<watch::Sender<Phase>>,
    tasks: Vec<JoinHandle<()>>,
}

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
    /// Binds both addresses.
    pub fn bind(settings: &Settings) -> io::Result<Self> {
        let limits = Arc::new(settings.limits.clone());
        let gateway = listen(settings.listen, &limits)?;
        let admin = listen(settings.admin, &limits)?;
        Ok(Self {
            gateway_address: gateway.local_addr()?,
            admin_address: admin.local_addr()?,
            gateway,
            admin,
            store: settings.store,
            limits,
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

    /// Starts to serve, in tasks of the runtime that this is called in.
    pub fn start(self) -> Running {
        let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
        let store: Arc<dyn Store> = match self.store {
            StoreKind::Memory => Arc::new(Memory::new()),
        };
        let hub = Arc::new(Hub::new(store, self.limits.clone(), metrics.clone(), clock));
        let gateway = Gateway::new(hub.clone(), self.limits.clone(), metrics.clone(), clock, self.origins);
        let admin = Admin::new(hub.clone(), metrics.clone());
        let phase = Arc::new(watch::Sender::new(Phase::Serving));
        let acceptor = |front, connections_max, listener| {
            let (limits, metrics, phase) = (self.limits.clone(), metrics.clone(), phase.clone());
            let acceptor = Acceptor::new(Arc::new(front), connections_max, limits, metrics, phase);
            tokio::spawn(acceptor.run(listener))
        };
        let sweeper = hub.clone();
        let tasks = vec![
            acceptor(Front::Gateway(Arc::new(gateway)), self.limits.connections_max, self.gateway),
            acceptor(Front::Admin(admin), self.limits.admin_connections_max, self.admin),
            tokio::spawn(async move { sweeper.sweep().await }),
        ];
        Running { hub, limits: self.limits, phase, tasks }
    }
}

impl Running {
    /// Comes to an end without losing anything that a client could not ask for again: not ready at once, held
    /// polls and streams end with their cursors over the spread, then connections close, then whatever is left
    /// is dropped at the hard stop.
    pub async fn drain(&self) {
        let hard_stop = Instant::now() + self.limits.drain;
        if timeout_at(hard_stop, self.hub.drain()).await.is_ok() {
            self.phase.send_replace(Phase::Closing);
            let _all_closed = timeout_at(hard_stop, self.phase.closed()).await;
        }
        self.phase.send_replace(Phase::Stopped);
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
        socket.set_send_buffer_size(limits.socket_send_bytes / 2)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(limits.backlog)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(context)
}
