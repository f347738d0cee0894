//! The state that readers and the committer share, and reads of content: recent content from the cache, other content from the
//! files in a blocking task.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::damage::DamageTable;
use super::frame::FrameLocation;
use super::kept::{RecordSpan, Slice, Stored};
use super::newest::{NewestMessages, StoredMessages};
use super::segment::{Segment, Segments, decode};
use crate::budget::Budget;
use crate::store::log::Placed;
use crate::store::sessions::StoredSessions;
use crate::store::streams::{Epochs, Streams};
use crate::store::view::{MessagesView, View};
use crate::stream::{Batch, Failure, Messages, Observer, ReadError, Start, StreamName};

/// The pause before a failed write is tried again doubles from the first to the second of these.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Records at most this far apart are read at once.
const NEAR_BYTES: u32 = 16 * 1024;

/// The maximum bytes that are read at once, unless one record has more.
const RUN_BYTES_MAX: u32 = 1024 * 1024;

/// The state of a store on disk that readers and the committer share.
pub(super) struct DiskState {
    pub(super) streams: Streams<Stored>,
    pub(super) segments: Arc<Segments>,
    pub(super) epochs: Epochs,
    pub(super) sessions: StoredSessions,
    pub(super) newest: NewestMessages,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) damage: DamageTable,
    /// Set once a write has failed.
    broken: AtomicBool,
    /// Set while a write waits until the system has resources again.
    short: AtomicBool,
    /// Set when the store closes: a write that would have to wait fails instead.
    closing: AtomicBool,
}

/// Why messages could not be read.
pub(super) enum ReadFailure {
    /// The record at this location is damaged.
    Damaged(RecordSpan),
    /// Another failure, for example because the system is short of resources.
    Failed(Failure),
}

impl From<Failure> for ReadFailure {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl DiskState {
    pub(super) fn new(
        segments: Arc<Segments>,
        epochs: Epochs,
        observer: Arc<dyn Observer>,
        sessions: StoredSessions,
        cache_bytes: u64,
        budget: &Arc<Budget>,
    ) -> Self {
        let newest = NewestMessages::within(usize::try_from(cache_bytes).unwrap_or(usize::MAX));
        let (streams, damage) = (Streams::new(budget.clone()), DamageTable::default());
        let [broken, short, closing] = [const { AtomicBool::new(false) }; 3];
        Self { streams, segments, epochs, sessions, newest, observer, damage, broken, short, closing }
    }

    /// Notes that a record cannot be read any more.
    pub(super) fn note_damage(&self, span: RecordSpan) {
        let (is_new, damaged) = self.damage.note(span);
        if is_new {
            let RecordSpan { place, bytes } = span;
            tracing::error!(segment = place.segment, offset = place.offset, bytes, "a record is damaged");
            self.observer.damaged(damaged);
        }
    }

    /// Notes that a write has failed, after which the store accepts no changes.
    pub(super) fn fail(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Fails if the store cannot be changed at present.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.has_failed(), self.short.load(Ordering::Acquire)) {
            (true, _) => Err(Failure::Broken),
            (false, true) => Err(Failure::Short),
            (false, false) => Ok(()),
        }
    }

    /// Lets a write fail that has to wait for resources.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Calls `write` until the system is not short of resources. Nothing of the write is acknowledged yet, so repeating it does
    /// no harm. Other changes are refused meanwhile.
    pub(super) fn retry_while_short(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut pause = PAUSE_MIN;
        loop {
            match write() {
                Err(error) if is_shortage(&error) && !self.closing.load(Ordering::Acquire) => {
                    if !self.short.swap(true, Ordering::AcqRel) {
                        tracing::error!(%error, "cannot write to the store; trying again");
                    }
                    std::thread::sleep(pause);
                    pause = (2 * pause).min(PAUSE_MAX);
                }
                written => {
                    if self.short.swap(false, Ordering::AcqRel) && written.is_ok() {
                        tracing::warn!("writing to the store works again");
                    }
                    return written;
                }
            }
        }
    }

    /// Turns a damaged record at or after `start` into a hole of its stream, so that readers get a gap. Returns other failures
    /// as errors.
    pub(super) fn lose(
        &self,
        name: &StreamName,
        start: Start,
        unread: ReadFailure,
        now: SystemTime,
    ) -> Result<(), ReadError> {
        match unread {
            ReadFailure::Damaged(span) => {
                let is_lost = |content: &Stored| content.span() == span;
                Ok(self.streams.with(name, now, |entry| entry.lose(start, is_lost))?)
            }
            ReadFailure::Failed(failure) => Err(failure.into()),
        }
    }

    /// Loads the content of a view. `None` if records were moved meanwhile; then the caller has to read the stream again.
    pub(super) async fn batch(self: &Arc<Self>, view: View<Slice>) -> Result<Option<Batch>, ReadFailure> {
        if view.slice.pieces.is_empty() {
            return Ok(Some(view.with_content(Vec::new()).into_batch()));
        }
        let bodies = self.content(&view.slice.pieces).await?;
        let pieces = bodies.map(|bodies| bodies.into_iter().map(|body| body.bytes).collect());
        Ok(pieces.map(|pieces| view.with_content(pieces).into_batch()))
    }

    /// The content of a view, if all of it is in memory.
    pub(super) fn batch_in_memory(&self, view: View<Slice>) -> Option<Batch> {
        let slices = view.slice.pieces.iter();
        let pieces = slices.map(|slice| Some(cut(self.newest.get(slice.span.place)?, slice).ok()?.bytes));
        let pieces: Vec<_> = pieces.collect::<Option<_>>()?;
        if !pieces.is_empty() {
            self.observer.read(pieces.len(), 0);
        }
        Some(view.with_content(pieces).into_batch())
    }

