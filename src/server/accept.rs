//! Accepts connections. Limits their number and their rate, and backs off while the process has no file descriptor left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls::ServerConfig;

use super::connection::{Front, Open, Places, Starter};
use super::proxies::ProxyProtocol;
use crate::budget::Budget;
use crate::http::TrustedProxies;
use crate::http::conn::{IdleConnections, Phase};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::platform::{descriptors_max, drop_new_handshakes};

/// File descriptors that are reserved for other things than client connections.
const DESCRIPTORS_RESERVED: usize = 1024;

/// Connections that are being answered with 503 at once; further ones wait in the kernel's accept queue.
const REFUSALS_MAX: usize = 256;

/// First and longest pause while no descriptor is left; each pause is twice as long as the one before. A connection that closes
/// ends a pause: without that, each pause would admit only a few of the connections in the kernel's accept queue.
const BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Connections that are accepted before other tasks run: as many as the kernel's accept queue holds by default, so that a burst
/// of connections finds room in it.
const ACCEPTS_AT_A_TIME: u64 = 4096;

/// How long TCP handshakes in progress may take before the listener closes, which resets them. A client whose SYN is dropped in
/// that time sends another one after a second, and is refused.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// The same while nobody is connected, so that the process ends at once.
const HANDSHAKE_GRACE_WITHOUT_CLIENTS: Duration = Duration::from_millis(50);

/// Accepts the connections of one listener.
pub(super) struct Acceptor {
    starter: Starter,
    /// `None`: connections do not begin with the PROXY protocol.
    proxy_protocol: Option<Arc<ProxyProtocol>>,
    open: Arc<Places>,
    refusals: Arc<Places>,
    rate: Rate,
}

/// A token bucket that holds the tokens of one second.
struct Rate {
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Acceptor {
    /// Creates an acceptor for at most `connections_max` open connections; 0: as many as the file descriptors allow.
    pub(super) fn new(
        front: Front,
        tls: Option<Arc<ServerConfig>>,
        connections_max: usize,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        budget: Arc<Budget>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let per_second = f64::from(limits.connections_per_second_max);
        let rate = Rate { per_second, tokens: per_second, filled_at: Instant::now() };
        let (idle, freed) = (IdleConnections::of(phase.clone()), Arc::default());
        let starter = Starter {
            front,
            tls,
            limits,
            metrics,
            budget,
            proxies: None,
            identifies_clients: false,
            phase,
            idle,
            freed,
        };
        let [open, refusals] = [permits(connections_max), REFUSALS_MAX].map(|max| starter.places(max));
        Self { starter, proxy_protocol: None, open, refusals, rate }
    }

    /// Takes the addresses of clients from `proxies`. With `proxy_protocol` they tell it by that protocol, and nobody else is served.
    pub(super) fn behind(mut self, proxies: Option<Arc<TrustedProxies>>, proxy_protocol: bool) -> Self {
        let protocol = proxies.clone().filter(|_| proxy_protocol);
        self.proxy_protocol = protocol.map(|proxies| Arc::new(ProxyProtocol(proxies)));
        self.starter.proxies = proxies;
        self
    }

    /// Clients may have certificates.
    pub(super) fn identifying_clients(mut self, identifies_clients: bool) -> Self {
        self.starter.identifies_clients = identifies_clients;
        self
    }

    /// Accepts until the server closes. Also serves the connections that are `handed` over.
    pub(super) async fn run(
        mut self,
        listener: std::net::TcpListener,
        mut handed: Option<mpsc::Receiver<(TcpStream, SocketAddr)>>,
    ) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot accept connections"),
        };
        let (mut phase, metrics) = (self.starter.phase.clone(), self.starter.metrics.clone());
        let (mut back_off, mut warned_at) = (BACK_OFF, None::<Instant>);
        for accepts in 1_u64.. {
            if accepts.is_multiple_of(ACCEPTS_AT_A_TIME) {
                yield_now().await;
            }
            let accepted = tokio::select! {
                // Without tokio's cooperative budget: it would let the accepted connections run while the kernel's queue
                // overflows.
                accepted = unconstrained(listener.accept()) => accepted,
                Some(connection) = next_of(handed.as_mut()) => Ok(connection),
                _ = phase.wait_for(|phase| *phase >= Phase::Closing) => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    back_off = BACK_OFF;
                    self.admit(stream, address).await;
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    metrics.accept_error();
                    if warned_at.is_none_or(|at| at.elapsed() >= BACK_OFF_MAX) {
                        warned_at = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept a connection; waiting for one to close");
                    }
                    let _freed_or_not = timeout(back_off, self.starter.freed.notified()).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
        if let Err(error) = drop_new_handshakes(SockRef::from(&listener)) {
            tracing::warn!(%error, "cannot drop new handshakes; connections that arrive during the drain may be reset");
        }
        let grace = if metrics.has_connections() { HANDSHAKE_GRACE } else { HANDSHAKE_GRACE_WITHOUT_CLIENTS };
        let close_at = Instant::now() + grace;
        while let Ok(Ok((stream, address))) = timeout_at(close_at, listener.accept()).await {
            self.admit(stream, address).await;
        }
    }

    async fn admit(&mut self, stream: TcpStream, address: SocketAddr) {
        let in_time = self.rate.try_take(Instant::now()) && !self.starter.budget.is_critical();
        match self.open.try_take() {
            Some(open) if in_time => self.spawn(stream, address, open, false),
            _ => {
                self.starter.metrics.connection_refused();
                if let Some(open) = self.refusals.take().await {
                    self.spawn(stream, address, open, true);
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, open: Open, refuse: bool) {
        match &self.proxy_protocol {
            None => self.starter.start(stream, peer, open, refuse),
            Some(protocol) => {
                let (starter, protocol) = (self.starter.clone(), protocol.clone());
                tokio::spawn(
                    async move { starter.start_behind(&protocol, stream, peer, open, refuse).await },
                );
            }
        }
    }
}

/// Returns the next connection that is handed over; `None` without a receiver.
async fn next_of(
    handed: Option<&mut mpsc::Receiver<(TcpStream, SocketAddr)>>,
) -> Option<(TcpStream, SocketAddr)> {
    match handed {
        Some(handed) => handed.recv().await,
        None => None,
    }
}

impl Rate {
    fn try_take(&mut self, now: Instant) -> bool {
        let since = now.duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

/// How many connections may be open. If `connections_max` is 0, the limit on file descriptors decides.
fn permits(connections_max: usize) -> usize {
    if connections_max > 0 {
        return connections_max.min(Semaphore::MAX_PERMITS);
    }
    let descriptors = descriptors_max().and_then(|n| usize::try_from(n).ok());
    let descriptors = descriptors.unwrap_or(1 << 20);
    descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(descriptors / 2).min(Semaphore::MAX_PERMITS)
}

/// Whether an error concerns only the connection that was to be accepted (accept(2)).
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_grants_its_rate_and_no_more() {
        let start = Instant::now();
        let mut rate = Rate { per_second: 100.0, tokens: 100.0, filled_at: start };
        let granted = |rate: &mut Rate, at| (0..500).filter(|_| rate.try_take(start + at)).count();
        assert_eq!(granted(&mut rate, Duration::ZERO), 100);
        assert_eq!(granted(&mut rate, Duration::from_millis(500)), 50);
        assert_eq!(granted(&mut rate, Duration::from_secs(100)), 100);
    }
}
