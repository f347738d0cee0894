//! [`Readers`]: which devices read a stream, and which of them wait for it to change. An append visits those that wait alone, so
//! that a busy stream costs nothing for devices that are woken already.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use crate::hub::ClientId;
use crate::stream::{Offset, StreamName};

/// The streams that devices read.
#[derive(Debug, Default)]
pub(super) struct Readers {
    by_stream: HashMap<StreamName, StreamReaders>,
}

#[derive(Debug, Default)]
struct StreamReaders {
    /// The last known tail. `None`: the stream does not exist.
    tail: Option<Offset>,
    all: BTreeSet<ClientId>,
    /// Those for which a change of the tail makes a difference.
    waiting: BTreeSet<ClientId>,
}

impl Readers {
    /// Adds a reader, which waits. Returns whether it is the first one of the stream.
    pub(super) fn add(&mut self, stream: &StreamName, id: &ClientId, tail: Option<Offset>) -> bool {
        let mut is_first = false;
        let readers = self.by_stream.entry(stream.clone()).or_insert_with(|| {
            is_first = true;
            StreamReaders { tail, ..StreamReaders::default() }
        });
        readers.all.insert(id.clone());
        readers.waiting.insert(id.clone());
        is_first
    }

    /// Removes a reader. Returns whether it was the last one of the stream.
    pub(super) fn remove(&mut self, stream: &StreamName, id: &ClientId) -> bool {
        let Some(readers) = self.by_stream.get_mut(stream) else { return false };
        readers.all.remove(id);
        readers.waiting.remove(id);
        let is_last = readers.all.is_empty();
        if is_last {
            self.by_stream.remove(stream);
        }
        is_last
    }

    /// Whether any device reads the stream.
    pub(super) fn has(&self, stream: &StreamName) -> bool {
        self.by_stream.contains_key(stream)
    }

    /// The last known tail. `None`: nobody reads the stream.
    pub(super) fn tail(&self, stream: &StreamName) -> Option<Option<Offset>> {
        self.by_stream.get(stream).map(|readers| readers.tail)
    }

    pub(super) fn set_tail(&mut self, stream: &StreamName, tail: Option<Offset>) {
        if let Some(readers) = self.by_stream.get_mut(stream) {
            readers.tail = tail;
        }
    }

    /// A reader waits for changes again.
    pub(super) fn wait(&mut self, stream: &StreamName, id: &ClientId) {
        if let Some(readers) = self.by_stream.get_mut(stream)
            && readers.all.contains(id)
        {
            readers.waiting.insert(id.clone());
        }
    }

    /// A reader needs to hear of no change.
    pub(super) fn stop_waiting(&mut self, stream: &StreamName, id: &ClientId) {
        if let Some(readers) = self.by_stream.get_mut(stream) {
            readers.waiting.remove(id);
        }
    }

    /// The readers that wait, by id, from the first one behind `after` on.
    pub(super) fn waiting(&self, stream: &StreamName, after: Option<&ClientId>, max: usize) -> Vec<ClientId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = self.by_stream.get(stream).map(|readers| &readers.waiting);
        waiting.into_iter().flat_map(|ids| ids.range((from, Bound::Unbounded))).take(max).cloned().collect()
    }
}
