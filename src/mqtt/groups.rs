//! [`Group`]: the members of a shared subscription (`$share/GROUP/FILTER`, MQTT 5, section 4.8.2), and one offset for
//! each stream, up to which the group has been sent messages.
//!
//! One member at a time has the lease of a stream: it is sent the next messages, and the lease ends once it has
//! acknowledged them, so the messages of a stream are handled in order. When a member leaves, the stream continues at
//! the first message that it has not acknowledged. Messages of QoS 2 stay with the session that they were sent to
//! (MQTT-4.8.2-4), and are passed over.
//!
//! A group with a member whose session is stored is stored, too (`stored`), so that it goes on after a restart.

pub(super) mod stored;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::hub::Marker;
use crate::stream::{Filter, Offset, Start, StreamName, Tenant};

/// Maximum number of messages that a member is sent before other members may be sent the next ones.
pub(super) const LEASE_MESSAGES_MAX: usize = 16;

/// All groups that sessions are members of, by their whole filter.
#[derive(Debug, Default)]
pub(super) struct Groups {
    table: Mutex<HashMap<Filter, Weak<Group>>>,
    /// Stored groups that have ended, and are still in the store; if it is shared, groups without a member here that are claimed.
    ended: Mutex<HashSet<Filter>>,
    /// Notified when there is a group more, or one that has ended.
    changed: Notify,
    /// Whether other gateways use the store, too, so that groups have to be claimed.
    are_shared: bool,
    /// Locked while a group is stored or removed from the store, so that a group that follows another one of the same filter is
    /// not removed in place of it.
    storing: tokio::sync::Mutex<()>,
}

/// A group. Sessions keep it alive.
#[derive(Debug)]
pub(super) struct Group {
    groups: Weak<Groups>,
    /// The filter with `$share` and the name of the group.
    key: Filter,
    state: Mutex<GroupState>,
}

#[derive(Debug, Default)]
struct GroupState {
    /// Another gateway sends the messages of the group, to its own members.
    is_elsewhere: bool,
    /// All streams that existed before the group have offsets.
    has_begun: bool,
    /// Members that are connected, by the number of their connection.
    members: HashMap<u64, Marker>,
    last_member: u64,
    streams: HashMap<StreamName, GroupStream>,
    /// A member has had a session that is stored.
    is_stored: bool,
    /// The store has something of the group.
    was_stored: bool,
    /// Streams whose offsets have changed since they were stored.
    unsaved: HashSet<StreamName>,
}

#[derive(Debug)]
struct GroupStream {
    next: Start,
    lease: Option<Lease>,
    /// Messages after `next` that stay with a session.
    kept: BTreeSet<Offset>,
    /// Another member was turned away by the lease, or the last read did not reach the tail.
    has_more: bool,
}

#[derive(Debug)]
struct Lease {
    member: u64,
    /// The member is reading the next messages.
    reads: bool,
    unacknowledged: BTreeSet<Offset>,
}

/// Start of a shared filter.
const SHARE: &str = "$share/";

/// Returns the filter of the streams of a shared filter; `None` if the filter is not shared.
pub(super) fn stream_filter(key: &Filter) -> Option<Filter> {
    let (_group, filter) = key.as_str().strip_prefix(SHARE)?.split_once('/')?;
    Filter::parse(filter).ok()
}

/// Returns the shared filter of a tenant in the hub; `None` if the filter is not shared.
pub(super) fn shared_of_tenant(key: &Filter, tenant: &Tenant) -> Option<Filter> {
    let (group, filter) = key.as_str().strip_prefix(SHARE)?.split_once('/')?;
    let filter = Filter::parse(filter).ok()?.of_tenant(tenant);
    Filter::parse(&format!("{SHARE}{group}/{filter}")).ok()
}

/// Whether a topic filter is shared.
pub(super) fn is_shared(text: &str) -> bool {
    text.starts_with(SHARE)
}

impl Groups {
    /// The groups of a gateway. With `are_shared`, other gateways may have members of the same groups.
    pub(super) fn new(are_shared: bool) -> Self {
        Self { are_shared, ..Self::default() }
    }

    /// Returns the group of a shared filter, creating it if needed.
    pub(super) fn group(self: &Arc<Self>, key: &Filter) -> Arc<Group> {
        let mut table = self.table.lock();
        if let Some(group) = table.get(key).and_then(Weak::upgrade) {
            return group;
        }
        let state = Mutex::new(GroupState { is_elsewhere: self.are_shared, ..GroupState::default() });
        let group = Arc::new(Group { groups: Arc::downgrade(self), key: key.clone(), state });
        table.insert(key.clone(), Arc::downgrade(&group));
        self.changed.notify_one();
        group
    }

