//! [`AttachedStreams`]: the streams with readers at this gateway. While a stream has any, its idle lifetime does not elapse.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::stream::{Epoch, StreamName};

/// The engine is told again that there are readers after this time.
const TELL_AGAIN: Duration = Duration::from_secs(20);

/// The streams with readers, and those that the last reader has left lately.
#[derive(Debug, Default)]
pub(super) struct AttachedStreams {
    streams: Mutex<HashMap<StreamName, AttachedReaders>>,
    next_number: AtomicU64,
}

/// The readers of one stream.
#[derive(Debug, Default)]
struct AttachedReaders {
    numbers: HashSet<u64>,
    /// When the engine was told.
    told_at: Option<SystemTime>,
    /// When the last reader left, which the engine has not been told.
    left_at: Option<SystemTime>,
}

impl AttachedStreams {
    /// Adds a reader. The engine is told with the next sweep, since no lifetime is shorter than the interval of sweeps.
    pub(super) fn attach(&self, name: &StreamName) -> Epoch {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let mut streams = self.streams.lock();
        let readers = streams.entry(name.clone()).or_default();
        readers.numbers.insert(number);
        readers.left_at = None;
        Epoch(number)
    }

    /// Removes a reader. The engine is told with the next call on the stream or the next sweep.
    pub(super) fn detach(&self, name: &StreamName, Epoch(number): Epoch, now: SystemTime) {
        if let Some(readers) = self.streams.lock().get_mut(name)
            && readers.numbers.remove(&number)
            && readers.numbers.is_empty()
        {
            readers.left_at = Some(now);
        }
    }

    /// When the last reader of a stream left, if the engine has to be told; it counts as told from then on.
    pub(super) fn take_left(&self, name: &StreamName) -> Option<SystemTime> {
        let mut streams = self.streams.lock();
        let left_at = streams.get(name)?.left_at;
        if left_at.is_some() {
            streams.remove(name);
        }
        left_at
    }

    /// The streams of which the engine has to be told at `now`, each with the time at which the last reader left.
    pub(super) fn take_due(&self, now: SystemTime) -> Vec<(StreamName, Option<SystemTime>)> {
        let is_due = |readers: &AttachedReaders| match readers.told_at {
            None => true,
            Some(_) if readers.left_at.is_some() => true,
            Some(told_at) => now.duration_since(told_at).is_ok_and(|since| since >= TELL_AGAIN),
        };
        let mut streams = self.streams.lock();
        let due = streams.iter_mut().filter(|(_, readers)| is_due(readers));
        let due = due.map(|(name, readers)| {
            readers.told_at = Some(now);
            (name.clone(), readers.left_at)
        });
        let due = due.collect();
        streams.retain(|_, readers| readers.left_at.is_none());
        due
    }

    /// The streams with readers.
    pub(super) fn names(&self) -> Vec<StreamName> {
        self.streams.lock().keys().cloned().collect()
    }
}
