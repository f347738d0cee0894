//! Receives the news of all gateways by sharded pub/sub: one connection to each server, which subscribes to the partitions that the server
//! has.
//!
//! Pub/sub may lose messages: when a connection is lost, when the engine drops a slow subscriber, or while a partition moves to another
//! server. A partition is *blind* from then on, until it is subscribed to again. After that the tails of its attached streams are read,
//! and from time to time anyway, so a lost message only delays its readers.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::address::{NodeAddress, Topology};
use super::argument::{PARTITIONS, news_channel, partition, partition_of_channel};
use super::reply::text;
use super::shared::SharedStore;
use crate::clock::Backoff;
use crate::metrics::EngineMetrics;
use crate::stream::NewsListener;

/// Delays between two attempts to connect.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(2) };

/// Interval at which the tails of all attached streams are read in case news were lost without notice.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Interval of the PINGs that measure how far the news are behind. A connection without an answer is replaced.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Interval of attempts to subscribe to what is blind, and to read tails that could not be read.
const HEAL_INTERVAL: Duration = Duration::from_millis(200);

/// How often sentinels are asked for the primary, and a cluster for its slots.
const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);
const CLUSTER_INTERVAL: Duration = Duration::from_secs(30);

const LOST: &str = "the connection was lost";

/// Follows the news until the store is dropped.
pub(super) async fn follow(store: Weak<SharedStore>, listener: Arc<dyn NewsListener>) {
    let Some((mut changes, blind)) = store.upgrade().map(|shared| {
        let blind = Blind::all(store.clone(), shared.engine.metrics.clone());
        (shared.engine.nodes.changes(), blind)
    }) else {
        return;
    };
    let mut blind_now = blind.count.subscribe();
    let mut wanted: HashMap<NodeAddress, watch::Sender<BTreeSet<u64>>> = HashMap::new();
    // Dropped with this task, they end.
    let mut connections = JoinSet::new();
    loop {
        let Some(shared) = store.upgrade() else { return };
        let nodes = &shared.engine.nodes;
        let partitions = nodes.distribution((0..PARTITIONS).map(partition)).await;
        wanted.retain(|node, _| partitions.contains_key(node));
        for (node, numbers) in partitions {
            let partitions: BTreeSet<u64> = numbers.into_iter().collect();
            if let Some(known) = wanted.get(&node) {
                known.send_if_modified(|current| {
                    let differs = *current != partitions;
                    *current = partitions;
                    differs
                });
            } else {
                let (sender, wanted_here) = watch::channel(partitions);
                let connection = NewsConnection {
                    store: store.clone(),
                    listener: listener.clone(),
                    node: node.clone(),
                    wanted: wanted_here,
                    blind: blind.clone(),
                };
                connections.spawn(connection.run());
                wanted.insert(node, sender);
            }
        }
        let refresh_after = match nodes.topology() {
            Topology::Cluster if *blind_now.borrow_and_update() == 0 => CLUSTER_INTERVAL,
            Topology::Cluster => HEAL_INTERVAL,
            Topology::Single | Topology::Sentinel { .. } => SENTINEL_INTERVAL,
        };
        drop(shared);
        tokio::select! {
            _ = changes.changed() => {}
            _ = blind_now.changed() => sleep(HEAL_INTERVAL / 10).await,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = sleep(refresh_after) => {}
        }
        let Some(shared) = store.upgrade() else { return };
        if let Err(error) = shared.engine.nodes.refresh().await {
            tracing::debug!(%error, "cannot read which servers have the streams");
        }
    }
}

/// Counts the partitions whose news nobody gets. While there is any, no tail is known without a call.
#[derive(Clone)]
struct Blind {
    store: Weak<SharedStore>,
    count: Arc<watch::Sender<usize>>,
    metrics: EngineMetrics,
}

impl Blind {
    fn all(store: Weak<SharedStore>, metrics: EngineMetrics) -> Self {
        metrics.set_blind(PARTITIONS as usize);
        Self { store, count: Arc::new(watch::Sender::new(PARTITIONS as usize)), metrics }
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        let Some(shared) = self.store.upgrade() else { return };
        self.count.send_modify(|count| {
            let before = *count;
            change(count);
            match (before, *count) {
                (1.., 0) => shared.attached.news_begin(),
                (0, 1..) => shared.attached.news_end(),
                _ => {}
            }
        });
        self.metrics.set_blind(*self.count.borrow());
    }
}

/// The partitions that one connection is subscribed to. They are blind when it is dropped.
struct Subscribed {
    partitions: BTreeSet<u64>,
    blind: Blind,
}

impl Subscribed {
    fn insert(&mut self, partition: u64) {
        if self.partitions.insert(partition) {
            self.blind.change(|count| *count = count.saturating_sub(1));
        }
    }

    fn remove(&mut self, partition: u64) {
        if self.partitions.remove(&partition) {
            self.blind.change(|count| *count += 1);
        }
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let lost = self.partitions.len();
        if lost > 0 {
            self.blind.change(|count| *count += lost);
        }
    }
}

/// Gets the news of one server.
struct NewsConnection {
    store: Weak<SharedStore>,
    listener: Arc<dyn NewsListener>,
    node: NodeAddress,
    /// The partitions that the server has, as far as is known. It closes when the server has none.
    wanted: watch::Receiver<BTreeSet<u64>>,
    blind: Blind,
}

