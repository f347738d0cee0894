//! A record that somebody has: where it lies, and how the segment learns that nobody has it any more.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::frame::Place;
use super::segment::Segments;
use crate::store::log::Content;

/// A record in use. Logs, their forks and a retained message share one; with the last of them its room is garbage.
#[derive(Debug)]
pub(super) struct Kept {
    /// Segment and offset; both change at once when it is moved.
    place: AtomicU64,
    /// Of the whole record.
    bytes: AtomicU32,
    segments: Arc<Segments>,
}

/// A stretch of the content of a record.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) kept: Arc<Kept>,
    pub(super) range: Range<usize>,
}

impl Kept {
    /// A record of `bytes` at `place`, which its segment counts from now on.
    pub(super) fn new(segments: &Arc<Segments>, place: Place, bytes: u32) -> Arc<Self> {
        segments.count_in(place.segment, bytes);
        let kept = Arc::new(Self {
            place: AtomicU64::new(pack(place)),
            bytes: AtomicU32::new(bytes),
            segments: segments.clone(),
        });
        if let Some(segment) = segments.get(place.segment) {
            segment.kept.lock().push(Arc::downgrade(&kept));
        }
        kept
    }

    pub(super) fn place(&self) -> Place {
        let packed = self.place.load(Ordering::Acquire);
        Place { segment: (packed >> 32) as u32, offset: packed as u32 }
    }

    /// How many bytes the record has, where it lies at the moment.
    pub(super) fn bytes(&self) -> u32 {
        self.bytes.load(Ordering::Acquire)
    }

    /// The record lies there now, and is synced.
    pub(super) fn move_to(self: &Arc<Self>, place: Place, bytes: u32) {
        let (from, bytes_before) = (self.place(), self.bytes());
        self.segments.count_in(place.segment, bytes);
        self.bytes.store(bytes, Ordering::Release);
        self.place.store(pack(place), Ordering::Release);
        self.segments.count_out(from.segment, bytes_before);
        if let Some(segment) = self.segments.get(place.segment) {
            segment.kept.lock().push(Arc::downgrade(self));
        }
    }
}

fn pack(place: Place) -> u64 {
    u64::from(place.segment) << 32 | u64::from(place.offset)
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.segments.count_out(self.place().segment, self.bytes());
    }
}

impl Content for Arc<Kept> {
    type Piece = Slice;

    fn piece(&self, range: Range<usize>) -> Slice {
        Slice { kept: self.clone(), range }
    }
}
