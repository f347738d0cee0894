//! A record that somebody has: where it lies, and how the segment learns that nobody has it any more.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::frame::Place;
use super::segment::Segments;
use crate::store::log::Content;

/// A record in use. Logs, their forks and a retained message share one; with the last of them its room is garbage.
#[derive(Debug)]
pub(super) struct Kept {
    span: Mutex<Span>,
    segments: Arc<Segments>,
}

/// Where a record lies, and how many bytes it has there in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) place: Place,
    pub(super) bytes: u32,
}

/// A stretch of the content of a record.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) kept: Arc<Kept>,
    pub(super) range: Range<usize>,
}

impl Span {
    /// The offset behind it.
    pub(super) fn end(self) -> u32 {
        self.place.offset.saturating_add(self.bytes)
    }
}

impl Kept {
    /// A record of which its segment counts the bytes from now on.
    pub(super) fn new(segments: &Arc<Segments>, place: Place, bytes: u32) -> Arc<Self> {
        let span = Mutex::new(Span { place, bytes });
        let kept = Arc::new(Self { span, segments: segments.clone() });
        segments.count_in(place.segment, bytes);
        kept.is_in(place.segment);
        kept
    }

    /// Where it lies at the moment.
    pub(super) fn span(&self) -> Span {
        *self.span.lock()
    }

    pub(super) fn place(&self) -> Place {
        self.span().place
    }

    pub(super) fn bytes(&self) -> u32 {
        self.span().bytes
    }

    /// The record lies there now, and is synced.
    pub(super) fn move_to(self: &Arc<Self>, place: Place, bytes: u32) {
        self.segments.count_in(place.segment, bytes);
        let before = std::mem::replace(&mut *self.span.lock(), Span { place, bytes });
        self.segments.count_out(before.place.segment, before.bytes);
        self.is_in(place.segment);
    }

    fn is_in(self: &Arc<Self>, segment: u32) {
        if let Some(segment) = self.segments.get(segment) {
            segment.kept.lock().push(Arc::downgrade(self));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Span { place, bytes } = self.span();
        self.segments.count_out(place.segment, bytes);
    }
}

impl Content for Arc<Kept> {
    type Piece = Slice;

    fn piece(&self, range: Range<usize>) -> Slice {
        Slice { kept: self.clone(), range }
    }
}
