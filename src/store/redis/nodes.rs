//! [`Nodes`]: the servers of an engine, the connections to them, and which of them has which keys.
//!
//! The crate's clients of clusters and Sentinel are not used: that of clusters repeats commands of which it does not know whether they
//! were done, carries news and data on one connection, and does not tell which channels were blind for how long; that of Sentinel opens a
//! connection to the primary each time it is asked for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, PushInfo, RedisError, ServerErrorKind, Value, cmd,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::address::{EngineAddress, NodeAddress, Topology};
use super::functions::{self, Dialect};
use super::reply::{items, text};
use super::slots::{SlotMap, slot_of};

/// After this time without an answer, a call counts as failed.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The map of the servers is not read again within this time.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// The servers of an engine.
pub(super) struct Nodes {
    address: EngineAddress,
    /// The runtime of the connections' tasks, which must live as long as the store.
    runtime: Handle,
    routes: RwLock<Routes>,
    /// Counts the changes of the routes.
    changes: watch::Sender<u64>,
    links: Mutex<HashMap<NodeAddress, Arc<NodeLink>>>,
    /// The connection that tells the routes, and when it was last asked.
    guide: tokio::sync::Mutex<Guide>,
    next_number: AtomicU64,
}

/// Which server has which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Routes {
    Unknown,
    One(NodeAddress),
    Slots(SlotMap),
}

/// The connection to one server. It is locked while it is being made, which all callers wait for.
type NodeLink = tokio::sync::Mutex<LinkState>;

#[derive(Default)]
struct LinkState {
    connected: Option<Connected>,
    /// The last attempt that failed, and when.
    failed: Option<(Instant, RedisError)>,
}

/// A connection with the functions loaded.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) dialect: Dialect,
    number: u64,
}

#[derive(Default)]
struct Guide {
    connection: Option<(NodeAddress, MultiplexedConnection)>,
    asked_at: Option<Instant>,
}

/// What a caller does about the error of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterError {
    /// The call was not done, and another attempt will find the right server.
    Again,
    /// The call was not done; the keys are being moved.
    Later,
    /// The call may have been done, or will always fail.
    Fail,
}

impl Nodes {
    pub(super) fn new(address: EngineAddress, runtime: Handle) -> Self {
        let routes = match (&address.topology, address.seeds.first()) {
            (Topology::Single, Some(seed)) => Routes::One(seed.clone()),
            _ => Routes::Unknown,
        };
        Self {
            address,
            runtime,
            routes: RwLock::new(routes),
            changes: watch::Sender::new(0),
            links: Mutex::default(),
            guide: tokio::sync::Mutex::default(),
            next_number: AtomicU64::new(0),
        }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.address.topology
    }

    /// Is notified of each change of the routes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The server that has the keys with the tag of `key`.
    pub(super) async fn node_of(&self, key: &str) -> Result<NodeAddress, RedisError> {
        if let Some(node) = self.known_node(key) {
            return Ok(node);
        }
        self.refresh().await?;
        self.known_node(key).ok_or_else(|| error("no node of the cluster has the hash slot"))
    }

    fn known_node(&self, key: &str) -> Option<NodeAddress> {
        match &*self.routes.read() {
            Routes::Unknown => None,
            Routes::One(node) => Some(node.clone()),
            Routes::Slots(map) => map.node(slot_of(key)).cloned(),
        }
    }

    /// The servers with the numbers of the keys that each of them has.
    pub(super) async fn distribution(
        &self,
        keys: impl Iterator<Item = String>,
    ) -> HashMap<NodeAddress, Vec<u64>> {
        // Without an answer, no server is known.
        let _known = self.all().await;
        let mut distribution: HashMap<_, Vec<u64>> = HashMap::new();
        for (number, key) in (0..).zip(keys) {
            if let Some(node) = self.known_node(&key) {
                distribution.entry(node).or_default().push(number);
            }
        }
        distribution
    }

    /// All servers that have keys.
    pub(super) async fn all(&self) -> Result<Vec<NodeAddress>, RedisError> {
        if *self.routes.read() == Routes::Unknown {
            self.refresh().await?;
        }
        Ok(match &*self.routes.read() {
            Routes::Unknown => Vec::new(),
            Routes::One(node) => vec![node.clone()],
            Routes::Slots(map) => map.nodes(),
        })
    }

