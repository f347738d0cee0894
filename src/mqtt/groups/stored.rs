//! Groups in the store, each as a session whose client id no client can have: an entry for each stream with the offset from which
//! the group has to send its messages again if the gateway is killed. What was acknowledged since is sent twice then, and nothing
//! is lost.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::consume_budget;

use super::{Group, GroupState, GroupStream, Groups};
use crate::hub::Marker;
use crate::mqtt::Broker;
use crate::mqtt::codec::Reason;
use crate::stream::{Filter, OWN_SESSIONS, Offset, SessionChange, Start, StoredSession, StreamName};

/// Maximum number of offsets in one change, so that the changes of others do not wait for long.
const OFFSETS_PER_CHANGE: usize = 1000;

/// The entry that says that a group has begun; its value is the format of the others.
const BEGUN: (Bytes, Bytes) = (Bytes::from_static(b""), Bytes::from_static(b"\x01"));

/// The entry of a group of a shared store that has no member at any gateway; its value is since when, in seconds since 1970.
const LEFT: Bytes = Bytes::from_static(b"\x01");

/// What the names of the sessions begin with: [`OWN_SESSIONS`], and the beginning of the filters of shared subscriptions.
pub(in crate::mqtt) const GROUP_SESSIONS: &str = "\0$share/";

impl Groups {
    /// Restores a group from a session whose name begins with [`GROUP_SESSIONS`]. `None`: its filter is damaged.
    pub(in crate::mqtt) fn restore(self: &Arc<Self>, stored: &StoredSession) -> Option<Arc<Group>> {
        let group = self.group(&key_of(&stored.client)?);
        group.restore(&stored.entries);
        Some(group)
    }
}

impl Group {
    fn restore(&self, entries: &[(Bytes, Bytes)]) {
        let mut state = self.state.lock();
        (state.is_stored, state.was_stored) = (true, true);
        state.has_begun = entries.contains(&BEGUN);
        for (name, offset) in entries {
            let text = |bytes| std::str::from_utf8(bytes).ok();
            let name = text(name).and_then(|name| StreamName::stored(name).ok());
            let offset = text(offset).and_then(|offset| offset.parse().ok());
            if let Some((name, offset)) = name.zip(offset) {
                state.streams.insert(name, GroupStream::new(Start::At(offset)));
            }
        }
    }

    /// Sends the messages of the group from now on, from where the gateway stopped that did before.
    fn take_over(&self, entries: &[(Bytes, Bytes)]) {
        if !entries.is_empty() {
            self.restore(entries);
        }
        let mut state = self.state.lock();
        state.is_elsewhere = false;
        state.members.values().for_each(Marker::mark_all);
    }

    /// Sends no further messages of the group, since another gateway does.
    fn lose(&self) {
        let mut state = self.state.lock();
        (state.is_elsewhere, state.has_begun) = (true, false);
        state.streams.clear();
        state.unsaved.clear();
    }

    /// The filter with `$share` and the name of the group.
    pub(in crate::mqtt) fn key(&self) -> &Filter {
        &self.key
    }

    /// Whether the group will send a message that is in flight, because it was restored from the store.
    pub(in crate::mqtt) fn sends_again(&self, name: &StreamName, start: Offset) -> bool {
        let state = self.state.lock();
        match state.streams.get(name).map(|stream| stream.next) {
            Some(Start::At(next)) => next <= start,
            Some(Start::Earliest) | None => state.has_begun,
            Some(Start::Tail) => false,
        }
    }

    /// Passes over a message that stays with a session.
    pub(in crate::mqtt) fn keep(&self, name: &StreamName, start: Offset) {
        let mut state = self.state.lock();
        let stream = state.streams.entry(name.clone()).or_insert_with(|| GroupStream::new(Start::Earliest));
        stream.kept.insert(start);
    }

