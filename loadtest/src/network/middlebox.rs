//! [`Middlebox`]: a network between clients and a server, with one listener per hop; each hop connects to the next.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Duration, Instant, sleep};

use super::hop::Hop;
use super::profile::Profile;
use super::relay::Direction;
use super::server::{Opener, Server};
use super::stage::Stage;
use crate::wire::pair;

/// Length of the kernel's accept queue: many clients connect at the same time.
const BACKLOG: u32 = 4096;

/// Pause before the next attempt to accept when descriptors have run out.
const BACK_OFF: Duration = Duration::from_millis(50);

/// A running network. A drop ends all its connections.
#[derive(Debug)]
pub struct Middlebox {
    address: SocketAddr,
    stages: Vec<Arc<Stage>>,
}

/// Counts of one hop since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
    faults: AtomicU64,
    bytes: AtomicU64,
}

/// Counts of all hops since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Connections of clients.
    pub connections: u64,
    /// Requests of clients, if a hop is an HTTP proxy, or none changes anything.
    pub requests: u64,
    /// Faults: connections that were forgotten, cut or killed, responses that a hop produced itself, lost responses, repeated
    /// requests, refused upgrades.
    pub faults: u64,
}

impl Counts {
    /// Counts a connection.
    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request and returns its number, from 1.
    pub(super) fn request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts content that passes unchanged, and the requests in it.
    pub(super) fn content(&self, direction: Direction, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if direction == Direction::Up && begins_request(bytes) {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a fault.
    pub(super) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }
}

impl Middlebox {
    /// Starts the network of a profile in front of `upstream`; clients connect to `listen`.
    pub fn start(profile: &Profile, listen: SocketAddr, upstream: SocketAddr) -> io::Result<Self> {
        let started = Instant::now();
        let mut hops: Vec<Option<Hop>> = profile.hops.iter().cloned().map(Some).collect();
        if hops.is_empty() {
            hops.push(None);
        }
        let mut middlebox = Self { address: upstream, stages: Vec::new() };
        for (place, hop) in hops.into_iter().enumerate().rev() {
            let listener = bind(if place == 0 { listen } else { (Ipv4Addr::LOCALHOST, 0).into() })?;
            let next = Server::At(middlebox.address);
            middlebox.address = listener.local_addr()?;
            let stage = Arc::new(Stage::new(hop, next, started, profile.until));
            stage.tasks.spawn(accept(listener, stage.clone()));
            middlebox.stages.push(stage);
        }
        Ok(middlebox)
    }

    /// The network of a profile in front of a server of this process: it listens nowhere, and gets its connections by
    /// [`carry`](Self::carry).
    pub(crate) fn simulated(profile: &Profile, server: Opener) -> Self {
        let (started, mut next) = (Instant::now(), server);
        let mut middlebox = Self { address: (Ipv4Addr::UNSPECIFIED, 0).into(), stages: Vec::new() };
        for hop in profile.hops.iter().rev() {
            let stage =
                Arc::new(Stage::new(Some(hop.clone()), Server::Simulated(next), started, profile.until));
            middlebox.stages.push(stage.clone());
            next = Arc::new(move || {
                let stage = stage.clone();
                Box::pin(async move {
                    let (near, far) = pair()?;
                    stage.carry_in_task(far);
                    Ok(near)
                })
            });
        }
        middlebox
    }

    /// Handles a connection of a client, in a task that ends with the network.
    pub(crate) fn carry(&self, near: TcpStream) {
        if let Some(first) = self.stages.last() {
            first.carry_in_task(near);
        }
    }

    /// Returns the address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the bytes of content in both directions that have passed a network which changes nothing.
    pub(crate) fn bytes(&self) -> u64 {
        self.stages.iter().map(|stage| stage.counts.bytes.load(Ordering::Relaxed)).sum()
    }

    /// Returns the counts until now.
    pub fn passed(&self) -> Passed {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.stages.iter().fold(Passed::default(), |all, stage| Passed {
            connections: all.connections.max(of(&stage.counts.connections)),
            requests: all.requests.max(of(&stage.counts.requests)),
            faults: all.faults + of(&stage.counts.faults),
        })
    }
}

/// Whether what a client has sent begins with a request.
pub(crate) fn begins_request(bytes: &[u8]) -> bool {
    [&b"GET "[..], b"POST ", b"PUT "].iter().any(|method| bytes.starts_with(method))
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.stages.iter().for_each(|stage| stage.tasks.end());
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until the task is aborted.
async fn accept(listener: TcpListener, stage: Arc<Stage>) {
    loop {
        match listener.accept().await {
            Ok((near, _)) => {
                // Avoids the delay of small segments. An error means that the connection is gone, which the relay notices.
                let _gone = near.set_nodelay(true);
                stage.carry_in_task(near);
            }
            Err(_) => sleep(BACK_OFF).await,
        }
    }
}
