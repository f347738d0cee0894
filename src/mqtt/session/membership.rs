//! How a session enters and leaves the groups of its shared subscriptions.

use std::sync::Arc;

use super::shared::{GroupReader, SharedSubscription, SharedSubscriptions};
use super::unsaved::{Deadline, SessionKey};
use super::{SeldomState, Session};
use crate::mqtt::codec::{PacketId, SubscriptionOptions};
use crate::mqtt::groups::Group;
use crate::stream::{Filter, Offset, QoS, StreamName};

impl Session {
    /// The filters of the streams of the shared subscriptions.
    pub(in crate::mqtt) fn shared_filters(&self) -> impl Iterator<Item = &Filter> {
        self.shared().iter().map(|shared| &shared.streams)
    }

    /// The shared filters, with `$share`.
    pub(in crate::mqtt) fn shared_keys(&self) -> Vec<Filter> {
        self.shared().iter().map(|shared| shared.key.clone()).collect()
    }

    /// Whether a subscription of this filter exists, shared or not.
    pub(in crate::mqtt) fn has(&self, streams: &Filter) -> bool {
        self.subscriptions.get(streams).is_some() || self.shared_filters().any(|filter| filter == streams)
    }

    /// Replaces the options of a shared subscription. Returns whether it exists.
    pub(in crate::mqtt) fn change_shared(&mut self, key: &Filter, options: SubscriptionOptions) -> bool {
        let known = self.shared_mut().iter_mut().find(|shared| shared.key == *key);
        let exists = known.map(|shared| shared.options = options).is_some();
        if exists {
            self.note(SessionKey::Subscription(key.clone()), Deadline::NextPacket);
        }
        exists
    }

    /// Adds a shared subscription whose group is still to be entered.
    pub(in crate::mqtt) fn add_shared(&mut self, key: Filter, streams: Filter, options: SubscriptionOptions) {
        self.note(SessionKey::Subscription(key.clone()), Deadline::NextPacket);
        self.seldom_mut().shared.add(key, streams, options);
    }

    /// Records that the connection is a member of the group of a shared subscription.
    pub(in crate::mqtt) fn enter_group(&mut self, key: &Filter, group: Arc<Group>, member: u64) {
        for shared in self.shared_mut().iter_mut().filter(|shared| shared.key == *key) {
            (shared.group, shared.member) = (Some(group.clone()), Some(member));
        }
    }

    /// Enters the groups that were restored with this session, before its client connects. Messages in flight that only a group
    /// can have sent return to it, as when the client leaves.
    pub(in crate::mqtt) fn restore_groups(&mut self, groups: &[Arc<Group>]) {
        for shared in self.shared_mut() {
            shared.group = groups.iter().find(|group| *group.key() == shared.key).cloned();
        }
        let mut returned = Vec::new();
        for flight in self.flights().filter(|flight| !self.subscriptions.want(&flight.stream)) {
            let mut matching = self.shared().iter().filter(|shared| shared.streams.matches(&flight.stream));
            let (Some(SharedSubscription { group: Some(group), .. }), None) =
                (matching.next(), matching.next())
            else {
                continue;
            };
            if group.sends_again(&flight.stream, flight.start) {
                match flight.qos {
                    QoS::ExactlyOnce => group.keep(&flight.stream, flight.start),
                    _ => returned.push(flight.id),
                }
            }
        }
        for id in returned {
            self.seldom_mut().in_flight.give_up(id);
            self.note(SessionKey::InFlightMessage(id), Deadline::SomeTime);
        }
    }

    /// The groups of the shared subscriptions.
    pub(in crate::mqtt) fn groups(&self) -> Vec<Arc<Group>> {
        self.shared().iter().filter_map(|shared| shared.group.clone()).collect()
    }

    /// Removes a shared subscription. Returns whether it existed.
    pub(in crate::mqtt) fn remove_shared(&mut self, key: &Filter) -> bool {
        let Some(at) = self.shared().iter().position(|shared| shared.key == *key) else { return false };
        self.leave(at);
        self.seldom_mut().shared.all.remove(at);
        self.note(SessionKey::Subscription(key.clone()), Deadline::NextPacket);
        true
    }

    /// Leaves all groups, since the connection ends. The subscriptions stay.
    pub(in crate::mqtt) fn leave_groups(&mut self) {
        (0..self.shared().len()).for_each(|at| self.leave(at));
    }

    /// Returns messages in flight to their group, except those of QoS 2, which only this client may be sent.
    fn leave(&mut self, at: usize) {
        let Some(seldom) = self.seldom.as_deref_mut() else { return };
        let SeldomState { shared, in_flight, .. } = seldom;
        let SharedSubscriptions { all, in_flight: of_groups } = shared;
        let Some(shared) = all.get_mut(at) else { return };
        let (Some(group), Some(member)) = (shared.group.clone(), shared.member.take()) else { return };
        let (mut returned, mut kept) = (Vec::new(), Vec::new());
        of_groups.retain(|id, (of, name, start)| {
            if !Arc::ptr_eq(of, &group) {
                return true;
            }
            match in_flight.get(*id) {
                Some(flight) if flight.qos == QoS::ExactlyOnce => kept.push((name.clone(), *start)),
                _ => returned.push(*id),
            }
            false
        });
        for id in returned {
            self.seldom_mut().in_flight.give_up(id);
            self.note(SessionKey::InFlightMessage(id), Deadline::SomeTime);
        }
        group.leave(member, &kept);
    }

    /// The groups with a stream that this connection is a member of.
    pub(in crate::mqtt) fn groups_of(&self, name: &StreamName) -> Vec<GroupReader> {
        let matching = self.shared().iter().filter(|shared| shared.streams.matches(name));
        let readers = matching.filter_map(|SharedSubscription { options, group, member, .. }| {
            Some(GroupReader { group: group.clone()?, member: (*member)?, options: *options })
        });
        readers.collect()
    }

    /// Records that a message in flight belongs to a group.
    pub(in crate::mqtt) fn sent_for(
        &mut self,
        group: &Arc<Group>,
        id: PacketId,
        name: &StreamName,
        start: Offset,
    ) {
        self.seldom_mut().shared.in_flight.insert(id, (group.clone(), name.clone(), start));
    }
}
