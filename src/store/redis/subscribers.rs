//! Receives the news of all gateways by sharded pub/sub: one connection to each server, which subscribes to the channels of the partitions
//! that the server has: some of each partition, and those for changes of streams that this gateway has readers of (`interest.rs`).
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
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::address::{NodeAddress, Topology};
use super::argument::{BASE_CHANNELS, ChangeChannel, PARTITIONS, channel_of, has_records, partition};
use super::heard::{HeardPartitions, Subscribed, blind_count};
use super::news_queue::{NewsQueue, news_queue};
use super::reply::{bytes, text};
use super::shared::SharedStore;
use crate::clock::Backoff;
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
        let mut subscribed = Subscribed::nothing(self.heard.clone());
        let mut wanted_channels = self.store.upgrade()?.attached.interest.wanted();
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
                let shared = self.store.upgrade()?;
                let interest = &shared.attached.interest;
                let missing = interest.missing(&subscribed.partitions);
                let Ok(unheard) = hear(&connection, &mut subscribed, missing).await else {
                    return Some(LOST);
                };
                if !new.is_empty() {
                    shared.engine.metrics.healed(cause);
                    cause = "moved";
                    unread.extend(new);
                    self.listener.missed();
                }
                unread.extend(shared.tell_read_early(&*self.listener).await);
                // Their tails are read until they are heard.
                unread.extend(unheard.iter());
                if !unread.is_empty() {
                    let told = shared.tell_lost_claims(&unread, &*self.listener).await;
                    let untold = shared.tell_attached(&unread, &*self.listener).await;
                    let is_told =
                        |one: &u64| told.contains(one) && !untold.contains(one) && !unheard.contains(one);
                    unread.retain(|partition| !is_told(partition));
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
                        if let Some(channel) = data.into_iter().next().and_then(text) {
                            subscribed.unsubscribed(&channel);
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
                Ok(()) = wanted_channels.changed() => heals = true,
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
                    unsubscribe(&connection, subscribed.leave_needless().into_iter().map(ChangeChannel::name)).await;
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
        if has_records(&channel) {
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
        let subscribe = async |partition: u64| {
            for channel in BASE_CHANNELS {
                if !subscribe(connection, &channel_of(partition, channel)).await? {
                    return Ok::<_, RedisError>(None);
                }
            }
            Ok(Some(partition))
        };
        let mut new = BTreeSet::new();
        for confirmed in join_all(missing.map(subscribe).collect::<Vec<_>>()).await {
            if let Some(partition) = confirmed? {
                subscribed.insert(partition);
                new.insert(partition);
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
        let channels = subscribed.remove(&moved).into_iter().map(ChangeChannel::name);
        let base = moved.iter().flat_map(|one| BASE_CHANNELS.map(|channel| channel_of(*one, channel)));
        unsubscribe(connection, channels.chain(base)).await;
    }
}

/// Subscribes to the channels of changed streams. Returns the partitions whose channels the server refuses. Fails if the connection is lost.
async fn hear(
    connection: &MultiplexedConnection,
    subscribed: &mut Subscribed,
    channels: Vec<ChangeChannel>,
) -> Result<BTreeSet<u64>, RedisError> {
    let subscribe = async |channel: ChangeChannel| (channel, subscribe(connection, &channel.name()).await);
    let mut refused = BTreeSet::new();
    for (channel, is_confirmed) in join_all(channels.into_iter().map(subscribe)).await {
        if is_confirmed? {
            subscribed.insert_channel(channel);
        } else {
            refused.insert(channel.partition);
        }
    }
    Ok(refused)
}

/// Subscribes to a channel. Returns whether the server has confirmed it: it refuses if it does not have the partition of the channel. Fails
/// if the connection is lost.
async fn subscribe(connection: &MultiplexedConnection, channel: &str) -> Result<bool, RedisError> {
    let command = cmd("SSUBSCRIBE").arg(channel).to_owned();
    let answer = connection.clone().send_packed_command(&command).await;
    match answer.and_then(Value::extract_error) {
        Ok(answer) => Ok(confirms(answer, channel)),
        Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
            tracing::debug!(channel, %error, "cannot subscribe to a channel");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Ends the subscriptions to channels. A lost connection is noticed by its end.
async fn unsubscribe(connection: &MultiplexedConnection, channels: impl Iterator<Item = String>) {
    let unsubscribe = async |channel: String| {
        let command = cmd("SUNSUBSCRIBE").arg(channel).to_owned();
        connection.clone().send_packed_command(&command).await
    };
    let _answers = join_all(channels.map(unsubscribe)).await;
}

/// Whether an answer to `SSUBSCRIBE` confirms the subscription to `channel`. The crate takes the message that a partition has moved away,
/// which the server sends unasked, for the answer to the oldest command.
fn confirms(answer: Value, channel: &str) -> bool {
    match answer {
        Value::Push { kind: PushKind::SSubscribe, data } => {
            data.into_iter().next().and_then(text).is_some_and(|confirmed| confirmed == channel)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_confirmed_by_its_own_channel() {
        let push = |kind| Value::Push { kind, data: vec![Value::BulkString(b"one".to_vec())] };
        assert!(confirms(push(PushKind::SSubscribe), "one"));
        assert!(!confirms(push(PushKind::SSubscribe), "other"));
        assert!(!confirms(push(PushKind::SUnsubscribe), "one"));
    }
}