    /// Takes changes that are not stored yet, as one change of limited size.
    fn take_change(&self) -> Option<SessionChange> {
        let mut state = self.state.lock();
        let anew = !state.was_stored;
        if !state.is_stored || !state.has_begun || state.is_elsewhere || (state.unsaved.is_empty() && !anew) {
            return None;
        }
        state.was_stored = true;
        let names: Vec<_> = state.unsaved.iter().take(OFFSETS_PER_CHANGE).cloned().collect();
        let entry = |name: StreamName| {
            state.unsaved.remove(&name);
            let offset = state.streams.get(&name).and_then(GroupStream::sent_up_to);
            (name.as_str().to_owned().into(), offset.map(|offset| offset.to_string().into()))
        };
        let begun = anew.then_some((BEGUN.0, Some(BEGUN.1)));
        let entries = names.into_iter().map(entry).chain(begun).collect();
        Some(SessionChange { client: client(&self.key), anew, entries })
    }

    fn put_back(&self, change: &SessionChange) {
        let mut state = self.state.lock();
        let GroupState { was_stored, unsaved, .. } = &mut *state;
        *was_stored &= !change.anew;
        let names = change.entries.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok());
        unsaved.extend(names.filter_map(|name| StreamName::stored(name).ok()));
    }
}

impl GroupStream {
    /// The first message that a member has not acknowledged. `None`: the first message of the stream.
    fn sent_up_to(&self) -> Option<Offset> {
        let first = self.lease.as_ref().and_then(|lease| lease.unacknowledged.first().copied());
        first.or(if let Start::At(next) = self.next { Some(next) } else { None })
    }
}

