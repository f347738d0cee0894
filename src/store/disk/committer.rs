//! The one thread that changes anything: it decides on what is waiting, writes it down, syncs once for all of it, and
//! only then does it and answers.

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

/// The most changes and bytes that wait for the same sync.
const GROUP_CHANGES_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Of so few streams those that are gone are never looked for.
const IDS_MIN: usize = 1024;

/// What the thread has to know of the log.
pub(super) struct OpenedLog {
    pub(super) next_stream: StreamId,
    pub(super) run: Epoch,
    pub(super) tombstones: HashMap<StreamId, Arc<Kept>>,
    pub(super) sessions: SessionLog,
}

/// What the thread is asked to do.
pub(super) enum Job {
    /// A change, with whoever waits for its outcome. If it is dropped undone, they learn that the store is broken.
    QueuedChange(QueuedChange),
    /// Something has ended by itself, or become garbage.
    Tidy,
    /// All before is to be synced, whatever is promised, as the last thing. Told when it is.
    Close(tokio::sync::oneshot::Sender<()>),
}

/// Decides on something and writes it down, or tells whoever asked why not.
pub(super) type QueuedChange = Box<dyn FnOnce(&mut Committer) -> Result<(), NoRoom> + Send>;

/// What is done once what was decided is synced.
type AfterSync = Box<dyn FnOnce() + Send>;

/// The thread's own.
pub(super) struct Committer {
    pub(super) shared: Arc<DiskState>,
    pub(super) room: Room,
    pub(super) next_stream: StreamId,
    /// The epoch of what this run appends to streams that were there before.
    pub(super) run: Epoch,
    pub(super) sync: SyncPolicy,
    /// Records that are decided and not written: they lie at `room`, as many bytes before its offset.
    group: Vec<u8>,
    changes: usize,
    after_sync: Vec<AfterSync>,
    /// Segments that were written to since they were synced.
    unsynced: Vec<Arc<Segment>>,
    synced_at: Instant,
    /// The streams that there are.
    pub(super) ids: HashMap<StreamId, StreamHandle>,
    /// The streams whose logs begin with messages of another one.
    pub(super) forks: HashMap<StreamId, Vec<StreamId>>,
    /// Where it is written that a stream has ended of which something may be left.
    pub(super) tombstones: HashMap<StreamId, Arc<Kept>>,
    pub(super) session_log: SessionLog,
    /// Streams that have ended by themselves, which is still to be written.
    ended: Vec<Epoch>,
    pub(super) reclaiming: Option<Reclaiming>,
    /// Segments with records in use that can not be read, and which stay for that.
    pub(super) unmovable: HashSet<u32>,
    /// When garbage was looked for, and whether there may be more since.
    pub(super) looked_at: Instant,
    pub(super) look_again: bool,
}

/// A stream, as long as it is there.
pub(super) type StreamHandle = Weak<Mutex<Entry<Stored>>>;

