//! Room to write to: the segment that is written, and the next one, which is made while there is time.
//!
//! The next one is also what is left for deletions when the disk is full: an append is refused before it takes the
//! last of it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use tokio::time::Instant;

use super::frame::FrameLocation;
use super::segment::{HEADER_BYTES, OPENED_BYTES_MAX, Segment, Segments, Unmade};

/// What is left of a full disk for deletions and for moving records together: this part of a segment.
const RESERVED_PART: u32 = 8;

/// How soon a full disk is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Where records go.
pub(super) struct Room {
    segments: Arc<Segments>,
    active: Arc<Segment>,
    /// Where the next record goes.
    offset: u32,
    next: Next,
    last_number: u32,
    segment_bytes: u32,
}

/// The segment after the active one.
enum Next {
    Making(Receiver<Result<Segment, Unmade>>),
    Made(Segment),
    /// It could not be made.
    Lacking {
        asked: Instant,
        lack: Lack,
    },
}

/// What there was not enough of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Disk,
    /// Descriptors, memory or threads.
    System,
}

/// Why there is no room.
#[derive(Debug)]
pub(super) enum NoRoom {
    /// The disk is full.
    Full,
    /// The system has no descriptor or no memory left.
    Short,
    /// Something else went wrong, after which no write can be trusted.
    Broken(io::Error),
}

impl Room {
    /// Goes on in `active` at `offset`, which is in the table; `last_number` is the highest of all segments, and
    /// further ones have `segment_bytes`.
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
            next: Next::Lacking { asked: Instant::now(), lack: Lack::Disk },
            last_number,
            segment_bytes,
        };
        room.make_next(segment_bytes);
        room
    }

    pub(super) fn active(&self) -> &Arc<Segment> {
        &self.active
    }

    /// Where the next record will lie.
    pub(super) fn place(&self) -> FrameLocation {
        FrameLocation { segment: self.active.number, offset: self.offset }
    }

    /// `bytes` were written.
    pub(super) fn advance(&mut self, bytes: u32) {
        self.offset += bytes;
    }

    /// Whether a record of at most `bytes` fits into the active segment, and one more after it that ends the segment.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        bytes <= (self.active.capacity - self.offset) as usize
    }

    /// How many bytes can be written for certain: to this segment and, if that is made, to the next one.
    pub(super) fn left(&mut self) -> Result<u64, NoRoom> {
        self.poll_next()?;
        let next = match &self.next {
            Next::Made(next) => next.room() as u64,
            Next::Making(_) | Next::Lacking { .. } => 0,
        };
        Ok(u64::from(self.active.capacity - self.offset) + next)
    }

    /// Makes sure that a record of `bytes` can be taken. One that frees nothing leaves the last of a full disk alone.
    pub(super) fn ensure(&mut self, bytes: usize, frees: bool) -> Result<(), NoRoom> {
        let reserved = if frees { 0 } else { (self.segment_bytes / RESERVED_PART) as usize };
        self.poll_next()?;
        if self.fits(bytes) {
            if matches!(self.next, Next::Lacking { .. }) && !self.fits(bytes + reserved) {
                self.ask_again(bytes)?;
                self.wait_for_next()?;
            }
            return Ok(());
        }
        self.ask_again(bytes)?;
        self.wait_for_next()?;
        if let Next::Made(next) = &self.next
            && bytes > next.room()
        {
            // In the place of the one that is too small.
            self.last_number -= 1;
            self.make_next(self.capacity_for(bytes));
            self.wait_for_next()?;
        }
        Ok(())
    }

    /// Goes on in the next segment, which `ensure` has made sure of. Returns the one before, and where it ends.
    pub(super) fn roll(&mut self) -> Result<(Arc<Segment>, u32), NoRoom> {
        self.wait_for_next()?;
        let lacking = Next::Lacking { asked: Instant::now(), lack: Lack::Disk };
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
            // Whoever asked may be gone.
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
            Err(TryRecvError::Disconnected) => self.take_next(Err(Unmade::NoRoom(ended()))),
            Ok(outcome) => self.take_next(outcome),
        }
    }

    /// A full disk is asked again after a while, or it would be asked for each append.
    fn ask_again(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Next::Lacking { asked, lack } = self.next else { return Ok(()) };
        if asked.elapsed() < ASK_AGAIN {
            return Err(lack.into());
        }
        self.make_next(self.capacity_for(bytes));
        Ok(())
    }

    fn wait_for_next(&mut self) -> Result<(), NoRoom> {
        if let Next::Making(made) = &self.next {
            let outcome = made.recv().unwrap_or_else(|_| Err(Unmade::NoRoom(ended())));
            self.take_next(outcome)?;
        }
        match &self.next {
            Next::Made(_) => Ok(()),
            Next::Lacking { lack, .. } => Err((*lack).into()),
            Next::Making(_) => Err(NoRoom::Full),
        }
    }

    fn take_next(&mut self, outcome: Result<Segment, Unmade>) -> Result<(), NoRoom> {
        self.next = match outcome {
            Ok(segment) => Next::Made(segment),
            Err(Unmade::NoRoom(error)) => lacking(&error),
            Err(Unmade::Unsynced(error)) if is_full(&error) => lacking(&error),
            Err(Unmade::Unsynced(error)) => return Err(NoRoom::Broken(error)),
        };
        Ok(())
    }
}

/// There is no next segment for now. Nothing that was acknowledged is in danger.
fn lacking(error: &io::Error) -> Next {
    tracing::warn!(%error, "can not make the next file of the store; trying again");
    Next::Lacking { asked: Instant::now(), lack: if is_full(error) { Lack::Disk } else { Lack::System } }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The thread that makes a segment has ended without one.
fn ended() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Drop for Room {
    /// Nothing of it goes on afterwards, since another one may be opened in the same directory then.
    fn drop(&mut self) {
        if let Next::Making(made) = &self.next {
            let _unused = made.recv();
        }
    }
}

impl From<Lack> for NoRoom {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Disk => Self::Full,
            Lack::System => Self::Short,
        }
    }
}