impl Broker {
    /// Stores what has changed of a group.
    pub(in crate::mqtt) async fn store_group(&self, group: &Group) -> Result<(), Reason> {
        let _order = self.groups.storing.lock().await;
        while let Some(change) = group.take_change() {
            match self.store(Some(change.clone())).await {
                Ok(()) => {}
                Err(Reason::SessionTakenOver) => group.lose(),
                Err(reason) => {
                    group.put_back(&change);
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    /// Stores all groups that have changed, and removes those that have ended. What fails is tried again at the next call.
    pub(in crate::mqtt) async fn store_groups(&self) {
        if !self.hub.keeps_sessions() {
            return;
        }
        let changed: Vec<_> = self.groups.table.lock().values().filter_map(Weak::upgrade).collect();
        for group in changed {
            consume_budget().await;
            self.claim_group(&group).await;
            if let Err(reason) = self.store_group(&group).await {
                tracing::debug!(
                    group = group.key.as_str(),
                    ?reason,
                    "cannot store the offsets of a group; retrying"
                );
            }
        }
        let ended = std::mem::take(&mut *self.groups.ended.lock());
        for key in ended {
            let _order = self.groups.storing.lock().await;
            // A new group of this filter replaces what is stored, or goes on with it.
            let is_over = !self.groups.table.lock().contains_key(&key);
            if is_over && self.groups.are_shared {
                self.release_group(&client(&key)).await;
            } else if is_over && self.store(Some(SessionChange::end(client(&key)))).await.is_err() {
                self.groups.ended.lock().insert(key);
            }
        }
    }
}

impl Broker {
    /// Claims a group that no other gateway sends messages of, so that this one does.
    pub(in crate::mqtt) async fn claim_group(&self, group: &Group) {
        let _order = self.groups.storing.lock().await;
        if group.is_elsewhere()
            && let Ok(Some(entries)) = self.hub.claim_orphan(&client(&group.key)).await
        {
            group.take_over(&entries);
        }
    }

    /// Another gateway sends the messages of a group from now on.
    pub(in crate::mqtt) fn lose_group(&self, session: &str) {
        let group =
            key_of(session).and_then(|key| self.groups.table.lock().get(&key).and_then(Weak::upgrade));
        if let Some(group) = group {
            group.lose();
        }
    }

    /// Looks at a group that no gateway has: once its last session must have expired, it has ended.
    pub(in crate::mqtt) async fn look_at_group(&self, session: &Arc<str>) {
        let _order = self.groups.storing.lock().await;
        let is_here = key_of(session).is_some_and(|key| self.groups.table.lock().contains_key(&key));
        if is_here {
            return;
        }
        let Ok(Some(entries)) = self.hub.claim_orphan(session).await else { return };
        let left = entries
            .iter()
            .find(|(key, _)| *key == LEFT)
            .and_then(|(_, at)| std::str::from_utf8(at).ok()?.parse().ok());
        let left = left.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let longest = self.limits.mqtt_session_expiry_max.get();
        match left {
            Some(left) if left + longest <= self.clock.now() => {
                let _fails_again = self.store(Some(SessionChange::end(session.clone()))).await;
                self.hub.release(session, None).await;
            }
            Some(left) => self.hub.release(session, Some(left + longest)).await,
            None => self.release_group(session).await,
        }
    }

    /// Releases a group without members here, which stays in the store as long as a session may return to it.
    async fn release_group(&self, session: &Arc<str>) {
        let now = self.clock.now();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_stored = self.hub.stored_session(session).await.is_ok_and(|entries| !entries.is_empty());
        let left = vec![(LEFT, Some(since.to_string().into()))];
        let change = SessionChange { client: session.clone(), anew: false, entries: left };
        if is_stored && self.store(Some(change)).await.is_err() {
            tracing::debug!(group = &**session, "cannot store that the last member of a group has left");
        }
        let due = is_stored.then(|| now + self.limits.mqtt_session_expiry_max.get());
        self.hub.release(session, due).await;
    }
}

/// The filter of a group, with `$share`, by its client id in the store.
fn key_of(client: &str) -> Option<Filter> {
    Filter::parse(client.strip_prefix(OWN_SESSIONS)?).ok()
}

/// The client id of a group in the store.
fn client(key: &Filter) -> Arc<str> {
    format!("{OWN_SESSIONS}{key}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Epoch, Position};

    fn at(position: u64) -> Offset {
        Offset { epoch: Epoch(1), position: Position(position) }
    }

    fn stored(change: SessionChange) -> StoredSession {
        let entries = change.entries.into_iter().map(|(name, offset)| (name, offset.unwrap())).collect();
        StoredSession { client: change.client, entries }
    }

    #[test]
    fn a_stored_group_goes_on_at_the_first_message_that_was_not_acknowledged() {
        let [ours, other] = ["a/b", "a/c"].map(|name| StreamName::parse(name).unwrap());
        let groups = Arc::new(Groups::default());
        let group = groups.group(&Filter::parse("$share/g/a/+").unwrap());
        group.state.lock().is_stored = true;
        group.begin_stream(ours.clone(), at(10));
        group.begin_stream(other.clone(), at(20));
        assert_eq!(group.take_change(), None, "it has not begun");
        group.begin();
        let begun = group.take_change().unwrap();
        assert!(begun.anew && group.take_change().is_none());
        group.put_back(&begun);
        group.lease(&ours, 1);
        group.sent(&ours, at(14), (10..14).map(at).collect(), true);
        group.acknowledged(&ours, at(10));
        let change = group.take_change().unwrap();
        assert!(change.anew, "the first change was not stored");

        let groups = Arc::new(Groups::default());
        let restored = groups.restore(&stored(change)).unwrap();
        assert_eq!(restored.key(), group.key());
        assert_eq!(restored.lease(&ours, 2), Some(Start::At(at(11))));
        assert_eq!(restored.lease(&other, 2), Some(Start::At(at(20))));
        let new = StreamName::parse("a/new").unwrap();
        assert_eq!(restored.lease(&new, 2), Some(Start::Earliest));
        assert!(restored.sends_again(&ours, at(11)) && !restored.sends_again(&ours, at(10)));
        assert_eq!(restored.take_change(), None, "nothing has changed");
        drop(restored);
        assert!(groups.ended.lock().contains(group.key()));
    }

    #[test]
    fn the_session_of_a_client_is_not_a_group() {
        let session = StoredSession { client: "$share/g/a".into(), entries: Vec::new() };
        assert!(Arc::new(Groups::default()).restore(&session).is_none());
    }
}
