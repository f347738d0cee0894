//! The committer: the one thread that changes the store. It decides on pending changes, writes their records as one group,
//! syncs once for the group, and only then makes the changes visible and answers them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::frame::{self, FrameLocation};
use super::kept::{Kept, Stored};
use super::record::{LogRecord, StreamId};
use super::room::{NoRoom, Room};
use super::segment::Segment;
use super::session_log::SessionLog;
use super::shared::DiskState;
use super::victim::Reclaiming;
use crate::store::entry::Entry;
use crate::stream::{Epoch, Failure, SyncPolicy};

/// The maximum number of changes, and of bytes, in one group.
const GROUP_CHANGES_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the thread waits for a job if it has had none since it looked for garbage.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Entries of streams that are gone are removed from [`Committer::ids`] only when it has this many entries more than twice the
/// number of streams.
const IDS_MIN: usize = 1024;

/// The state of the log that the thread starts with.
pub(super) struct OpenedLog {
    pub(super) next_stream: StreamId,
    pub(super) run: Epoch,
    pub(super) tombstones: HashMap<StreamId, Arc<Kept>>,
    pub(super) sessions: SessionLog,
}

/// A request to the thread.
pub(super) enum Job {
    /// A change, which owns the sender of its outcome. If it is dropped undone, the requester gets [`Failure::Broken`].
    QueuedChange(QueuedChange),
    /// Wakes the thread: a stream has ended by itself, or there may be garbage.
    Tidy,
    /// Syncs everything whatever the sync policy, ends the log, and ends the thread. The sender is notified when that is done.
    Close(tokio::sync::oneshot::Sender<()>),
}

/// Decides on a change and writes it, or answers why not.
pub(super) type QueuedChange = Box<dyn FnOnce(&mut Committer) -> Result<(), NoRoom> + Send>;

/// Completes a change after its group is written, and synced if the policy demands that.
type AfterSync = Box<dyn FnOnce() + Send>;

/// The state of the committer thread.
pub(super) struct Committer {
    pub(super) shared: Arc<DiskState>,
    pub(super) room: Room,
    pub(super) next_stream: StreamId,
    /// The epoch of messages that this run appends to streams that existed before it.
    pub(super) run: Epoch,
    pub(super) sync: SyncPolicy,
    /// The bytes of records that are decided and not written yet. They end at the offset of `room`.
    group: Vec<u8>,
    changes: usize,
    after_sync: Vec<AfterSync>,
    /// Segments with writes that are not synced.
    unsynced: Vec<Arc<Segment>>,
    synced_at: Instant,
    /// All streams by id; some may be gone.
    pub(super) ids: HashMap<StreamId, StreamHandle>,
    /// The forks of each stream.
    pub(super) forks: HashMap<StreamId, Vec<StreamId>>,
    /// The records that say that a stream has ended, for streams of which other records may be left.
    pub(super) tombstones: HashMap<StreamId, Arc<Kept>>,
    pub(super) session_log: SessionLog,
    /// Streams that have ended by themselves, which is not written yet.
    ended: Vec<Epoch>,
    pub(super) reclaiming: Option<Reclaiming>,
    /// Segments that stay, because records in use in them cannot be read.
    pub(super) unmovable: HashSet<u32>,
    /// When garbage was last looked for, and whether to look again at once.
    pub(super) searched_at: Instant,
    pub(super) search_again: bool,
    /// Whether garbage was looked for since the last job.
    is_idle: bool,
}

/// A stream; the reference does not keep it alive.
pub(super) type StreamHandle = Weak<Mutex<Entry<Stored>>>;

impl Committer {
    /// Starts with the state that was found when the store was opened.
    pub(super) fn new(shared: Arc<DiskState>, room: Room, known: OpenedLog, sync: SyncPolicy) -> Self {
        Self {
            shared,
            room,
            next_stream: known.next_stream,
            run: known.run,
            sync,
            group: Vec::new(),
            changes: 0,
            after_sync: Vec::new(),
            unsynced: Vec::new(),
            synced_at: Instant::now(),
            ids: HashMap::new(),
            forks: HashMap::new(),
            tombstones: known.tombstones,
            session_log: known.sessions,
            ended: Vec::new(),
            reclaiming: None,
            unmovable: HashSet::new(),
            searched_at: Instant::now(),
            search_again: false,
            is_idle: false,
        }
    }

