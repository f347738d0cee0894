//! The sessions of clients that a front stores, such as MQTT sessions. Every kind of store keeps them in memory, too.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::stream::{PAGE_SESSIONS_MAX, SessionChange, SessionNames, SessionPage, StoredSession};

/// All sessions. A session without entries is removed.
#[derive(Debug, Default)]
pub(super) struct StoredSessions {
    by_client: RwLock<BTreeMap<Arc<str>, HashMap<Bytes, Bytes>>>,
}

impl StoredSessions {
    /// Makes a change in one step for all readers.
    pub(super) fn apply(&self, change: &SessionChange) {
        let mut by_client = self.by_client.write();
        let session = by_client.entry(change.client.clone()).or_default();
        if change.anew {
            session.clear();
        }
        for (key, value) in &change.entries {
            match value {
                Some(value) => session.insert(key.clone(), value.clone()),
                None => session.remove(key),
            };
        }
        if session.is_empty() {
            by_client.remove(&change.client);
        }
    }

    /// The entries of a session; empty if it does not exist.
    pub(super) fn entries(&self, client: &str) -> Vec<(Bytes, Bytes)> {
        self.by_client.read().get(client).map(copied).unwrap_or_default()
    }

    /// A page of the sessions that `names` selects, after the name `after`.
    pub(super) fn page(&self, names: SessionNames<'_>, after: Option<&str>) -> SessionPage {
        let by_client = self.by_client.read();
        let from = after.map_or(Bound::Included(names.first()), Bound::Excluded);
        let sessions: Vec<_> = by_client
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(client, _)| names.select(client))
            .take(PAGE_SESSIONS_MAX)
            .map(|(client, entries)| StoredSession { client: client.clone(), entries: copied(entries) })
            .collect();
        let is_full = sessions.len() == PAGE_SESSIONS_MAX;
        let next = sessions.last().filter(|_| is_full).map(|session| session.client.clone());
        SessionPage { sessions, next }
    }
}

fn copied(entries: &HashMap<Bytes, Bytes>) -> Vec<(Bytes, Bytes)> {
    entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
