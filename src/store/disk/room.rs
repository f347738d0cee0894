//! Room for records: the active segment, and the next one, which is created in the background.
//!
//! When the disk is full, the last part of the next segment is reserved for deletions: appends are refused before they use it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use tokio::time::Instant;

use super::frame::FrameLocation;
use super::segment::{CreateSegmentError, HEADER_BYTES, OPENED_BYTES_MAX, Segment, Segments};

/// The reserve on a full disk for deletions and for moving records: this fraction of a segment.
const RESERVED_PART: u32 = 8;

/// How soon to try again to create a segment on a full disk.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Where records are written.
pub(super) struct Room {
    segments: Arc<Segments>,
    active: Arc<Segment>,
    /// The offset of the next record in `active`.
    offset: u32,
    next: Next,
    last_number: u32,
    segment_bytes: u32,
}

/// The segment after the active one.
enum Next {
    Making(Receiver<Result<Segment, CreateSegmentError>>),
    Made(Segment),
    /// The segment could not be created.
    Lacking {
        asked: Instant,
        lack: ResourceShortage,
    },
}

/// What was missing to create a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResourceShortage {
    Disk,
    /// Descriptors, memory or threads of the system.
    System,
}

/// Why a record cannot be written.
#[derive(Debug)]
pub(super) enum NoRoom {
    /// The disk is full.
    Full,
    /// The system has no descriptor or no memory left.
    Short,
    /// Another error, after which no write can be trusted.
    Broken(io::Error),
}

impl Room {
    /// Continues in `active`, which is in the table of `segments`, at `offset`. `last_number` is the highest number of all
    /// segments, and new ones have `segment_bytes`.
    pub(super) fn new(
        segments: Arc<Segments>,
        active: Arc<Segment>,
        offset: u32,
        last_number: u32,
        segment_bytes: u32,
    ) -> Self {
        let mut room = Self {
            segments,
            active,
            offset,
            next: Next::Lacking { asked: Instant::now(), lack: ResourceShortage::Disk },
            last_number,
            segment_bytes,
        };
        room.make_next(segment_bytes);
        room
    }

    pub(super) fn active(&self) -> &Arc<Segment> {
        &self.active
    }

    /// The location of the next record.
    pub(super) fn place(&self) -> FrameLocation {
        FrameLocation { segment: self.active.number, offset: self.offset }
    }

    /// Moves the location after a record of `bytes`.
    pub(super) fn advance(&mut self, bytes: u32) {
        self.offset += bytes;
    }