    /// Number of hash slots that no node has; `None` if the engine is no cluster.
    pub(super) fn uncovered(&self) -> Option<usize> {
        match &*self.routes.read() {
            Routes::Slots(map) => Some(usize::from(super::slots::SLOTS) - map.covered()),
            Routes::Unknown | Routes::One(_) => None,
        }
    }

    /// Reads again which server has which keys, unless that was done a moment ago.
    pub(super) async fn refresh(&self) -> Result<(), RedisError> {
        if self.address.topology == Topology::Single {
            return Ok(());
        }
        let mut guide = self.guide.lock().await;
        let is_known = *self.routes.read() != Routes::Unknown;
        if is_known && guide.asked_at.is_some_and(|at| at.elapsed() < REFRESH_INTERVAL) {
            return Ok(());
        }
        let routes = match guide.connection.take() {
            Some((node, connection)) => match self.ask(&node, connection.clone()).await {
                Ok(routes) => {
                    guide.connection = Some((node, connection));
                    routes
                }
                Err(_) => self.ask_others(&mut guide).await?,
            },
            None => self.ask_others(&mut guide).await?,
        };
        guide.asked_at = Some(Instant::now());
        drop(guide);
        self.follow(routes);
        Ok(())
    }

    /// Asks the servers of the URL, and the other nodes that are known, until one answers.
    async fn ask_others(&self, guide: &mut Guide) -> Result<Routes, RedisError> {
        let known = match &*self.routes.read() {
            Routes::Slots(map) => map.nodes(),
            Routes::Unknown | Routes::One(_) => Vec::new(),
        };
        let mut last = error("no server of the engine is known");
        for node in known.iter().chain(&self.address.seeds) {
            let asked = async {
                let connection = self.open_guide(node).await?;
                Ok((self.ask(node, connection.clone()).await?, connection))
            };
            match asked.await {
                Ok((routes, connection)) => {
                    guide.connection = Some((node.clone(), connection));
                    return Ok(routes);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends a command to the server that tells the routes.
    pub(super) async fn ask_guide(&self, command: &Cmd) -> Result<Value, RedisError> {
        let guide = self.guide.lock().await;
        let (_, connection) = guide.connection.as_ref().ok_or_else(|| error("no server tells the routes"))?;
        connection.clone().send_packed_command(command).await.and_then(Value::extract_error)
    }

    async fn open_guide(&self, node: &NodeAddress) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        if let Topology::Sentinel { .. } = self.address.topology {
            // Sentinels seldom have passwords, and refuse one that they do not expect.
            let mut open = self.open(node, false, &config).await?;
            match cmd("PING").query_async::<Value>(&mut open).await {
                Err(error) if error.code() == Some("NOAUTH") => {}
                answer => return answer.map(|_| open),
            }
        }
        self.open(node, true, &config).await
    }

    async fn open(
        &self,
        node: &NodeAddress,
        with_credentials: bool,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        let client = self.address.client(node, with_credentials, ProtocolVersion::RESP2)?;
        let config = config.clone();
        let connecting = async move { client.get_multiplexed_async_connection_with_config(&config).await };
        // The connection's task belongs to the runtime of the store, whichever runtime calls.
        self.runtime.spawn(connecting).await.map_err(|_| error("the runtime of the store has ended"))?
    }

    /// Asks one server for the routes.
    async fn ask(
        &self,
        node: &NodeAddress,
        mut connection: MultiplexedConnection,
    ) -> Result<Routes, RedisError> {
        if let Topology::Sentinel { service } = &self.address.topology {
            let mut ask = cmd("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
            let answer: Option<(String, u16)> = ask.query_async(&mut connection).await?;
            let (host, port) = answer.ok_or_else(|| error("the sentinel does not know the service"))?;
            return Ok(Routes::One(NodeAddress::new(&host, port)));
        }
        let answer: Value = cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
        let map = SlotMap::parse(answer, node).filter(|map| map.covered() > 0);
        map.map(Routes::Slots).ok_or_else(|| error("the node knows no hash slots of a cluster"))
    }

    fn follow(&self, routes: Routes) {
        {
            let mut current = self.routes.write();
            if *current == routes {
                return;
            }
            *current = routes;
        }
        let current = match &*self.routes.read() {
            Routes::Unknown => Vec::new(),
            Routes::One(node) => vec![node.clone()],
            Routes::Slots(map) => map.nodes(),
        };
        self.links.lock().retain(|node, _| current.contains(node));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The connection to a server; it is made if there is none.
    pub(super) async fn connected(&self, node: &NodeAddress) -> Result<Connected, RedisError> {
        let link = self.links.lock().entry(node.clone()).or_default().clone();
        let called_at = Instant::now();
        let mut state = link.lock().await;
        match &*state {
            LinkState { connected: Some(connected), .. } => return Ok(connected.clone()),
            // Callers that waited for an attempt share its failure.
            LinkState { failed: Some((at, error)), .. } if *at >= called_at => return Err(error.clone()),
            _ => {}
        }
        match self.connect(node).await {
            Ok(connected) => {
                *state = LinkState { connected: Some(connected.clone()), failed: None };
                Ok(connected)
            }
            Err(error) => {
                *state = LinkState { connected: None, failed: Some((Instant::now(), error.clone())) };
                drop(state);
                if self.address.topology != Topology::Single {
                    // Another server may have taken over.
                    let _known = self.refresh().await;
                }
                Err(error)
            }
        }
    }

    async fn connect(&self, node: &NodeAddress) -> Result<Connected, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let mut connection = self.open(node, true, &config).await?;
        if let Topology::Sentinel { .. } = self.address.topology {
            let role = cmd("ROLE").query_async::<Value>(&mut connection).await?;
            let role = items(role).and_then(|role| text(role.into_iter().next()?));
            if role.as_deref() != Some("master") {
                return Err(error("the server that the sentinels name is no primary"));
            }
        }
        let dialect = functions::load(&mut connection).await?;
        Ok(Connected { connection, dialect, number: self.next_number.fetch_add(1, Ordering::Relaxed) })
    }

    /// Makes the next call on a server connect again, unless another caller has done so.
    async fn forget(&self, node: &NodeAddress, connected: &Connected) {
        let link = self.links.lock().get(node).cloned();
        if let Some(link) = link {
            let mut state = link.lock().await;
            if state.connected.as_ref().is_some_and(|current| current.number == connected.number) {
                state.connected = None;
            }
        }
    }

    /// Learns from the error of a call on `node`, and says what its caller does next.
    pub(super) async fn learn(
        &self,
        node: &NodeAddress,
        connected: &Connected,
        error: &RedisError,
    ) -> AfterError {
        if functions::are_missing(error) {
            self.forget(node, connected).await;
            return AfterError::Again;
        }
        let is_single = self.address.topology == Topology::Single;
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => {
                let moved = error.redirect_node().map(|(to, slot)| (to.to_owned(), slot));
                if let Some((to, slot)) = moved
                    && let Some(mut to) = NodeAddress::parse(&to)
                {
                    if to.host().is_empty() {
                        to = to.at(node.host());
                    }
                    let mut routes = self.routes.read().clone();
                    if let Routes::Slots(map) = &mut routes {
                        map.set(slot, to);
                        self.follow(routes);
                    }
                }
                AfterError::Again
            }
            // ASK is not followed: the other node has only some of the keys that the function uses.
            ErrorKind::Server(
                ServerErrorKind::Ask | ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown,
            ) => AfterError::Later,
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
                self.forget(node, connected).await;
                if is_single {
                    return AfterError::Fail;
                }
                let _known = self.refresh().await;
                AfterError::Later
            }
            // The engine refused this call, for example because its memory is full (OOM, an extension); the connection is good.
            ErrorKind::Server(_) | ErrorKind::Extension => AfterError::Fail,
            _ => {
                self.forget(node, connected).await;
                if !is_single {
                    let _known = self.refresh().await;
                }
                AfterError::Fail
            }
        }
    }

    /// Opens a connection for news, which are sent to `news` until the connection ends.
    pub(super) async fn subscriber(
        &self,
        node: &NodeAddress,
        news: impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(news);
        let client = self.address.client(node, true, ProtocolVersion::RESP3)?;
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

fn error(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Client, what))
}