    /// Waits until there is a group, or one that has ended and is still stored. Cancel safe.
    pub(super) async fn until_any(&self) {
        while self.table.lock().is_empty() && self.ended.lock().is_empty() {
            self.changed.notified().await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(groups) = self.groups.upgrade() else { return };
        let mut table = groups.table.lock();
        // A new group of the same filter may have taken the place.
        if table.get(&self.key).is_some_and(|group| group.strong_count() == 0) {
            table.remove(&self.key);
        }
        let state = self.state.get_mut();
        let is_claimed = groups.are_shared && !state.is_elsewhere;
        if is_claimed || (state.was_stored && !groups.are_shared) {
            groups.ended.lock().insert(self.key.clone());
            groups.changed.notify_one();
        }
    }
}

impl Group {
    /// Adds a connected member, and returns its number. `is_stored`: its session is stored.
    pub(super) fn enter(&self, marker: Marker, is_stored: bool) -> u64 {
        let mut state = self.state.lock();
        if is_stored && !state.is_stored {
            state.is_stored = true;
            state.unsaved = state.streams.keys().cloned().collect();
        }
        state.last_member += 1;
        let member = state.last_member;
        state.members.insert(member, marker);
        member
    }

    /// Whether the offsets of the existing streams are set, or are not to be set here.
    pub(super) fn has_begun(&self) -> bool {
        let state = self.state.lock();
        state.has_begun || state.is_elsewhere
    }

    /// Whether another gateway sends the messages of the group.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.state.lock().is_elsewhere
    }

    /// Sets where the messages of a stream begin that existed before the group.
    pub(super) fn begin_stream(&self, name: StreamName, tail: Offset) {
        let mut state = self.state.lock();
        // A stream without an offset was created after another member had set those of all others.
        if !state.has_begun {
            state.note(&name);
            state.streams.entry(name).or_insert_with(|| GroupStream::new(Start::At(tail)));
        }
    }

    /// Begins to send messages.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        state.has_begun = true;
        if state.members.len() > 1 {
            // Members that came meanwhile have been told of changes that they could not read yet.
            state.streams.keys().for_each(|name| state.mark_all(name));
        }
    }

    /// Number of streams with an offset.
    pub(super) fn len(&self) -> usize {
        self.state.lock().streams.len()
    }

    /// Takes the lease of a stream for a member, or continues it. Returns where to read. `None`: another member has it.
    pub(super) fn lease(&self, name: &StreamName, member: u64) -> Option<Start> {
        let mut state = self.state.lock();
        if !state.has_begun || state.is_elsewhere {
            return None;
        }
        let stream = state.streams.entry(name.clone()).or_insert_with(|| GroupStream::new(Start::Earliest));
        let lease = stream.lease.get_or_insert_with(|| Lease {
            member,
            reads: false,
            unacknowledged: BTreeSet::new(),
        });
        if lease.member != member {
            stream.has_more = true;
            return None;
        }
        lease.reads = true;
        Some(stream.next)
    }

    /// Whether a message is passed over, because a session keeps it.
    pub(super) fn passes_over(&self, name: &StreamName, start: Offset) -> bool {
        self.state.lock().streams.get_mut(name).is_some_and(|stream| stream.kept.remove(&start))
    }

    /// Records that the member with the lease has been sent the messages before `next`, of which those in
    /// `unacknowledged` are to be acknowledged.
    pub(super) fn sent(&self, name: &StreamName, next: Offset, unacknowledged: Vec<Offset>, is_all: bool) {
        let mut state = self.state.lock();
        let Some(stream) = state.streams.get_mut(name) else { return };
        stream.next = Start::At(next);
        stream.has_more |= !is_all;
        if let Some(lease) = &mut stream.lease {
            lease.reads = false;
            lease.unacknowledged.extend(unacknowledged);
        }
        state.note(name);
        state.release_if_done(name);
    }

    /// Ends the lease of a stream whose messages could not be read. `next`: where the group continues; `None`: the
    /// stream no longer exists.
    pub(super) fn not_sent(&self, name: &StreamName, next: Option<Start>) {
        let mut state = self.state.lock();
        state.note(name);
        match (next, state.streams.get_mut(name)) {
            (Some(next), Some(stream)) => {
                stream.next = next;
                stream.lease.iter_mut().for_each(|lease| lease.reads = false);
                state.release_if_done(name);
            }
            _ => {
                state.streams.remove(name);
            }
        }
    }

    /// Records that a member has acknowledged a message.
    pub(super) fn acknowledged(&self, name: &StreamName, start: Offset) {
        let mut state = self.state.lock();
        if let Some(lease) = state.streams.get_mut(name).and_then(|stream| stream.lease.as_mut()) {
            lease.unacknowledged.remove(&start);
        }
        state.note(name);
        state.release_if_done(name);
    }

    /// Removes a member. What it has not acknowledged is sent to other members, except for the messages in `kept`.
    pub(super) fn leave(&self, member: u64, kept: &[(StreamName, Offset)]) {
        let mut state = self.state.lock();
        state.members.remove(&member);
        for (name, start) in kept {
            if let Some(stream) = state.streams.get_mut(name) {
                stream.kept.insert(*start);
            }
        }
        let mut returned = Vec::new();
        for (name, stream) in &mut state.streams {
            let Some(lease) = stream.lease.take_if(|lease| lease.member == member) else { continue };
            if let Some(first) = lease.unacknowledged.first() {
                stream.next = Start::At(*first);
            }
            returned.push(name.clone());
        }
        returned.iter().for_each(|name| state.mark_all(name));
    }
}

