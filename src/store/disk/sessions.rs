//! Sessions in the log on disk. A session has a number, as a stream has. Its changes are records of their own or parts of
//! appends. From time to time the whole session is written, after which earlier records of it are not needed any more.
//!
//! A change is applied to the table of sessions when it is decided, not when it is synced, because a record of the whole
//! session must include all changes decided before. Nothing reads the table while changes are underway.

use std::sync::Arc;

use bytes::Bytes;

use super::changes::{ChangeReply, answer_with, refuse};
use super::committer::{Committer, RECORD_BYTES};
use super::record::{LogRecord, SessionNote, StreamId};
use super::room::NoRoom;
use crate::stream::{Failure, SessionChange};

/// The whole session is written again when its changes take more than this, and more than twice the size of the whole session.
const CHANGES_BYTES_MIN: u64 = 4096;

/// The maximum bytes for the lengths in an entry.
const ENTRY_BYTES: usize = 16;

impl Committer {
    pub(super) fn change_session(
        &mut self,
        change: SessionChange,
        answer: ChangeReply<Result<(), Failure>>,
    ) -> Result<(), NoRoom> {
        let ends = change.anew && change.entries.is_empty();
        if let Err(no_room) = self.ensure(0, session_bytes(&change), ends) {
            return refuse(answer, no_room, Err);
        }
        match self.session_log.ids.get(&change.client).copied() {
            Some(session) if !change.anew => {
                let record = LogRecord::SessionChanged { session, entries: change.entries.clone() };
                let kept = self.write(&record, &[], Some(session))?;
                self.session_log.changed(session, Some(kept.clone()), kept.bytes().into());
                self.shared.sessions.apply(&change);
                self.compact_session(session)?;
            }
            // A session that does not exist has nothing to end.
            None if ends => {}
            known => {
                let session = known.unwrap_or_else(|| self.new_stream());
                self.shared.sessions.apply(&change);
                self.write_session(session, &change.client)?;
            }
        }
        self.run_after_sync(move || answer_with(answer, Ok(())));
        Ok(())
    }

    /// Applies the session change of an append, and returns the note for the append's record.
    pub(super) fn note_session(&mut self, change: &SessionChange) -> Result<SessionNote, NoRoom> {
        let session = match self.session_log.ids.get(&change.client) {
            Some(session) => *session,
            None => {
                let session = self.new_stream();
                self.write_session(session, &change.client)?;
                session
            }
        };
        self.shared.sessions.apply(change);
        self.session_log.changed(session, None, session_bytes(change) as u64);
        Ok(SessionNote { session, anew: change.anew, entries: change.entries.clone() })
    }

    /// Writes the whole session if its changes take too much. Without room, the changes stay for now.
    pub(super) fn compact_session(&mut self, session: StreamId) -> Result<(), NoRoom> {
        let Some(written) = self.session_log.written.get(&session) else { return Ok(()) };
        let allowed = CHANGES_BYTES_MIN.max(2 * u64::from(written.whole.bytes()));
        if written.changes_bytes <= allowed {
            return Ok(());
        }
        let client = written.client.clone();
        match self.ensure(0, self.session_size(&client), true) {
            Ok(()) => self.write_session(session, &client),
            Err(NoRoom::Full | NoRoom::Short) => Ok(()),
            Err(broken) => Err(broken),
        }
    }

    /// The maximum size of the record of a whole session.
    fn session_size(&self, client: &Arc<str>) -> usize {
        let entries = self.shared.sessions.entries(client);
        client.len() + entries.iter().map(|(key, value)| key.len() + value.len() + ENTRY_BYTES).sum::<usize>()
    }

    fn write_session(&mut self, session: StreamId, client: &Arc<str>) -> Result<(), NoRoom> {
        let entries = self.shared.sessions.entries(client);
        let record = LogRecord::Session { session, client: client.to_string().into(), entries };
        let kept = self.write(&record, &[], Some(session))?;
        self.session_log.whole(session, client, kept);
        Ok(())
    }

    /// Writes a session again that has records in the segment `from`. A session that has ended is removed instead once no other
    /// segment has records of it. Returns the bytes written.
    pub(super) fn move_session(&mut self, session: StreamId, from: u32) -> Result<u32, NoRoom> {
        let Some(written) = self.session_log.written.get(&session) else { return Ok(0) };
        let client = written.client.clone();
        if written.whole.place().segment > from {
            return Ok(0);
        }
        if self.shared.sessions.entries(&client).is_empty() && !self.is_elsewhere(session, from) {
            self.session_log.written.remove(&session);
            self.session_log.ids.remove(&client);
            return Ok(0);
        }
        self.ensure(0, self.session_size(&client), true)?;
        self.write_session(session, &client)?;
        Ok(self.session_log.written.get(&session).map_or(0, |written| written.whole.bytes()))
    }
}

/// The maximum bytes of a change, including the first record of its session.
pub(super) fn session_bytes(change: &SessionChange) -> usize {
    let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
    let entries = change.entries.iter().map(|(key, value)| key.len() + bytes(value) + ENTRY_BYTES);
    RECORD_BYTES + change.client.len() + entries.sum::<usize>()
}
