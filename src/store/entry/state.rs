//! The values that a stream in a store consists of, besides its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use crate::store::log::Record;
use crate::stream::{Annotation, Fork, Lifetime, Missing, Position, Principal, Retention};

/// A point in time on both clocks.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Moment {
    /// The time that measures ages and idle times (`clock::Clock::now`).
    pub(in crate::store) now: SystemTime,
    /// The time of day at the same moment.
    pub(in crate::store) wall: SystemTime,
}

/// The difference between two clocks, in milliseconds, until it is measured again. Initially they show the same.
#[derive(Debug, Default)]
pub(in crate::store) struct ClockDifference(AtomicI64);

impl ClockDifference {
    /// Notes that one clock shows `from` and the other one `to`.
    pub(in crate::store) fn follow(&self, from: SystemTime, to: SystemTime) {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let ahead = match to.duration_since(from) {
            Ok(ahead) => millis(ahead),
            Err(behind) => -millis(behind.duration()),
        };
        self.0.store(ahead, Ordering::Relaxed);
    }

    /// What the other clock shows when the one shows `time`.
    pub(in crate::store) fn convert(&self, time: SystemTime) -> SystemTime {
        let ahead = self.0.load(Ordering::Relaxed);
        let by = Duration::from_millis(ahead.unsigned_abs());
        let converted = if ahead < 0 { time.checked_sub(by) } else { time.checked_add(by) };
        converted.unwrap_or(time)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum State {
    /// The creation is decided and not done: the name is taken, and readers do not see the stream.
    Begun,
    Live,
    /// Deleted, but its name stays taken while there are forks.
    Deleted,
    /// The deletion is decided and not done.
    Ending,
    /// Not in the table any more; other threads may still hold a reference.
    Removed,
}

impl State {
    /// Whether there is a stream that can be deleted.
    pub(in crate::store) fn is_there(self) -> Result<(), Missing> {
        match self {
            Self::Live | Self::Ending => Ok(()),
            Self::Deleted => Err(Missing::Deleted),
            Self::Begun | Self::Removed => Err(Missing::NotFound),
        }
    }
}

/// The settings that the creator asked for, which distinguish a repeated creation from a different one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct CreationRequest {
    pub(in crate::store) lifetime: Option<Lifetime>,
    pub(in crate::store) retention: Option<Retention>,
    pub(in crate::store) fork: Option<Fork>,
}

/// The written state of a stream.
#[derive(Debug)]
pub(in crate::store) struct WrittenState<C> {
    pub(in crate::store) content: C,
    /// A second copy, because the messages of the stream cannot be used without its state.
    pub(in crate::store) copy: C,
    /// The end of the trimmed messages when the state was written. Earlier messages are not needed to restore the stream.
    pub(in crate::store) trimmed: Position,
}

/// The part of an append that is done after it is written.
pub(in crate::store) struct DecidedAppend<C> {
    /// The messages; `None` if the append only closes the stream.
    pub(in crate::store) record: Option<Record<C>>,
    /// What the publisher declared about the messages.
    pub(in crate::store) annotation: Option<Arc<Annotation>>,
    pub(in crate::store) close: bool,
    /// The principal that appended.
    pub(in crate::store) principal: Principal,
}