    /// Loads the content of messages. `None` if records were moved meanwhile, as for [`batch`](Self::batch).
    pub(super) async fn messages(
        self: &Arc<Self>,
        view: MessagesView<Slice>,
    ) -> Result<Option<Messages>, ReadFailure> {
        let slices: Vec<_> = view.messages.iter().map(|placed| placed.piece.clone()).collect();
        let bodies = self.content(&slices).await?;
        Ok(bodies.map(|bodies| {
            view.with_content(bodies.into_iter().map(StoredMessages::into_parts).collect()).into_messages()
        }))
    }

    /// Loads the content of one message. `None` if its record was moved meanwhile, as for [`batch`](Self::batch).
    pub(super) async fn content_of(
        self: &Arc<Self>,
        placed: Placed<Slice>,
    ) -> Result<Option<Placed<Bytes>>, ReadFailure> {
        let bodies = self.content(std::slice::from_ref(&placed.piece)).await?;
        Ok(bodies
            .and_then(|mut bodies| bodies.pop())
            .map(|StoredMessages { bytes, annotation }| placed.with(bytes, annotation)))
    }

    /// Loads the content of `slices`, in their order. `None` if some records were moved meanwhile.
    pub(super) async fn content(
        self: &Arc<Self>,
        slices: &[Slice],
    ) -> Result<Option<Vec<StoredMessages>>, ReadFailure> {
        let hot: Vec<Option<StoredMessages>> =
            slices.iter().map(|slice| self.newest.get(slice.span.place)).collect();
        let cold = hot.iter().filter(|content| content.is_none()).count();
        self.observer.read(hot.len() - cold, cold);
        if cold == 0 {
            let pieces = hot.into_iter().flatten().zip(slices);
            return pieces
                .map(|(content, slice)| Ok(cut(content, slice)?))
                .collect::<Result<_, _>>()
                .map(Some);
        }
        let (shared, slices) = (self.clone(), slices.to_vec());
        let read = move || shared.read(&slices, hot);
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => read,
            Err(stopped) => {
                // The runtime shuts down.
                tracing::debug!(%stopped, "a read was cancelled by the shutdown");
                Err(Failure::Unreadable.into())
            }
        }
    }

    fn read(
        &self,
        slices: &[Slice],
        hot: Vec<Option<StoredMessages>>,
    ) -> Result<Option<Vec<StoredMessages>>, ReadFailure> {
        let mut contents = Vec::with_capacity(slices.len());
        let mut rest = slices.iter().zip(hot).peekable();
        while let Some((slice, hot)) = rest.next() {
            if let Some(content) = hot {
                contents.push(cut(content, slice)?);
                continue;
            }
            let (from, mut end) = (slice.span.place, slice.span.end());
            let mut run = vec![slice];
            while let Some((next, _)) = rest.next_if(|(Slice { span, .. }, hot)| {
                let near = span.place.segment == from.segment
                    && span.place.offset >= end
                    && span.place.offset - end <= NEAR_BYTES
                    && span.end() - from.offset <= RUN_BYTES_MAX;
                hot.is_none() && near
            }) {
                run.push(next);
                end = next.span.end();
            }
            let Some(segment) = self.segments.get(from.segment) else { return Ok(None) };
            self.read_run(&segment, &run, from, end, &mut contents)?;
        }
        Ok(Some(contents))
    }

    /// Reads records that are between `from` and `end` in one segment.
    fn read_run(
        &self,
        segment: &Segment,
        run: &[&Slice],
        from: FrameLocation,
        end: u32,
        contents: &mut Vec<StoredMessages>,
    ) -> Result<(), ReadFailure> {
        let bytes = Bytes::from(segment.read(from.offset, (end - from.offset) as usize).unwrap_or_default());
        for slice in run {
            let start = (slice.span.place.offset - from.offset) as usize;
            let record = if start <= bytes.len() { bytes.slice(start..) } else { Bytes::new() };
            let RecordSpan { place, bytes } = slice.span;
            let alone = |_| decode(&segment.read(place.offset, bytes as usize)?.into(), place);
            let (record, content) = match decode(&record, place).or_else(alone) {
                Ok(read) => read,
                // The disk has refused a write, so it may be away: the next start will find out what is damaged.
                Err(Failure::Unreadable) if self.has_failed() => return Err(Failure::Broken.into()),
                Err(Failure::Unreadable) => {
                    self.note_damage(slice.span);
                    return Err(ReadFailure::Damaged(slice.span));
                }
                Err(failure) => return Err(failure.into()),
            };
            let annotation = record.into_note().map(|note| Arc::new(note.into_annotation()));
            // Copied, so that a reader that keeps one message does not keep the whole run in memory.
            let bytes = Bytes::copy_from_slice(&content);
            contents.push(cut(StoredMessages { bytes, annotation }, slice)?);
        }
        Ok(())
    }
}

/// Whether an error means that the system is short of resources, and not that the disk failed.
fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, QuotaExceeded, StorageFull, WouldBlock};
    matches!(error.kind(), Interrupted | OutOfMemory | QuotaExceeded | StorageFull | WouldBlock)
}

fn cut(content: StoredMessages, slice: &Slice) -> Result<StoredMessages, Failure> {
    let StoredMessages { bytes, annotation } = content;
    let within = slice.range.end <= bytes.len() && slice.range.start <= slice.range.end;
    if within {
        Ok(StoredMessages { bytes: bytes.slice(slice.range.clone()), annotation })
    } else {
        Err(Failure::Unreadable)
    }
}
