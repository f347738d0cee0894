//! [`Stage`]: a running hop, which handles the connections that reach it.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

use super::hop::{Clock, Hop};
use super::middlebox::Counts;
use super::proxy;
use super::relay::{pass, reset};
use super::server::Server;
use super::tasks::Tasks;

/// One running hop.
#[derive(Debug)]
pub(super) struct Stage {
    /// The hop; `None` passes bytes unchanged.
    pub(super) hop: Option<Hop>,
    /// The next hop or the server.
    pub(super) next: Server,
    /// When the middlebox was started.
    pub(super) started: Instant,
    /// Time after which the hop changes nothing any more.
    pub(super) until: Option<Duration>,
    /// Counts of the hop.
    pub(super) counts: Counts,
    /// Tasks of its connections, and requests that it repeats on its own.
    pub(super) tasks: Tasks,
}

impl Stage {
    /// Starts a hop.
    pub(super) fn new(hop: Option<Hop>, next: Server, started: Instant, until: Option<Clock>) -> Self {
        let (counts, tasks) = (Counts::default(), Tasks::default());
        Self { hop, next, started, until: until.map(|clock| clock.0), counts, tasks }
    }

    /// Counts a connection, and handles it in a task that ends with the network.
    pub(super) fn carry_in_task(self: &Arc<Self>, near: TcpStream) {
        self.counts.connection();
        self.tasks.spawn(self.clone().carry(near));
    }

    /// Returns the hop, unless `until` has passed.
    pub(super) fn hop(&self) -> Option<&Hop> {
        let healed = self.until.is_some_and(|until| self.started.elapsed() >= until);
        self.hop.as_ref().filter(|_| !healed)
    }

    /// Returns the server that a proxy forwards to.
    pub(super) fn server(&self) -> Server {
        self.next.clone()
    }

    /// Handles a connection until it ends.
    pub(super) async fn carry(self: Arc<Self>, near: TcpStream) {
        if self.hop().is_some_and(Hop::is_proxy) {
            return proxy::serve(near, self).await;
        }
        let Ok(far) = self.next.open().await else { return reset([near]) };
        let fault = || self.counts.fault();
        match self.hop() {
            Some(Hop::NatIdle(hop)) => hop.carry(near, far, fault).await,
            Some(Hop::AddressChange(hop)) => hop.carry(near, far, self.started, fault).await,
            Some(Hop::Lifetime(hop)) => hop.carry(near, far, fault).await,
            Some(Hop::Slow(hop)) => hop.carry(near, far).await,
            _ => pass(near, far, |direction, bytes| self.counts.content(direction, bytes)).await,
        }
    }
}
