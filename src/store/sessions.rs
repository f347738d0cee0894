//! The sessions of clients that a front stores, such as MQTT sessions. Every kind of store keeps them in memory, too.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;

use crate::stream::{SessionChange, StoredSession};

/// All sessions. A session without entries is removed.
#[derive(Debug, Default)]
pub(super) struct StoredSessions {
    by_client: DashMap<Arc<str>, HashMap<Bytes, Bytes>>,
}

impl StoredSessions {
    /// Makes a change in one step for all readers.
    pub(super) fn apply(&self, change: &SessionChange) {
        let mut session = self.by_client.entry(change.client.clone()).or_default();
        if change.anew {
            session.clear();
        }
        for (key, value) in &change.entries {
            match value {
                Some(value) => session.insert(key.clone(), value.clone()),
                None => session.remove(key),
            };
        }
        let is_over = session.is_empty();
        drop(session);
        if is_over {
            self.by_client.remove_if(&change.client, |_, session| session.is_empty());
        }
    }

    /// The entries of a session; empty if it does not exist.
    pub(super) fn entries(&self, client: &str) -> Vec<(Bytes, Bytes)> {
        self.by_client.get(client).map(|entries| copied(&entries)).unwrap_or_default()
    }

    /// The sessions with the names that are `wanted`, in no particular order.
    pub(super) fn named(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<StoredSession> {
        let sessions = self.by_client.iter().filter(|one| wanted(one.key()));
        sessions.map(|one| StoredSession { client: one.key().clone(), entries: copied(&one) }).collect()
    }
}

fn copied(entries: &HashMap<Bytes, Bytes>) -> Vec<(Bytes, Bytes)> {
    entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