impl GroupState {
    /// Notes that the offset of a stream may have changed.
    fn note(&mut self, name: &StreamName) {
        if self.is_stored && !self.unsaved.contains(name) {
            self.unsaved.insert(name.clone());
        }
    }

    /// Ends the lease of a stream if its member has nothing more to do, and tells all members if there may be more.
    fn release_if_done(&mut self, name: &StreamName) {
        let Some(stream) = self.streams.get_mut(name) else { return };
        let is_done = |lease: &mut Lease| !lease.reads && lease.unacknowledged.is_empty();
        if stream.lease.take_if(is_done).is_some() && std::mem::take(&mut stream.has_more) {
            self.mark_all(name);
        }
    }

    fn mark_all(&self, name: &StreamName) {
        self.members.values().for_each(|marker| marker.mark(name));
    }
}

impl GroupStream {
    fn new(next: Start) -> Self {
        Self { next, lease: None, kept: BTreeSet::new(), has_more: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Epoch, Position};

    fn at(position: u64) -> Offset {
        Offset { epoch: Epoch(1), position: Position(position) }
    }

    fn group() -> (Arc<Groups>, Arc<Group>, StreamName) {
        let groups = Arc::new(Groups::default());
        let group = groups.group(&Filter::parse("$share/g/a/+").unwrap());
        let name = StreamName::parse("a/b").unwrap();
        group.begin_stream(name.clone(), at(10));
        group.begin();
        (groups, group, name)
    }

    #[test]
    fn a_stream_goes_to_another_member_once_its_messages_are_acknowledged() {
        let (_groups, group, name) = group();
        assert_eq!(group.lease(&name, 1), Some(Start::At(at(10))));
        group.sent(&name, at(12), vec![at(10), at(11)], true);
        assert_eq!(group.lease(&name, 2), None);
        assert_eq!(group.lease(&name, 1), Some(Start::At(at(12))), "it may be sent more");
        group.sent(&name, at(12), Vec::new(), true);
        group.acknowledged(&name, at(10));
        assert_eq!(group.lease(&name, 2), None);
        group.acknowledged(&name, at(11));
        assert_eq!(group.lease(&name, 2), Some(Start::At(at(12))));
        group.sent(&name, at(13), Vec::new(), true);
        assert_eq!(group.lease(&name, 1), Some(Start::At(at(13))), "QoS 0 is not acknowledged");
    }

    #[test]
    fn what_a_member_that_leaves_has_not_acknowledged_is_sent_again_except_what_its_session_keeps() {
        let (_groups, group, name) = group();
        group.lease(&name, 1);
        group.sent(&name, at(14), (10..14).map(at).collect(), true);
        group.acknowledged(&name, at(10));
        group.leave(1, &[(name.clone(), at(12))]);
        assert_eq!(group.lease(&name, 2), Some(Start::At(at(11))));
        let sent: Vec<_> = (11..14).filter(|position| !group.passes_over(&name, at(*position))).collect();
        assert_eq!(sent, [11, 13]);
    }

    #[test]
    fn a_group_ends_with_its_last_member() {
        let (groups, group, _) = group();
        drop(group);
        assert!(groups.table.lock().is_empty());
    }
}
