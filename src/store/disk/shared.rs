//! What readers and the committer share, and how a read comes from places to content: what is hot from memory, the rest
//! from the files, which is work for a thread that may block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use moka::sync::Cache;

use super::frame::Place;
use super::segment::{Kept, Segments, Slice, Span, decode};
use crate::store::log::Placed;
use crate::store::sessions::Sessions;
use crate::store::streams::{Epochs, Streams};
use crate::store::view::{MessagesView, View};
use crate::stream::{Batch, Failure, Messages, Observer, ReadError};

/// Bytes of the newest messages, and of what is needed to find them, that are kept in memory.
const HOT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What the cache needs for each entry beside its content.
const HOT_ENTRY_BYTES: u32 = 256;

/// Records that lie so near to each other are read at once.
const NEAR_BYTES: u32 = 16 * 1024;

/// The most that is read at once, unless one record has more.
const RUN_BYTES_MAX: u32 = 1024 * 1024;

/// What readers and the committer share.
pub(super) struct Shared {
    pub(super) streams: Streams<Arc<Kept>>,
    pub(super) segments: Arc<Segments>,
    pub(super) epochs: Epochs,
    pub(super) sessions: Sessions,
    pub(super) hot: Cache<Place, Bytes>,
    pub(super) observer: Arc<dyn Observer>,
    broken: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        segments: Arc<Segments>,
        epochs: Epochs,
        observer: Arc<dyn Observer>,
        sessions: Sessions,
    ) -> Self {
        let weigh = |_: &Place, content: &Bytes| {
            u32::try_from(content.len()).unwrap_or(u32::MAX).saturating_add(HOT_ENTRY_BYTES)
        };
        let policy = moka::policy::EvictionPolicy::lru();
        let hot = Cache::builder().max_capacity(HOT_BYTES_MAX).weigher(weigh).eviction_policy(policy).build();
        let (streams, broken) = (Streams::new(), AtomicBool::new(false));
        Self { streams, segments, epochs, sessions, hot, observer, broken }
    }

    /// A write has failed.
    pub(super) fn fail(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    pub(super) async fn batch(self: &Arc<Self>, view: View<Slice>) -> Result<Batch, ReadError> {
        if view.stretch.pieces.is_empty() {
            return Ok(view.with_content(Vec::new()).into_batch());
        }
        let pieces = self.content(&view.stretch.pieces).await?;
        Ok(view.with_content(pieces).into_batch())
    }

    pub(super) async fn messages(self: &Arc<Self>, view: MessagesView<Slice>) -> Result<Messages, ReadError> {
        let slices: Vec<_> = view.messages.iter().map(|placed| placed.piece.clone()).collect();
        let contents = self.content(&slices).await?;
        Ok(view.with_content(contents).into_messages())
    }

    pub(super) async fn content_of(
        self: &Arc<Self>,
        placed: Placed<Slice>,
    ) -> Result<Placed<Bytes>, Failure> {
        let content =
            self.content(std::slice::from_ref(&placed.piece)).await?.pop().ok_or(Failure::Unreadable)?;
        Ok(placed.with(content))
    }
}

impl Shared {
    /// The content of `slices`, in their order.
    pub(super) async fn content(self: &Arc<Self>, slices: &[Slice]) -> Result<Vec<Bytes>, Failure> {
        let hot: Vec<Option<Bytes>> = slices.iter().map(|slice| self.hot.get(&slice.kept.place())).collect();
        let cold = hot.iter().filter(|content| content.is_none()).count();
        self.observer.read(hot.len() - cold, cold);
        if cold == 0 {
            let pieces = hot.into_iter().flatten().zip(slices);
            return pieces.map(|(content, slice)| cut(content, slice)).collect();
        }
        let (shared, slices) = (self.clone(), slices.to_vec());
        let read = move || shared.read(&slices, hot);
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => read,
            Err(stopped) => {
                // The runtime is going down.
                tracing::debug!(%stopped, "a read was given up");
                Err(Failure::Unreadable)
            }
        }
    }

    fn read(&self, slices: &[Slice], hot: Vec<Option<Bytes>>) -> Result<Vec<Bytes>, Failure> {
        let mut contents = Vec::with_capacity(slices.len());
        // One that is moved after this is looked for again.
        let spans = slices.iter().map(|slice| slice.kept.span());
        let mut rest = slices.iter().zip(hot).zip(spans).peekable();
        while let Some(((slice, hot), first)) = rest.next() {
            if let Some(content) = hot {
                contents.push(cut(content, slice)?);
                continue;
            }
            let (from, mut end) = (first.place, first.end());
            let mut run = vec![(slice, from)];
            while let Some(((next, _), span)) = rest.next_if(|((_, hot), span)| {
                let near = span.place.segment == from.segment
                    && span.place.offset >= end
                    && span.place.offset - end <= NEAR_BYTES
                    && span.end() - from.offset <= RUN_BYTES_MAX;
                hot.is_none() && near
            }) {
                run.push((next, span.place));
                end = span.end();
            }
            self.read_run(&run, from, end, &mut contents)?;
        }
        Ok(contents)
    }

    /// Reads records that lie between `from` and `end`.
    fn read_run(
        &self,
        run: &[(&Slice, Place)],
        from: Place,
        end: u32,
        contents: &mut Vec<Bytes>,
    ) -> Result<(), Failure> {
        let segment = self.segments.get(from.segment);
        let bytes = segment.and_then(|segment| segment.read(from.offset, (end - from.offset) as usize).ok());
        let bytes = Bytes::from(bytes.unwrap_or_default());
        for (slice, place) in run {
            let start = (place.offset - from.offset) as usize;
            let record = if start <= bytes.len() { bytes.slice(start..) } else { Bytes::new() };
            let content = match decode(&record, *place) {
                // What one reader keeps of a run must not keep all of it.
                Ok((_, content)) => Bytes::copy_from_slice(&content),
                Err(_) => self.read_moved(&slice.kept, *place)?,
            };
            contents.push(cut(content, slice)?);
        }
        Ok(())
    }

    /// Reads a record that was not found at `tried`: it may have been moved meanwhile.
    fn read_moved(&self, kept: &Kept, tried: Place) -> Result<Bytes, Failure> {
        let span = kept.span();
        let Span { place, bytes } = span;
        match self.segments.record(place, bytes) {
            Ok((_, content)) => Ok(content),
            Err(_) if kept.span() != span => self.read_moved(kept, place),
            Err(failure) => {
                tracing::error!(
                    segment = place.segment,
                    offset = place.offset,
                    ?tried,
                    "a record is damaged"
                );
                Err(failure)
            }
        }
    }
}

fn cut(content: Bytes, slice: &Slice) -> Result<Bytes, Failure> {
    let within = slice.range.end <= content.len() && slice.range.start <= slice.range.end;
    if within { Ok(content.slice(slice.range.clone())) } else { Err(Failure::Unreadable) }
}
