//! Receives the news of all gateways by sharded pub/sub: one connection to each server, which subscribes to the partitions that the server
//! has.
//!
//! Pub/sub may lose messages: when a connection is lost, when the engine drops a slow subscriber, or while a partition moves to another
//! server. A partition is *blind* from then on, until it is subscribed to again. After that the tails of its attached streams are read,
//! and from time to time anyway, so a lost message only delays its readers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::address::{NodeAddress, Topology};
use super::argument::{MOVES, NEWS, PARTITIONS, channel_of, partition, partition_of_channel};
use super::news_queue::{NewsQueue, news_queue};
use super::reply::{bytes, text};
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
    let Some((mut changes, heard)) = store.upgrade().map(|shared| {
        let heard = HeardPartitions::none(store.clone(), shared.engine.metrics.clone());
        (shared.engine.nodes.changes(), heard)
    }) else {
        return;
    };
    let mut heard_now = heard.connections.subscribe();
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
                    heard: heard.clone(),
                };
                connections.spawn(connection.run());
                wanted.insert(node, sender);
            }
        }
        let refresh_after = match nodes.topology() {
            Topology::Cluster if blind_count(&heard_now.borrow_and_update()) == 0 => CLUSTER_INTERVAL,
            Topology::Cluster => HEAL_INTERVAL,
            Topology::Single | Topology::Sentinel { .. } => SENTINEL_INTERVAL,
        };
        drop(shared);
        tokio::select! {
            _ = changes.changed() => {}
            _ = heard_now.changed() => sleep(HEAL_INTERVAL / 10).await,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = sleep(refresh_after) => {}
        }
        let Some(shared) = store.upgrade() else { return };
        if let Err(error) = shared.engine.nodes.refresh().await {
            tracing::debug!(%error, "cannot read which servers have the streams");
        }
    }
}

/// The partitions whose news arrive, each with the number of connections that are subscribed to it: for a moment two, when the partition
/// moves to another server. While any partition is blind, no tail is known without a call.
#[derive(Clone)]
struct HeardPartitions {
    store: Weak<SharedStore>,
    connections: Arc<watch::Sender<BTreeMap<u64, usize>>>,
    metrics: EngineMetrics,
}

/// Number of partitions whose news nobody gets.
fn blind_count(heard: &BTreeMap<u64, usize>) -> usize {
    (PARTITIONS as usize).saturating_sub(heard.len())
}

impl HeardPartitions {
    fn none(store: Weak<SharedStore>, metrics: EngineMetrics) -> Self {
        metrics.set_blind(PARTITIONS as usize);
        Self { store, connections: Arc::default(), metrics }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, usize>)) {
        let Some(shared) = self.store.upgrade() else { return };
        self.connections.send_modify(|heard| {
            let before = blind_count(heard);
            change(heard);
            let blind = blind_count(heard);
            match (before, blind) {
                (1.., 0) => shared.attached.news_begin(),
                (0, 1..) => shared.attached.news_end(),
                _ => {}
            }
            self.metrics.set_blind(blind);
        });
    }
}

/// The partitions that one connection is subscribed to. When it is dropped, they are not heard over it any more.
struct Subscribed {
    partitions: BTreeSet<u64>,
    heard: HeardPartitions,
}

impl Subscribed {
    fn insert(&mut self, partition: u64) {
        if self.partitions.insert(partition) {
            self.heard.change(|heard| *heard.entry(partition).or_default() += 1);
        }
    }

    fn remove(&mut self, partitions: &BTreeSet<u64>) {
        let (lost, kept) =
            std::mem::take(&mut self.partitions).into_iter().partition(|one| partitions.contains(one));
        self.partitions = kept;
        self.forget(&lost);
    }

    fn forget(&self, lost: &BTreeSet<u64>) {
        if lost.is_empty() {
            return;
        }
        self.heard.change(|heard| {
            heard.retain(|partition, connections| {
                *connections -= usize::from(lost.contains(partition));
                *connections > 0
            });
        });
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.forget(&self.partitions);
    }
}

/// Gets the news of one server.
struct NewsConnection {
    store: Weak<SharedStore>,
    listener: Arc<dyn NewsListener>,
    node: NodeAddress,
    /// The partitions that the server has, as far as is known. It closes when the server has none.
    wanted: watch::Receiver<BTreeSet<u64>>,
    heard: HeardPartitions,
}

