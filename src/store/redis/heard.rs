//! [`HeardPartitions`]: the partitions whose news arrive over some connection. The others are *blind*.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::argument::{ChangeChannel, PARTITIONS, partition_of_channel};
use super::shared::SharedStore;
use crate::metrics::EngineMetrics;

/// The partitions whose news arrive, each with the number of connections that are subscribed to it: for a moment two, when the partition
/// moves to another server. While any partition is blind, no tail is known without a call.
#[derive(Clone)]
pub(super) struct HeardPartitions {
    store: Weak<SharedStore>,
    pub(super) connections: Arc<watch::Sender<BTreeMap<u64, usize>>>,
    pub(super) metrics: EngineMetrics,
}

/// Number of partitions whose news nobody gets.
pub(super) fn blind_count(heard: &BTreeMap<u64, usize>) -> usize {
    (PARTITIONS as usize).saturating_sub(heard.len())
}

impl HeardPartitions {
    pub(super) fn none(store: Weak<SharedStore>, metrics: EngineMetrics) -> Self {
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

/// The partitions and channels that one connection is subscribed to. When it is dropped, they are not heard over it any more.
pub(super) struct Subscribed {
    pub(super) partitions: BTreeSet<u64>,
    channels: BTreeSet<ChangeChannel>,
    /// Channels that were left, which the server has not confirmed yet.
    left: BTreeSet<ChangeChannel>,
    heard: HeardPartitions,
}

impl Subscribed {
    pub(super) fn nothing(heard: HeardPartitions) -> Self {
        let (partitions, channels, left) = Default::default();
        Self { partitions, channels, left, heard }
    }

    pub(super) fn insert(&mut self, partition: u64) {
        if self.partitions.insert(partition) {
            self.heard.change(|heard| *heard.entry(partition).or_default() += 1);
        }
    }

    pub(super) fn insert_channel(&mut self, channel: ChangeChannel) {
        if let Some(store) = self.heard.store.upgrade()
            && self.channels.insert(channel)
        {
            store.attached.interest.hear(channel);
        }
    }

    /// Removes partitions with their channels, which it returns.
    pub(super) fn remove(&mut self, partitions: &BTreeSet<u64>) -> BTreeSet<ChangeChannel> {
        let lost = take(&mut self.partitions, |one| partitions.contains(one));
        let channels = take(&mut self.channels, |one| partitions.contains(&one.partition));
        self.forget(&lost, &channels);
        channels
    }

    /// Removes the partition of a channel that the server has unsubscribed unasked, as the partition has moved.
    pub(super) fn unsubscribed(&mut self, channel: &str) {
        if !take(&mut self.left, |left| left.name() == channel).is_empty() {
            return;
        }
        let of_changes = self.channels.iter().find(|subscribed| subscribed.name() == channel);
        let partition = of_changes.map(|channel| channel.partition);
        if let Some(partition) = partition.or_else(|| partition_of_channel(channel)) {
            let _channels = self.remove(&BTreeSet::from([partition]));
        }
    }

    /// Takes the channels that are not needed any more, from which the connection is to unsubscribe.
    pub(super) fn leave_needless(&mut self) -> Vec<ChangeChannel> {
        let Some(store) = self.heard.store.upgrade() else { return Vec::new() };
        let needless = store.attached.interest.take_needless(&mut self.channels);
        self.left = needless.iter().copied().collect();
        needless
    }

    fn forget(&self, lost: &BTreeSet<u64>, channels: &BTreeSet<ChangeChannel>) {
        // First, as nothing counts as known without all partitions.
        if !lost.is_empty() {
            self.heard.change(|heard| {
                heard.retain(|partition, connections| {
                    *connections -= usize::from(lost.contains(partition));
                    *connections > 0
                });
            });
        }
        if let Some(store) = self.heard.store.upgrade() {
            store.attached.interest.unhear(channels);
        }
    }
}

/// Takes what is `taken` from a set.
fn take<T: Ord>(set: &mut BTreeSet<T>, taken: impl Fn(&T) -> bool) -> BTreeSet<T> {
    let (took, kept) = std::mem::take(set).into_iter().partition(taken);
    *set = kept;
    took
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.forget(&self.partitions, &self.channels);
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
        store.attached.interest.hear(ChangeChannel::of(&name));
        let heard = HeardPartitions::none(Arc::downgrade(&store), EngineMetrics::default());
        let connection = || Subscribed::nothing(heard.clone());
        let blind = || (blind_count(&heard.connections.borrow()), store.attached.news_seen(&name).is_none());
        let (mut from, mut to) = (connection(), connection());
        (1..PARTITIONS).for_each(|partition| from.insert(partition));
        to.insert(1);
        assert_eq!(blind(), (1, true), "nobody hears partition 0");
        to.insert(0);
        assert_eq!(blind(), (0, false));
        let _channels = from.remove(&BTreeSet::from([1]));
        assert_eq!(blind(), (0, false), "the other connection hears it");
        to.insert(2);
        drop(from);
        assert_eq!(blind(), (PARTITIONS as usize - 3, true));
    }

    #[tokio::test]
    async fn a_channel_that_was_left_is_not_taken_for_a_partition_that_has_moved() {
        let store = unconnected();
        let heard = HeardPartitions::none(Arc::downgrade(&store), EngineMetrics::default());
        let mut connection = Subscribed::nothing(heard);
        let channel = ChangeChannel::of(&StreamName::parse("s").unwrap());
        connection.insert(channel.partition);
        connection.insert_channel(channel);
        assert_eq!(connection.leave_needless(), [channel]);
        // A reader has come back meanwhile.
        connection.insert_channel(channel);
        connection.unsubscribed(&channel.name());
        assert!(connection.partitions.contains(&channel.partition));
        connection.unsubscribed(&channel.name());
        assert!(connection.partitions.is_empty());
    }
}
