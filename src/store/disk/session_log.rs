//! The records of each session in the log on disk.

use std::collections::HashMap;
use std::sync::Arc;

use super::kept::Kept;
use super::record::StreamId;

/// The records of each session in the log on disk.
#[derive(Debug, Default)]
pub(super) struct SessionLog {
    pub(super) ids: HashMap<Arc<str>, StreamId>,
    pub(super) written: HashMap<StreamId, WrittenSession>,
}

#[derive(Debug)]
pub(super) struct WrittenSession {
    pub(super) client: Arc<str>,
    /// The last record of the whole session.
    pub(super) whole: Arc<Kept>,
    /// The later records of changes.
    changes: Vec<Arc<Kept>>,
    /// Bytes of the later changes, including those in records of appends.
    pub(super) changes_bytes: u64,
}

impl SessionLog {
    /// Registers a record of the whole session.
    pub(super) fn whole(&mut self, session: StreamId, client: &Arc<str>, whole: Arc<Kept>) {
        self.ids.insert(client.clone(), session);
        let written = WrittenSession { client: client.clone(), whole, changes: Vec::new(), changes_bytes: 0 };
        self.written.insert(session, written);
    }

    /// Registers a change of `bytes`; `kept` is its record, unless that belongs to an append. Returns the client of the
    /// session; `None` before the first record of the whole session.
    pub(super) fn changed(
        &mut self,
        session: StreamId,
        kept: Option<Arc<Kept>>,
        bytes: u64,
    ) -> Option<Arc<str>> {
        let written = self.written.get_mut(&session)?;
        written.changes.extend(kept);
        written.changes_bytes += bytes;
        Some(written.client.clone())
    }

    /// Whether the number is the id of a session.
    pub(super) fn contains(&self, number: StreamId) -> bool {
        self.written.contains_key(&number)
    }
}
