//! Where the log on disk has what of which session.

use std::collections::HashMap;
use std::sync::Arc;

use super::kept::Kept;
use super::record::StreamId;

/// Where the log has what of which session.
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
    /// The records of changes behind it.
    changes: Vec<Arc<Kept>>,
    /// What they take, and those that went with appends.
    pub(super) changes_bytes: u64,
}

impl SessionLog {
    /// There is a record of the whole session.
    pub(super) fn whole(&mut self, session: StreamId, client: &Arc<str>, whole: Arc<Kept>) {
        self.ids.insert(client.clone(), session);
        let written = WrittenSession { client: client.clone(), whole, changes: Vec::new(), changes_bytes: 0 };
        self.written.insert(session, written);
    }

    /// There is a record of a change, of its own if it is `kept`. Whose session it is, unless all of it comes later.
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

    /// Whether that is the number of a session.
    pub(super) fn contains(&self, number: StreamId) -> bool {
        self.written.contains_key(&number)
    }
}
