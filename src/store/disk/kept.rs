//! Owners of records in use. Each segment counts the bytes of its records in use; when the last owner of a record is dropped,
//! the room of the record is garbage.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::frame::FrameLocation;
use super::segment::Segments;

/// A record in use, which a log, a retained message and the state of a stream can share.
#[derive(Debug)]
pub(super) struct Kept {
    span: Mutex<RecordSpan>,
    /// Counts the bytes of the record; `None` once another owner counts them.
    segments: Option<Arc<Segments>>,
}

/// The location and size of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
/// The location of its frame.
pub(super) struct RecordSpan {
    pub(super) place: FrameLocation,
    /// Size of its frame.
    pub(super) bytes: u32,
}

/// The record of an append in a log.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// A record with shared ownership.
    Kept(Arc<Kept>),
    /// A record owned by the sealed run that contains this append.
    Packed(RecordSpan),
}

/// A range of the content of a record. The record was moved since if its segment is gone.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) span: RecordSpan,
    pub(super) range: Range<usize>,
}

impl RecordSpan {
    /// The offset after the record.
    pub(super) fn end(self) -> u32 {
        self.place.offset.saturating_add(self.bytes)
    }
}

impl Stored {
    /// The current location and size of the record.
    pub(super) fn span(&self) -> RecordSpan {
        match self {
            Self::Kept(kept) => kept.span(),
            Self::Packed(span) => *span,
        }
    }
}

impl Kept {
    /// A record whose bytes its segment counts from now on.
    pub(super) fn new(segments: &Arc<Segments>, place: FrameLocation, bytes: u32) -> Arc<Self> {
        segments.count_in(place.segment, bytes.into());
        Arc::new(Self { span: Mutex::new(RecordSpan { place, bytes }), segments: Some(segments.clone()) })
    }

    /// The current location and size of the record.
    pub(super) fn span(&self) -> RecordSpan {
        *self.span.lock()
    }

    pub(super) fn place(&self) -> FrameLocation {
        self.span().place
    }

    pub(super) fn bytes(&self) -> u32 {
        self.span().bytes
    }

    /// Sets the location to a copy of the record, which must be synced.
    pub(super) fn move_to(&self, to: RecordSpan) {
        let mut span = self.span.lock();
        if let Some(segments) = &self.segments {
            segments.count_in(to.place.segment, to.bytes.into());
            segments.count_out(span.place.segment, span.bytes.into());
        }
        *span = to;
    }

    /// Hands the record over to another owner, which counts its bytes from now on.
    pub(super) fn into_span(mut self) -> (RecordSpan, Option<Arc<Segments>>) {
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