impl Committer {
    /// Goes on with what was found when the store was opened.
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
            looked_at: Instant::now(),
            look_again: false,
        }
    }

    /// Works until nobody can ask for anything any more, or until a write fails.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        if let Err(error) = self.work(jobs) {
            self.shared.fail();
            tracing::error!(%error, "a write has failed; nothing is taken until the store is opened anew");
        }
    }

    fn work(&mut self, jobs: &Receiver<Job>) -> io::Result<()> {
        loop {
            let first = match jobs.recv_timeout(self.patience()) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
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
                        // Whoever closes it may not wait for it.
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

    /// How long there is nothing to do but what is asked for.
    fn patience(&self) -> Duration {
        match self.sync {
            _ if self.look_again => Duration::ZERO,
            _ if let Some(reclaiming) = &self.reclaiming => reclaiming.pause(),
            SyncPolicy::Interval(interval) if !self.unsynced.is_empty() => {
                interval.saturating_sub(self.synced_at.elapsed())
            }
            _ => Duration::from_secs(1),
        }
    }

    fn change(&mut self, change: QueuedChange) -> io::Result<()> {
        self.changes += 1;
        match change(self) {
            // Whoever asked has been told that there is no room.
            Ok(()) | Err(NoRoom::Full | NoRoom::Short) => Ok(()),
            Err(NoRoom::Broken(error)) => Err(error),
        }
    }

    /// Writes down what has ended by itself. What there is no room for stays to be written.
    pub(super) fn write_ends(&mut self) -> Result<(), NoRoom> {
        self.ended.extend(self.shared.streams.take_buried());
        while let Some(stream) = self.ended.last() {
            let stream = stream.0;
            self.ensure(0, 0, true)?;
            self.write_end(stream)?;
            self.ended.pop();
        }
        Ok(())
    }

    pub(super) fn write_end(&mut self, stream: StreamId) -> Result<(), NoRoom> {
        // Twice: without it a stream that has ended would be there again.
        self.write_unkept(&LogRecord::Ended { stream }, &[], Some(stream))?;
        let kept = self.write(&LogRecord::Ended { stream }, &[], Some(stream))?;
        self.tombstones.insert(stream, kept);
        Ok(())
    }

    /// There is a stream.
    pub(super) fn know(&mut self, entry: &Arc<Mutex<Entry<Stored>>>) {
        let held = Arc::downgrade(entry);
        if self.ids.len() > 2 * self.shared.streams.len() + IDS_MIN {
            // A stream that is gone keeps its place in memory as long as it is known here.
            self.ids.retain(|_, held| held.strong_count() > 0);
        }
        let entry = entry.lock();
        let id = entry.origin.own().0;
        for (ancestor, _) in entry.origin.ancestors() {
            self.forks.entry(ancestor.0).or_default().push(id);
        }
        self.ids.insert(id, held);
    }

    /// A number for a new stream or session.
    pub(super) fn new_stream(&mut self) -> StreamId {
        self.next_stream += 1;
        self.next_stream - 1
    }

    /// Makes sure that a record with `content` and about as many bytes beside it can be written.
    pub(super) fn ensure(&mut self, content: usize, beside: usize, frees: bool) -> Result<(), NoRoom> {
        self.room.ensure(content + beside + frame::FRAME_HEADER_BYTES + RECORD_BYTES, frees)
    }

    /// Puts a record into the group, for which `ensure` has made sure that there is room. It is read from its place
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

    /// The same for a record that is counted later, or never. Returns where it lies and how many bytes it has.
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
            // What is decided has to be written, and `ensure` has seen that it can be.
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

    /// Goes on in the next segment.
    fn roll(&mut self) -> Result<(), NoRoom> {
        let (before, end) = self.room.roll()?;
        let opened = self.opened(Some((before.number, end)));
        self.is_unsynced(before);
        self.look_again = true;
        for record in [&opened, &self.run_record(), &self.run_record()] {
            let bytes = frame::write(&mut self.group, self.room.place(), false, record, &[]);
            self.room.advance(bytes);
        }
        Ok(())
    }

    /// Has this done when the group is synced.
    pub(super) fn afterwards(&mut self, after_sync: impl FnOnce() + Send + 'static) {
        self.after_sync.push(Box::new(after_sync));
    }

    /// Writes the group, syncs if that is promised, and does what was decided.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        let changes = std::mem::take(&mut self.changes);
        let bytes = self.group.len();
        self.flush()?;
        let due = match self.sync {
            SyncPolicy::Always => true,
            SyncPolicy::Interval(interval) => self.synced_at.elapsed() >= interval,
            SyncPolicy::Never => false,
        };
        if due && !self.unsynced.is_empty() {
            let since = Instant::now();
            self.sync_all()?;
            self.shared.observer.synced(since.elapsed(), changes, bytes);
        }
        for after_sync in self.after_sync.drain(..) {
            after_sync();
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        let active = self.room.active().clone();
        let bytes = u32::try_from(self.group.len()).unwrap_or(u32::MAX);
        let offset = self.room.place().offset - bytes;
        self.shared.until_it_passes(|| active.write(&self.group, offset))?;
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

    /// Comes to an end that the next opening recognises as one.
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

    /// The answer to whoever asked for something that there is no room for.
    pub(super) fn failure(no_room: &NoRoom) -> Failure {
        match no_room {
            NoRoom::Full => Failure::Full,
            NoRoom::Short => Failure::Short,
            NoRoom::Broken(_) => Failure::Broken,
        }
    }
}

/// After a decision it is too late for a lack of room.
fn broken(no_room: NoRoom) -> NoRoom {
    match no_room {
        NoRoom::Full => NoRoom::Broken(io::ErrorKind::StorageFull.into()),
        NoRoom::Short => NoRoom::Broken(io::ErrorKind::OutOfMemory.into()),
        broken => broken,
    }
}

/// What a record has beside content, names and lists, at the most.
pub(super) const RECORD_BYTES: usize = 256;
