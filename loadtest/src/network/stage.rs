//! One hop at work: what becomes of a connection that has reached it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

use super::hop::Hop;
use super::middlebox::Counts;
use super::proxy;
use super::relay::{pass, reset};
use super::server::Server;
use super::tasks::Tasks;
use crate::wire::open;

/// See the module.
#[derive(Debug)]
pub(super) struct Stage {
    /// What it does; `None`: nothing.
    pub(super) hop: Option<Hop>,
    /// The next hop, or the server itself.
    pub(super) next: SocketAddr,
    /// When the middlebox was started.
    pub(super) started: Instant,
    /// Since then it does nothing any more.
    pub(super) until: Option<Duration>,
    /// What has happened at it.
    pub(super) counts: Counts,
    /// What goes on without a client.
    pub(super) tasks: Tasks,
}

impl Stage {
    /// The hop, unless the network has healed.
    pub(super) fn hop(&self) -> Option<&Hop> {
        let healed = self.until.is_some_and(|until| self.started.elapsed() >= until);
        self.hop.as_ref().filter(|_| !healed)
    }

    /// What proxies ask.
    pub(super) fn server(&self) -> Server {
        Server(self.next)
    }

    /// Has a connection to its end.
    pub(super) async fn carry(self: Arc<Self>, near: TcpStream) {
        if self.hop().is_some_and(Hop::is_proxy) {
            return proxy::serve(near, self).await;
        }
        let Ok(far) = open(self.next).await else { return reset([near]) };
        let fault = || self.counts.fault();
        match self.hop() {
            Some(Hop::NatIdle(hop)) => hop.carry(near, far, fault).await,
            Some(Hop::AddressChange(hop)) => hop.carry(near, far, self.started, fault).await,
            Some(Hop::Lifetime(hop)) => hop.carry(near, far, fault).await,
            Some(Hop::Slow(hop)) => hop.carry(near, far).await,
            _ => pass(near, far).await,
        }
    }
}