    /// Whether a record of at most `bytes` fits into the active segment.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        bytes <= (self.active.capacity - self.offset) as usize
    }

    /// How many bytes can be written for certain: to the active segment and, if it is created, to the next one.
    pub(super) fn left(&mut self) -> Result<u64, NoRoom> {
        self.poll_next()?;
        let next = match &self.next {
            Next::Made(next) => next.room() as u64,
            Next::Making(_) | Next::Lacking { .. } => 0,
        };
        Ok(u64::from(self.active.capacity - self.offset) + next)
    }

    /// Makes sure that a record of `bytes` can be written. A record that does not free room (`frees`) must leave the reserve of
    /// a full disk.
    pub(super) fn ensure(&mut self, bytes: usize, frees: bool) -> Result<(), NoRoom> {
        let reserved = if frees { 0 } else { (self.segment_bytes / RESERVED_PART) as usize };
        self.poll_next()?;
        if self.fits(bytes) {
            if matches!(self.next, Next::Lacking { .. }) && !self.fits(bytes + reserved) {
                self.retry_next(bytes)?;
                self.wait_for_next()?;
            }
            return Ok(());
        }
        self.retry_next(bytes)?;
        self.wait_for_next()?;
        if let Next::Made(next) = &self.next
            && bytes > next.room()
        {
            // Replaces the segment that is too small, under the same number.
            self.last_number -= 1;
            self.make_next(self.capacity_for(bytes));
            self.wait_for_next()?;
        }
        Ok(())
    }

    /// Continues in the next segment, which `ensure` has made sure of. Returns the previous one and its end.
    pub(super) fn roll(&mut self) -> Result<(Arc<Segment>, u32), NoRoom> {
        self.wait_for_next()?;
        let lacking = Next::Lacking { asked: Instant::now(), lack: ResourceShortage::Disk };
        let Next::Made(next) = std::mem::replace(&mut self.next, lacking) else {
            return Err(NoRoom::Full);
        };
        let next = Arc::new(next);
        self.segments.insert(next.clone());
        let end = std::mem::replace(&mut self.offset, HEADER_BYTES);
        self.make_next(self.segment_bytes);
        Ok((std::mem::replace(&mut self.active, next), end))
    }

    fn make_next(&mut self, capacity: u32) {
        self.last_number += 1;
        let (folder, number) = (self.segments.folder().clone(), self.last_number);
        let (outcome, made) = sync_channel(1);
        let make = move || {
            // The room may be gone.
            let _unasked = outcome.send(Segment::make(&folder, number, capacity));
        };
        self.next = match std::thread::Builder::new().name("segment".into()).spawn(make) {
            Ok(_) => Next::Making(made),
            Err(error) => lacking(&error),
        };
    }

    /// The size of a segment that has room for a record of `bytes`.
    fn capacity_for(&self, bytes: usize) -> u32 {
        let record = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(HEADER_BYTES + OPENED_BYTES_MAX);
        self.segment_bytes.max(record)
    }

    fn poll_next(&mut self) -> Result<(), NoRoom> {
        let Next::Making(made) = &self.next else { return Ok(()) };
        match made.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => self.take_next(Err(CreateSegmentError::NoRoom(ended()))),
            Ok(outcome) => self.take_next(outcome),
        }
    }

    /// Tries again to create the next segment, unless it failed just now: on a full disk every append would try.
    fn retry_next(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Next::Lacking { asked, lack } = self.next else { return Ok(()) };
        if asked.elapsed() < RETRY_AFTER {
            return Err(lack.into());
        }
        self.make_next(self.capacity_for(bytes));
        Ok(())
    }

    fn wait_for_next(&mut self) -> Result<(), NoRoom> {
        if let Next::Making(made) = &self.next {
            let outcome = made.recv().unwrap_or_else(|_| Err(CreateSegmentError::NoRoom(ended())));
            self.take_next(outcome)?;
        }
        match &self.next {
            Next::Made(_) => Ok(()),
            Next::Lacking { lack, .. } => Err((*lack).into()),
            Next::Making(_) => Err(NoRoom::Full),
        }
    }

    fn take_next(&mut self, outcome: Result<Segment, CreateSegmentError>) -> Result<(), NoRoom> {
        self.next = match outcome {
            Ok(segment) => Next::Made(segment),
            Err(CreateSegmentError::NoRoom(error)) => lacking(&error),
            Err(CreateSegmentError::Unsynced(error)) if is_full(&error) => lacking(&error),
            Err(CreateSegmentError::Unsynced(error)) => return Err(NoRoom::Broken(error)),
        };
        Ok(())
    }
}

/// The state without a next segment. Everything acknowledged is safe.
fn lacking(error: &io::Error) -> Next {
    tracing::warn!(%error, "cannot create the next file of the store; trying again");
    Next::Lacking {
        asked: Instant::now(),
        lack: if is_full(error) { ResourceShortage::Disk } else { ResourceShortage::System },
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The error if the thread that creates a segment has ended without one.
fn ended() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Drop for Room {
    /// Waits for the thread that creates a segment, because another process may open the directory afterwards.
    fn drop(&mut self) {
        if let Next::Making(made) = &self.next {
            let _unused = made.recv();
        }
    }
}

impl From<ResourceShortage> for NoRoom {
    fn from(lack: ResourceShortage) -> Self {
        match lack {
            ResourceShortage::Disk => Self::Full,
            ResourceShortage::System => Self::Short,
        }
    }
}