impl NewsConnection {
    async fn run(mut self) {
        let mut failures = 0;
        while self.wanted.has_changed().is_ok() {
            let (sender, pushes) = news_queue(self.store.clone());
            let Some(shared) = self.store.upgrade() else { return };
            let connected = shared.engine.nodes.subscriber(&self.node, move |push| sender.send(push)).await;
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
        connection: MultiplexedConnection,
        mut pushes: NewsQueue,
    ) -> Option<&'static str> {
        let mut subscribed = Subscribed { partitions: BTreeSet::new(), heard: self.heard.clone() };
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
                    let told = shared.tell_lost_claims(&unread, &*self.listener).await;
                    let read = shared.tell_attached(&unread, &*self.listener).await;
                    unread.retain(|partition| !(told.contains(partition) && read.contains(partition)));
                }
            }
            let is_whole = unread.is_empty() && self.wanted.borrow().is_subset(&subscribed.partitions);
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(PushInfo { kind: PushKind::SMessage, data }) => {
                        self.heard.metrics.heard();
                        self.tell(data)?;
                    }
                    // The partition has moved to another server.
                    Some(PushInfo { kind: PushKind::SUnsubscribe, data }) => {
                        let channel = data.into_iter().next().and_then(text);
                        if let Some(partition) = channel.and_then(|channel| partition_of_channel(&channel)) {
                            subscribed.remove(&BTreeSet::from([partition]));
                        }
                    }
                    Some(PushInfo { kind: PushKind::Disconnection, .. }) | None => return Some(LOST),
                    Some(_) => {}
                },
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    self.unsubscribe(&connection, &mut subscribed).await;
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
                    Ok(Ok(lag)) => self.heard.metrics.lagged(lag),
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

    /// Tells one message. `None`: the store has ended.
    fn tell(&self, data: Vec<Value>) -> Option<()> {
        let store = self.store.upgrade()?;
        let mut data = data.into_iter();
        let (Some(channel), Some(message)) = (data.next().and_then(bytes), data.next().and_then(bytes))
        else {
            return Some(());
        };
        if channel.ends_with(MOVES.as_bytes()) {
            store.tell_records(&message, &*self.listener);
        } else if let Ok(message) = std::str::from_utf8(&message) {
            store.tell(message, &*self.listener);
        }
        Some(())
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
                let mut is_confirmed = Ok(true);
                for channel in [NEWS, MOVES] {
                    if !matches!(is_confirmed, Ok(true)) {
                        break;
                    }
                    let command = cmd("SSUBSCRIBE").arg(channel_of(partition, channel)).to_owned();
                    let answer = connection.send_packed_command(&command).await;
                    let answer = answer.and_then(Value::extract_error);
                    is_confirmed = answer.map(|answer| confirmed(&answer) == Some(partition));
                }
                (partition, is_confirmed)
            }
        };
        let mut new = BTreeSet::new();
        for (partition, answer) in join_all(missing.map(subscribe).collect::<Vec<_>>()).await {
            match answer {
                Ok(true) => {
                    subscribed.insert(partition);
                    new.insert(partition);
                }
                // The next attempt is not disturbed.
                Ok(false) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                    tracing::debug!(node = %self.node, partition, %error, "cannot subscribe to a partition");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(new)
    }

    /// Ends the subscriptions to partitions that another server has now.
    async fn unsubscribe(&mut self, connection: &MultiplexedConnection, subscribed: &mut Subscribed) {
        let moved: BTreeSet<u64> = {
            let wanted = self.wanted.borrow();
            subscribed.partitions.difference(&wanted).copied().collect()
        };
        // At once, as the server may have stopped.
        subscribed.remove(&moved);
        let unsubscribe = |partition: u64| {
            let mut connection = connection.clone();
            async move {
                for channel in [MOVES, NEWS] {
                    let command = cmd("SUNSUBSCRIBE").arg(channel_of(partition, channel)).to_owned();
                    // A lost connection is noticed by its end.
                    let _answer = connection.send_packed_command(&command).await;
                }
            }
        };
        join_all(moved.into_iter().map(unsubscribe)).await;
    }
}

/// The partition that an answer to `SSUBSCRIBE` confirms. The crate takes the message that a partition has moved away, which the server
/// sends unasked, for the answer to the oldest command.
fn confirmed(answer: &Value) -> Option<u64> {
    match answer {
        Value::Push { kind: PushKind::SSubscribe, data } => {
            data.first().cloned().and_then(text).and_then(|channel| partition_of_channel(&channel))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::tests::unconnected;
    use super::*;
    use crate::stream::StreamName;

    #[tokio::test]
    async fn a_partition_that_two_connections_hear_for_a_moment_hides_no_blind_one() {
        let store = unconnected();
        let name = StreamName::parse("s").unwrap();
        store.attached.attach(&name);
        let heard = HeardPartitions::none(Arc::downgrade(&store), EngineMetrics::default());
        let connection = || Subscribed { partitions: BTreeSet::new(), heard: heard.clone() };
        let blind = || (blind_count(&heard.connections.borrow()), store.attached.news_seen(&name).is_none());
        let (mut from, mut to) = (connection(), connection());
        (1..PARTITIONS).for_each(|partition| from.insert(partition));
        to.insert(1);
        assert_eq!(blind(), (1, true), "nobody hears partition 0");
        to.insert(0);
        assert_eq!(blind(), (0, false));
        from.remove(&BTreeSet::from([1]));
        assert_eq!(blind(), (0, false), "the other connection hears it");
        to.insert(2);
        drop(from);
        assert_eq!(blind(), (PARTITIONS as usize - 3, true));
    }

    #[test]
    fn a_subscription_is_confirmed_by_its_own_channel() {
        let push =
            |kind| Value::Push { kind, data: vec![Value::BulkString(channel_of(7, MOVES).into_bytes())] };
        assert_eq!(confirmed(&push(PushKind::SSubscribe)), Some(7));
        assert_eq!(confirmed(&push(PushKind::SUnsubscribe)), None);
    }
}
