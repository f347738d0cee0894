//! Sessions in the log. A session is known by a number, as a stream is. Changes of it are records of their own, or go
//! with an append; now and then all of it is written, which makes what was written before dispensable.
//!
//! The table of sessions is changed when a change is decided, not when it is synced: what is written of a whole session
//! has to contain what was decided before. Nobody reads it while there are changes underway.

use std::sync::Arc;

use bytes::Bytes;

use super::changes::{ChangeReply, answer_with, refuse};
use super::committer::{Committer, RECORD_BYTES};
use super::record::{LogRecord, SessionNote, StreamId};
use super::room::NoRoom;
use crate::stream::{Failure, SessionChange};

/// Changes of a session may take so many bytes, or twice those of the whole session if that is more, before it is
/// written again.
const CHANGES_BYTES_MIN: u64 = 4096;

/// What the lengths of an entry take at the most.
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
                self.gather(session)?;
            }
            // One that there is not has nothing to end.
            None if ends => {}
            known => {
                let session = known.unwrap_or_else(|| self.new_stream());
                self.shared.sessions.apply(&change);
                self.write_session(session, &change.client)?;
            }
        }
        self.afterwards(move || answer_with(answer, Ok(())));
        Ok(())
    }

    /// What an append has to say of a session, from now on.
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

    /// Writes a session as a whole if its changes take too much. Without room for that they stay for now.
    pub(super) fn gather(&mut self, session: StreamId) -> Result<(), NoRoom> {
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

    /// What the record of a whole session takes at the most.
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

    /// Writes a session again that the segment `from` has something of. Of one that is over nothing is needed once no
    /// other segment has anything of it. Returns how many bytes that took.
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

/// What a change takes at the most, and the first record of its session.
pub(super) fn session_bytes(change: &SessionChange) -> usize {
    let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
    let entries = change.entries.iter().map(|(key, value)| key.len() + bytes(value) + ENTRY_BYTES);
    RECORD_BYTES + change.client.len() + entries.sum::<usize>()
}
