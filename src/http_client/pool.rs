//! The open connections of a client, by destination.
//!
//! An exchange leases a connection. One of HTTP/1.1 is leased by one exchange at a time and comes back when its response is complete;
//! one of HTTP/2 is shared. A connection that is not used for [`IDLE_TIME`] is closed, and so are unused ones when another destination
//! needs a connection and [`Pool`] has no more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::connect::{Connector, Driver, Requests};
use super::destination::{ConnectionKey, Destination};
use super::exchange::OutboundError;

/// How long an unused connection is kept. Servers often close theirs after 60 s or more.
const IDLE_TIME: Duration = Duration::from_secs(50);

/// Unused connections that are kept for a destination.
const IDLE_MAX: usize = 4;

/// Destinations that are remembered, about 300 bytes each; those without connections are forgotten first.
const DESTINATIONS_MAX: usize = 1024;

/// The open connections.
pub(super) struct Pool {
    destinations: Mutex<HashMap<ConnectionKey, Arc<Connections>>>,
    /// A permit for each open connection.
    permits: Arc<Semaphore>,
    /// Notified when an exchange ends, so that its connection can be used or closed.
    released: Arc<Notify>,
}

/// The connections to one destination.
#[derive(Default)]
struct Connections {
    /// Held while a connection is made that may become a shared one, so that concurrent exchanges do not make one each.
    connecting: AsyncMutex<()>,
    kept: Mutex<KeptConnections>,
}

#[derive(Default)]
struct KeptConnections {
    /// The last connection was one of HTTP/1.1, of which each exchange needs its own.
    speaks_http1: bool,
    idle: Vec<PooledConnection>,
    shared: Option<PooledConnection>,
}

struct PooledConnection {
    requests: Requests,
    activity: Arc<Mutex<Activity>>,
}

/// The exchanges of a connection.
struct Activity {
    under_way: usize,
    /// When the last one began or ended.
    changed: Instant,
}

/// A connection for one exchange.
pub(super) struct LeasedConnection {
    connection: PooledConnection,
    connections: Arc<Connections>,
    is_reused: bool,
    under_way: UnderWay,
}

/// Counts an exchange of a connection.
struct UnderWay {
    activity: Arc<Mutex<Activity>>,
    /// See [`Pool::released`].
    released: Arc<Notify>,
}

impl UnderWay {
    fn begin(connection: &PooledConnection, released: Arc<Notify>) -> Self {
        let activity = connection.activity.clone();
        activity.lock().under_way += 1;
        Self { activity, released }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut activity = self.activity.lock();
        (activity.under_way, activity.changed) = (activity.under_way - 1, Instant::now());
        drop(activity);
        self.released.notify_one();
    }
}

/// A request that was not answered.
pub(super) struct Unanswered(TrySendError<Request<Full<Bytes>>>);

impl Unanswered {
    /// The request, if it was not sent.
    pub(super) fn message(&self) -> Option<&Request<Full<Bytes>>> {
        self.0.message()
    }

    pub(super) fn into_error(self) -> hyper::Error {
        self.0.into_error()
    }
}

impl Pool {
    pub(super) fn new(connections_max: usize) -> Self {
        let permits = Arc::new(Semaphore::new(connections_max.max(1)));
        Self { destinations: Mutex::default(), permits, released: Arc::default() }
    }

    /// Leases a connection to a destination, or makes one.
    pub(super) async fn lease(
        &self,
        to: &Destination,
        connector: &Connector,
    ) -> Result<LeasedConnection, OutboundError> {
        let connections = self.connections(to);
        let may_share = to.is_encrypted() && !connections.kept.lock().speaks_http1;
        let connecting = if may_share { Some(connections.connecting.lock().await) } else { None };
        let (connection, is_reused) = match self.kept_or_permit(&connections).await? {
            Ok(kept) => (kept, true),
            Err(permit) => (connections.connect(to, connector, permit).await?, false),
        };
        drop(connecting);
        let under_way = UnderWay::begin(&connection, self.released.clone());
        Ok(LeasedConnection { connection, connections, is_reused, under_way })
    }

