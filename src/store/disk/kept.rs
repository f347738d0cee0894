//! Records in use, by where they lie. Each segment counts the bytes of those that lie in it; with the last owner of a
//! record its room is garbage.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::frame::FrameLocation;
use super::segment::Segments;

/// A record in use. A log, a retained message and the state of a stream share one.
#[derive(Debug)]
pub(super) struct Kept {
    span: Mutex<RecordSpan>,
    /// `None` once another owner counts it.
    segments: Option<Arc<Segments>>,
}

/// Where a record lies, and how many bytes it has there in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordSpan {
    pub(super) place: FrameLocation,
    pub(super) bytes: u32,
}

/// Where a log has the record of an append.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// In a record that this owns together with others.
    Kept(Arc<Kept>),
    /// In a record that the sealed run owns in which it was found.
    Packed(RecordSpan),
}

/// A stretch of the content of a record, which may have moved since if its segment is gone.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) span: RecordSpan,
    pub(super) range: Range<usize>,
}

impl RecordSpan {
    /// The offset behind it.
    pub(super) fn end(self) -> u32 {
        self.place.offset.saturating_add(self.bytes)
    }
}

impl Stored {
    /// Where the record lies at the moment.
    pub(super) fn span(&self) -> RecordSpan {
        match self {
            Self::Kept(kept) => kept.span(),
            Self::Packed(span) => *span,
        }
    }
}

impl Kept {
    /// A record of which its segment counts the bytes from now on.
    pub(super) fn new(segments: &Arc<Segments>, place: FrameLocation, bytes: u32) -> Arc<Self> {
        segments.count_in(place.segment, bytes.into());
        Arc::new(Self { span: Mutex::new(RecordSpan { place, bytes }), segments: Some(segments.clone()) })
    }

    /// Where it lies at the moment.
    pub(super) fn span(&self) -> RecordSpan {
        *self.span.lock()
    }

    pub(super) fn place(&self) -> FrameLocation {
        self.span().place
    }

    pub(super) fn bytes(&self) -> u32 {
        self.span().bytes
    }

    /// The record lies there now, and is synced.
    pub(super) fn move_to(&self, to: RecordSpan) {
        let mut span = self.span.lock();
        if let Some(segments) = &self.segments {
            segments.count_in(to.place.segment, to.bytes.into());
            segments.count_out(span.place.segment, span.bytes.into());
        }
        *span = to;
    }

    /// Gives the record to another owner, who counts it from now on.
    pub(super) fn give_up(mut self) -> (RecordSpan, Option<Arc<Segments>>) {
        (self.span(), self.segments.take())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(segments) = &self.segments {
            let RecordSpan { place, bytes } = self.span();
            segments.count_out(place.segment, bytes.into());
        }
    }
}
