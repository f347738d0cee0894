//! Accepting connections: as many as there may be, as fast as they may come, and with patience when the
//! descriptors are used up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Phase;
use super::connection::{self, Front};
use crate::http::Link;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Descriptors that are no connections of clients.
const DESCRIPTORS_RESERVED: usize = 1024;

/// Connections that are told 503 at once; what comes on top of them is closed without a word.
const REFUSALS_MAX: usize = 256;

/// Pauses when the system has no descriptor left, doubling between these.
const BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// How long the queue of the kernel is looked at before the listener closes: what is in it would be reset.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Accepts the connections of one listener.
pub(super) struct Acceptor {
    front: Arc<Front>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    phase: Arc<watch::Sender<Phase>>,
    open: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    rate: Rate,
}

/// A token bucket that holds the tokens of one second.
struct Rate {
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Acceptor {
    pub(super) fn new(
        front: Arc<Front>,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        phase: Arc<watch::Sender<Phase>>,
    ) -> Self {
        let open = Arc::new(Semaphore::new(connections_max(&limits)));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        let per_second = f64::from(limits.connections_per_second_max);
        let rate = Rate { per_second, tokens: per_second, filled_at: Instant::now() };
        Self { front, limits, metrics, phase, open, refusals, rate }
    }

    /// Accepts until the server closes.
    pub(super) async fn run(mut self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "can not accept connections"),
        };
        let mut phase = self.phase.subscribe();
        let mut back_off = BACK_OFF;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = phase.wait_for(|phase| *phase >= Phase::Closing) => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    back_off = BACK_OFF;
                    self.take(stream);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.metrics.accept_error();
                    tracing::warn!(%error, "can not accept; trying again in {back_off:?}");
                    sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
        while let Ok(Ok((stream, _))) = timeout(LAST_LOOK, listener.accept()).await {
            self.take(stream);
        }
    }

    fn take(&mut self, stream: TcpStream) {
        let in_time = self.rate.take(Instant::now());
        let permit = self.open.clone().try_acquire_owned();
        match permit {
            Ok(permit) if in_time => self.spawn(stream, permit, false),
            _ => {
                self.metrics.connection_refused();
                if let Ok(permit) = self.refusals.clone().try_acquire_owned() {
                    self.spawn(stream, permit, true);
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, permit: OwnedSemaphorePermit, refuse: bool) {
        let (front, limits, phase) = (self.front.clone(), self.limits.clone(), self.phase.subscribe());
        // The phase goes with the link too, so that a drain waits for WebSockets.
        let link = Arc::new(Link::new((self.metrics.connection(), permit, phase.clone())));
        tokio::spawn(async move {
            if let Err(error) = connection::serve(stream, front, limits, link, phase, refuse).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

impl Rate {
    fn take(&mut self, now: Instant) -> bool {
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

/// The connections that the process's descriptors allow, if the limit does not say.
fn connections_max(limits: &Limits) -> usize {
    if limits.connections_max > 0 {
        return limits.connections_max;
    }
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok());
    let descriptors = descriptors.unwrap_or(1 << 20);
    descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(descriptors / 2).min(Semaphore::MAX_PERMITS)
}

/// Errors that concern the one connection which was to be accepted (accept(2)).
fn is_of_the_peer(error: &io::Error) -> bool {
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
        let granted = |rate: &mut Rate, at| (0..500).filter(|_| rate.take(start + at)).count();
        assert_eq!(granted(&mut rate, Duration::ZERO), 100);
        assert_eq!(granted(&mut rate, Duration::from_millis(500)), 50);
        assert_eq!(granted(&mut rate, Duration::from_secs(100)), 100);
    }
}