    /// Works until all senders of jobs are gone, the store is closed, or a write fails.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        if let Err(error) = self.work(jobs) {
            self.shared.fail();
            tracing::error!(%error, "a write to the store failed; it accepts no changes until the gateway is restarted");
        }
    }

    fn work(&mut self, jobs: &Receiver<Job>) -> io::Result<()> {
        loop {
            let first = match jobs.recv_timeout(self.job_timeout()) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            self.is_idle = first.is_none();
            match self.write_ends() {
                Ok(()) | Err(NoRoom::Full | NoRoom::Short) => {}
                Err(NoRoom::Broken(error)) => return Err(error),
            }
            let mut next = first;
            while let Some(job) = next {
                match job {
                    Job::QueuedChange(change) => self.change(change)?,
                    Job::Tidy => {}
                    Job::Close(done) => {
                        self.close()?;
                        // The closing task may not wait.
                        let _unasked = done.send(());
                        return Ok(());
                    }
                }
                let full = self.changes >= GROUP_CHANGES_MAX || self.group.len() >= GROUP_BYTES_MAX;
                next = if full { None } else { jobs.try_recv().ok() };
            }
            self.reclaim()?;
            self.commit()?;
        }
    }

    /// How long to wait for a job before other work is due.
    fn job_timeout(&self) -> Duration {
        match (&self.reclaiming, self.sync) {
            _ if self.search_again => Duration::ZERO,
            (Some(reclaiming), _) => reclaiming.pause(),
            (None, SyncPolicy::Interval(interval)) if !self.unsynced.is_empty() => {
                interval.saturating_sub(self.synced_at.elapsed())
            }
            _ if self.is_idle && self.ended.is_empty() => IDLE_TIMEOUT,
            _ => Duration::from_secs(1),
        }
    }

    fn change(&mut self, change: QueuedChange) -> io::Result<()> {
        self.changes += 1;
        match change(self) {
            // The requester has got the reason.
            Ok(()) | Err(NoRoom::Full | NoRoom::Short) => Ok(()),
            Err(NoRoom::Broken(error)) => Err(error),
        }
    }

    /// Writes which streams have ended by themselves. If there is no room, the rest is written later.
    pub(super) fn write_ends(&mut self) -> Result<(), NoRoom> {
        self.ended.extend(self.shared.streams.take_ended_ids());
        while let Some(stream) = self.ended.last() {
            let stream = stream.0;
            self.ensure(0, 0, true)?;
            self.write_end(stream)?;
            self.ended.pop();
        }
        Ok(())
    }

    pub(super) fn write_end(&mut self, stream: StreamId) -> Result<(), NoRoom> {
        // Written twice, because without this record an ended stream would exist again.
        self.write_unkept(&LogRecord::Ended { stream }, &[], Some(stream))?;
        let kept = self.write(&LogRecord::Ended { stream }, &[], Some(stream))?;
        self.tombstones.insert(stream, kept);
        Ok(())
    }

    /// Registers a stream under its id and with the streams that it is forked from.
    pub(super) fn register(&mut self, entry: &Arc<Mutex<Entry<Stored>>>) {
        let held = Arc::downgrade(entry);
        if self.ids.len() > 2 * self.shared.streams.len() + IDS_MIN {
            // The weak reference of a stream that is gone still holds its memory.
            self.ids.retain(|_, held| held.strong_count() > 0);
        }
        let entry = entry.lock();
        let id = entry.origin.own().0;
        for (ancestor, _) in entry.origin.ancestors() {
            self.forks.entry(ancestor.0).or_default().push(id);
        }
        self.ids.insert(id, held);
    }

    /// An id for a new stream or session.
    pub(super) fn new_stream(&mut self) -> StreamId {
        self.next_stream += 1;
        self.next_stream - 1
    }

    /// Makes sure that a record with `content` and about `beside` other bytes can be written. A record that `frees` room may
    /// use the reserve of a full disk.
    pub(super) fn ensure(&mut self, content: usize, beside: usize, frees: bool) -> Result<(), NoRoom> {
        self.room.ensure(content + beside + frame::FRAME_HEADER_BYTES + RECORD_BYTES, frees)
    }

    /// Adds a record to the group. The caller has made sure of the room with `ensure`. The record can be read from its location
    /// once the group is written.
    pub(super) fn write(
        &mut self,
        record: &LogRecord,
        content: &[u8],
        of: Option<StreamId>,
    ) -> Result<Arc<Kept>, NoRoom> {
        let (place, bytes) = self.write_unkept(record, content, of)?;
        Ok(Kept::new(&self.shared.segments, place, bytes))
    }

    /// Adds a record to the group like [`write`](Self::write), but does not count its bytes as in use. Returns its location and
    /// size.
    pub(super) fn write_unkept(
        &mut self,
        record: &LogRecord,
        content: &[u8],
        of: Option<StreamId>,
    ) -> Result<(FrameLocation, u32), NoRoom> {
        let start = self.group.len();
        let synced = start == 0 && self.unsynced.is_empty();
        let mut bytes = frame::write(&mut self.group, self.room.place(), synced, record, content);
        if !self.room.fits(bytes as usize) {
            self.group.truncate(start);
            // A decided change must be written, and `ensure` has checked that it can be.
            self.room.ensure(bytes as usize, true).map_err(broken)?;
            self.flush().map_err(NoRoom::Broken)?;
            self.roll().map_err(broken)?;
            bytes = frame::write(&mut self.group, self.room.place(), false, record, content);
        }
        let place = self.room.place();
        self.room.advance(bytes);
        if let Some(stream) = of {
            self.room.active().streams.lock().insert(stream);
        }
        Ok((place, bytes))
    }

    /// Continues in the next segment.
    fn roll(&mut self) -> Result<(), NoRoom> {
        let (before, end) = self.room.roll()?;
        let opened = self.opened(Some((before.number, end)));
        self.is_unsynced(before);
        self.search_again = true;
        for record in [&opened, &self.run_record(), &self.run_record()] {
            let bytes = frame::write(&mut self.group, self.room.place(), false, record, &[]);
            self.room.advance(bytes);
        }
        Ok(())
    }

    /// Runs `after_sync` when the group is written and synced.
    pub(super) fn run_after_sync(&mut self, after_sync: impl FnOnce() + Send + 'static) {
        self.after_sync.push(Box::new(after_sync));
    }

    /// Writes the group, syncs if the policy demands that, and completes the decided changes.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        self.flush()?;
        self.changes = 0;
        let due = match self.sync {
            SyncPolicy::Always => true,
            SyncPolicy::Interval(interval) => self.synced_at.elapsed() >= interval,
            SyncPolicy::Never => false,
        };
        if due && !self.unsynced.is_empty() {
            let since = Instant::now();
            self.sync_all()?;
            self.shared.observer.synced(since.elapsed());
        }
        for after_sync in self.after_sync.drain(..) {
            after_sync();
        }
        Ok(())
    }

    /// Writes the group to the active segment.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        let active = self.room.active().clone();
        let bytes = u32::try_from(self.group.len()).unwrap_or(u32::MAX);
        let offset = self.room.place().offset - bytes;
        self.shared.retry_while_short(|| active.write(&self.group, offset))?;
        self.shared.observer.written(std::mem::take(&mut self.changes), self.group.len());
        self.group.clear();
        self.is_unsynced(active);
        Ok(())
    }

    fn is_unsynced(&mut self, segment: Arc<Segment>) {
        if !self.unsynced.iter().any(|known| known.number == segment.number) {
            self.unsynced.push(segment);
        }
    }

    pub(super) fn sync_all(&mut self) -> io::Result<()> {
        for segment in self.unsynced.drain(..) {
            segment.sync()?;
        }
        self.synced_at = Instant::now();
        Ok(())
    }

    /// Ends the log with a record that the next opening recognizes.
    fn close(&mut self) -> io::Result<()> {
        self.commit()?;
        self.sync_all()?;
        match self.ensure(0, 0, true).and_then(|()| self.write_unkept(&LogRecord::Closed, &[], None)) {
            Ok(_) => {}
            Err(NoRoom::Full | NoRoom::Short) => return Ok(()),
            Err(NoRoom::Broken(error)) => return Err(error),
        }
        self.flush()?;
        self.sync_all()
    }

    /// The failure that a requester gets when there is no room.
    pub(super) fn failure(no_room: &NoRoom) -> Failure {
        match no_room {
            NoRoom::Full => Failure::Full,
            NoRoom::Short => Failure::Short,
            NoRoom::Broken(_) => Failure::Broken,
        }
    }
}

/// Turns a lack of room after a decision into a broken store.
fn broken(no_room: NoRoom) -> NoRoom {
    match no_room {
        NoRoom::Full => NoRoom::Broken(io::ErrorKind::StorageFull.into()),
        NoRoom::Short => NoRoom::Broken(io::ErrorKind::OutOfMemory.into()),
        broken => broken,
    }
}

/// The maximum bytes of a record besides its content, names and lists.
pub(super) const RECORD_BYTES: usize = 256;