    /// Returns a kept connection, or the permit to make one; waits until one of them is free.
    async fn kept_or_permit(
        &self,
        connections: &Connections,
    ) -> Result<Result<PooledConnection, OwnedSemaphorePermit>, OutboundError> {
        loop {
            if let Some(connection) = connections.take() {
                return Ok(Ok(connection));
            }
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return Ok(Err(permit));
            }
            self.destinations.lock().values().for_each(|other| other.close_unused());
            tokio::select! {
                permit = self.permits.clone().acquire_owned() => {
                    let closed = |_| OutboundError::Connect(std::io::ErrorKind::NotConnected.into());
                    return permit.map(Err).map_err(closed);
                }
                () = self.released.notified() => {}
            }
        }
    }

    #[cfg(test)]
    pub(super) fn has_open(&self, to: &Destination) -> bool {
        self.connections(to).has_connections()
    }

    fn connections(&self, to: &Destination) -> Arc<Connections> {
        let mut destinations = self.destinations.lock();
        let key = to.key();
        if destinations.len() >= DESTINATIONS_MAX && !destinations.contains_key(&key) {
            destinations.retain(|_, one| Arc::strong_count(one) > 1 || one.has_connections());
            if destinations.len() >= DESTINATIONS_MAX {
                return Arc::default();
            }
        }
        destinations.entry(key).or_default().clone()
    }
}

impl Connections {
    async fn connect(
        &self,
        to: &Destination,
        connector: &Connector,
        permit: OwnedSemaphorePermit,
    ) -> Result<PooledConnection, OutboundError> {
        let (requests, driver) = connector.connect(to).await?;
        let activity = Arc::new(Mutex::new(Activity { under_way: 0, changed: Instant::now() }));
        tokio::spawn(drive(driver, activity.clone(), permit));
        let connection = PooledConnection { requests, activity };
        let mut kept = self.kept.lock();
        kept.shared = connection.shared();
        kept.speaks_http1 = kept.shared.is_none();
        Ok(connection)
    }

    /// Returns an open connection for another exchange.
    fn take(&self) -> Option<PooledConnection> {
        let mut kept = self.kept.lock();
        if kept.shared.as_ref().is_some_and(PooledConnection::is_closed) {
            kept.shared = None;
        }
        match &kept.shared {
            Some(shared) => shared.shared(),
            None => std::iter::from_fn(|| kept.idle.pop()).find(|connection| !connection.is_closed()),
        }
    }

    fn has_connections(&self) -> bool {
        let mut kept = self.kept.lock();
        kept.idle.retain(|connection| !connection.is_closed());
        !kept.idle.is_empty() || kept.shared.as_ref().is_some_and(|shared| !shared.is_closed())
    }

    fn close_unused(&self) {
        let mut kept = self.kept.lock();
        kept.idle.clear();
        kept.shared.take_if(|shared| shared.activity.lock().under_way == 0);
    }
}

impl PooledConnection {
    fn is_closed(&self) -> bool {
        match &self.requests {
            Requests::Http1(requests) => requests.is_closed(),
            Requests::Http2(requests) => requests.is_closed(),
        }
    }

    /// The same connection for another exchange. `None`: each needs its own.
    fn shared(&self) -> Option<Self> {
        match &self.requests {
            Requests::Http1(_) => None,
            Requests::Http2(requests) => {
                Some(Self { requests: Requests::Http2(requests.clone()), activity: self.activity.clone() })
            }
        }
    }
}

impl LeasedConnection {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.connection.requests, Requests::Http2(_))
    }

    /// Whether the connection has had requests before, so that the other server may be closing it.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        match &mut self.connection.requests {
            Requests::Http1(requests) => {
                // An error is that of the attempt that follows.
                let _ready = requests.ready().await;
                requests.try_send_request(request).await.map_err(Unanswered)
            }
            Requests::Http2(requests) => requests.try_send_request(request).await.map_err(Unanswered),
        }
    }

    /// Keeps the connection for later exchanges. Called when the response is complete.
    pub(super) fn give_back(self) {
        let mut kept = self.connections.kept.lock();
        if !self.is_http2() && kept.idle.len() < IDLE_MAX {
            kept.idle.push(self.connection);
        }
        drop(kept);
        // From here on, an exchange that waits for a connection finds this one.
        drop(self.under_way);
    }

    /// Keeps the connection from being used by later exchanges: it has not taken a request.
    pub(super) fn discard(self) {
        self.connections
            .kept
            .lock()
            .shared
            .take_if(|shared| Arc::ptr_eq(&shared.activity, &self.connection.activity));
    }
}

/// Polls a connection until it ends or is not used for [`IDLE_TIME`].
async fn drive(mut driver: Driver, activity: Arc<Mutex<Activity>>, _permit: OwnedSemaphorePermit) {
    let mut due = Instant::now() + IDLE_TIME;
    loop {
        tokio::select! {
            () = &mut driver => return,
            () = sleep_until(due) => {
                let activity = activity.lock();
                let now = Instant::now();
                due = if activity.under_way == 0 { activity.changed + IDLE_TIME } else { now + IDLE_TIME };
                if due <= now {
                    return;
                }
            }
        }
    }
}
