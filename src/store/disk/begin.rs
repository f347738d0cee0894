//! The records at the beginning of a run of the store and of a segment, and the state of streams, as the committer writes them.

use std::sync::Weak;

use super::committer::Committer;
use super::kept::Stored;
use super::record::{LogRecord, StreamId, StreamRecord};
use super::room::NoRoom;
use crate::store::entry::WrittenState;
use crate::stream::{Position, SyncPolicy};

impl Committer {
    /// The record with the epoch of this run. It is written twice, because the epochs of all later records depend on it.
    pub(super) fn run_record(&self) -> LogRecord {
        LogRecord::Run { epoch: self.run.0 }
    }

    /// The first record of a segment, or of a new run of the store.
    pub(super) fn opened(&self, after: Option<(u32, u32)>) -> LogRecord {
        LogRecord::Opened {
            after,
            synced: self.sync == SyncPolicy::Always,
            next_stream: self.next_stream,
            next_epoch: self.shared.epochs.peek().0,
        }
    }

    /// Writes the first records of a run of the store; `after` has the segment and offset before it if the run begins in a new
    /// segment. Also writes the state of the streams in `skipped`, whose tails have moved past damage. Everything is synced
    /// when this returns.
    pub(super) fn begin(&mut self, after: Option<(u32, u32)>, skipped: &[StreamId]) -> Result<(), NoRoom> {
        self.ensure(0, 0, true)?;
        for record in [self.opened(after), self.run_record(), self.run_record()] {
            self.write_unkept(&record, &[], None)?;
        }
        for stream in skipped {
            let Some(entry) = self.ids.get(stream).and_then(Weak::upgrade) else { continue };
            let (state, trimmed) = {
                let entry = entry.lock();
                (Box::new(StreamRecord::of(&entry)), entry.log.trimmed())
            };
            let head = self.write_state(state, trimmed)?;
            entry.lock().head = Some(head);
        }
        self.flush().and_then(|()| self.sync_all()).map_err(NoRoom::Broken)
    }

    /// Writes the state of a stream twice, because the messages of the stream cannot be used without it.
    pub(super) fn write_state(
        &mut self,
        state: Box<StreamRecord>,
        trimmed: Position,
    ) -> Result<WrittenState<Stored>, NoRoom> {
        self.ensure(0, 2 * state.bytes_max(), true)?;
        let (stream, ended) = (state.id, state.ended);
        let record = LogRecord::State { stream: state };
        let copy = Stored::Kept(self.write(&record, &[], Some(stream))?);
        let content = self.write(&record, &[], Some(stream))?;
        if ended {
            // The state says that the stream has ended, and replaces the record that said so.
            self.tombstones.insert(stream, content.clone());
        }
        Ok(WrittenState { content: Stored::Kept(content), copy, trimmed })
    }
}
