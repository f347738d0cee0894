//! [`SharedSubscriptions`]: the groups that a session is a member of, and the messages in flight that it has from them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::mqtt::codec::{PacketId, SubscriptionOptions};
use crate::mqtt::groups::Group;
use crate::stream::{Filter, Offset, StreamName};

/// Estimated memory of a shared subscription without its streams, in bytes.
const SHARED_BYTES: usize = 1024;

/// The shared subscriptions of a session.
#[derive(Debug, Default)]
pub(super) struct SharedSubscriptions {
    pub(super) all: Vec<SharedSubscription>,
    /// Messages in flight that belong to a group.
    pub(super) in_flight: HashMap<PacketId, (Arc<Group>, StreamName, Offset)>,
}

/// A shared subscription.
#[derive(Debug)]
pub(in crate::mqtt) struct SharedSubscription {
    /// The filter with `$share` and the name of the group.
    pub(super) key: Filter,
    /// The filter of the streams.
    pub(super) streams: Filter,
    pub(super) options: SubscriptionOptions,
    /// `None` until the client connects after a restart of the gateway, if the group was not stored.
    pub(super) group: Option<Arc<Group>>,
    /// The number of the connection in the group while the client is connected.
    pub(super) member: Option<u64>,
}

/// How a stream is read for a group.
pub(in crate::mqtt) struct GroupReader {
    pub(in crate::mqtt) group: Arc<Group>,
    pub(in crate::mqtt) member: u64,
    pub(in crate::mqtt) options: SubscriptionOptions,
}

impl SharedSubscriptions {
    /// Whether there is neither a subscription nor a message of one.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.in_flight.is_empty()
    }

    /// Memory of the subscriptions without the offsets of their groups, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let keys: usize = self.all.iter().map(|shared| 8 * shared.key.as_str().len()).sum();
        SHARED_BYTES * self.all.len() + keys
    }

    /// Number of offsets of their groups.
    pub(super) fn offset_count(&self) -> usize {
        self.all.iter().filter_map(|shared| shared.group.as_ref()).map(|group| group.len()).sum()
    }

    /// The options of exactly this shared filter.
    pub(super) fn get(&self, key: &Filter) -> Option<&SubscriptionOptions> {
        self.all.iter().find(|shared| shared.key == *key).map(|shared| &shared.options)
    }

    /// Adds a subscription whose group is still to be entered.
    pub(super) fn add(&mut self, key: Filter, streams: Filter, options: SubscriptionOptions) {
        self.all.push(SharedSubscription { key, streams, options, group: None, member: None });
    }

    /// Tells the group of a message that it is no longer in flight.
    pub(super) fn is_done(&mut self, id: PacketId) {
        if let Some((group, name, start)) = self.in_flight.remove(&id) {
            group.acknowledged(&name, start);
        }
    }
}