impl NewsConnection {
    async fn run(mut self) {
        let mut failures = 0;
        while self.wanted.has_changed().is_ok() {
            let (sender, pushes) = mpsc::unbounded_channel();
            let Some(shared) = self.store.upgrade() else { return };
            let connected = shared.engine.nodes.subscriber(&self.node, sender).await;
            drop(shared);
            match connected {
                Ok(connection) => {
                    failures = 0;
                    let Some(lost) = self.listen(connection, pushes).await else { return };
                    tracing::warn!(node = %self.node, "{lost}; connecting again for the news of other gateways");
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(node = %self.node, %error, "cannot subscribe to the news of other gateways; trying again");
                    }
                }
            }
            sleep(RECONNECT.half_jitter(failures.max(1), fastrand::f64())).await;
        }
    }

    /// Passes news on until the connection is lost, and returns how. `None`: the server has no partitions any more.
    async fn listen(
        &mut self,
        mut connection: MultiplexedConnection,
        mut pushes: mpsc::UnboundedReceiver<PushInfo>,
    ) -> Option<&'static str> {
        let mut subscribed = Subscribed { partitions: BTreeSet::new(), blind: self.blind.clone() };
        let mut unread = BTreeSet::new();
        let mut cause = "connection";
        let mut pings = JoinSet::new();
        let mut ping = interval(PING_INTERVAL);
        let mut check = interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.reset();
        let mut heal = interval(HEAL_INTERVAL);
        heal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heals = true;
        loop {
            if heals {
                heals = false;
                let Ok(new) = self.subscribe(&connection, &mut subscribed).await else { return Some(LOST) };
                if !new.is_empty() {
                    let shared = self.store.upgrade()?;
                    shared.engine.metrics.healed(cause);
                    cause = "moved";
                    unread.extend(new);
                    self.listener.missed();
                }
                if !unread.is_empty() {
                    let shared = self.store.upgrade()?;
                    shared.tell_lost_claims(&unread, &*self.listener).await;
                    let read = shared.tell_attached(&unread, &*self.listener).await;
                    unread.retain(|partition| !read.contains(partition));
                }
            }
            let is_whole = unread.is_empty() && self.wanted.borrow().is_subset(&subscribed.partitions);
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(PushInfo { kind: PushKind::SMessage, data }) => {
                        self.blind.metrics.heard();
                        if let Some(message) = data.into_iter().nth(1).and_then(text) {
                            self.store.upgrade()?.tell(&message, &*self.listener);
                        }
                    }
                    // The partition has moved to another server.
                    Some(PushInfo { kind: PushKind::SUnsubscribe, data }) => {
                        let channel = data.into_iter().next().and_then(text);
                        if let Some(partition) = channel.and_then(|channel| partition_of_channel(&channel)) {
                            subscribed.remove(partition);
                        }
                    }
                    Some(PushInfo { kind: PushKind::Disconnection, .. }) | None => return Some(LOST),
                    Some(_) => {}
                },
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    self.unsubscribe(&mut connection, &mut subscribed).await;
                    heals = true;
                }
                _ = ping.tick(), if pings.is_empty() => {
                    let mut connection = connection.clone();
                    pings.spawn(async move {
                        let sent = Instant::now();
                        cmd("PING").query_async::<Value>(&mut connection).await.map(|_| sent.elapsed())
                    });
                }
                Some(answer) = pings.join_next() => match answer {
                    Ok(Ok(lag)) => self.blind.metrics.lagged(lag),
                    Ok(Err(_)) | Err(_) => return Some("the engine does not answer on the connection"),
                },
                _ = check.tick() => {
                    unread.extend(subscribed.partitions.iter().copied());
                    heals = true;
                }
                _ = heal.tick(), if !is_whole => heals = true,
            }
        }
    }

    /// Subscribes to what is wanted, and returns the partitions that are new. Those that the server refuses, as it does not have them,
    /// stay blind. Fails if the connection is lost.
    async fn subscribe(
        &mut self,
        connection: &MultiplexedConnection,
        subscribed: &mut Subscribed,
    ) -> Result<BTreeSet<u64>, RedisError> {
        let wanted = self.wanted.borrow_and_update().clone();
        let missing = wanted.difference(&subscribed.partitions).copied();
        let subscribe = |partition: u64| {
            let mut connection = connection.clone();
            async move {
                let command = cmd("SSUBSCRIBE").arg(news_channel(partition)).to_owned();
                let answer = connection.send_packed_command(&command).await.and_then(Value::extract_error);
                (partition, answer)
            }
        };
        let mut new = BTreeSet::new();
        for (partition, answer) in join_all(missing.map(subscribe).collect::<Vec<_>>()).await {
            match answer {
                Ok(_) => {
                    subscribed.insert(partition);
                    new.insert(partition);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                    tracing::debug!(node = %self.node, partition, %error, "cannot subscribe to a partition");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(new)
    }

    /// Ends the subscriptions to partitions that another server has now.
    async fn unsubscribe(&mut self, connection: &mut MultiplexedConnection, subscribed: &mut Subscribed) {
        let wanted = self.wanted.borrow().clone();
        let moved: Vec<u64> = subscribed.partitions.difference(&wanted).copied().collect();
        for partition in moved {
            subscribed.remove(partition);
            let command = cmd("SUNSUBSCRIBE").arg(news_channel(partition)).to_owned();
            // A lost connection is noticed by its end.
            let _answer = connection.send_packed_command(&command).await;
        }
    }
}
