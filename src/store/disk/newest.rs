//! The newest messages in memory, by the location of their records, so that a reader at the tail needs no file.
//!
//! Records are appended to the log in the order of their locations. So this is a queue: the oldest messages leave it first,
//! and a message is found by binary search. Most messages are never read from here, so that it must cost next to nothing to put one in.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::frame::FrameLocation;
use crate::stream::Annotation;

/// Memory of an entry besides its content: its place in the queue, which may be half empty, and the owner of its bytes.
const ENTRY_BYTES: usize = 128;

/// The messages of an append, and what the publisher declared about them.
#[derive(Debug, Clone)]
pub(super) struct StoredMessages {
    pub(super) bytes: Bytes,
    pub(super) annotation: Option<Arc<Annotation>>,
}

impl StoredMessages {
    pub(super) fn into_parts(self) -> (Bytes, Option<Arc<Annotation>>) {
        (self.bytes, self.annotation)
    }

    /// The memory of the messages, in bytes.
    fn memory_bytes(&self) -> usize {
        let said = self.annotation.as_ref().map_or(0, |said| size_of::<Annotation>() + said.size());
        self.bytes.len() + said
    }
}

/// The newest messages of a store.
#[derive(Debug)]
pub(super) struct NewestMessages {
    queue: RwLock<NewestQueue>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct NewestQueue {
    /// In the order of their locations.
    entries: VecDeque<(FrameLocation, StoredMessages)>,
    bytes: usize,
}

impl NewestMessages {
    /// Keeps as many messages as take `bytes_max` bytes.
    pub(super) fn within(bytes_max: usize) -> Self {
        Self { queue: RwLock::default(), bytes_max }
    }

    /// Adds messages that were just written.
    pub(super) fn push(&self, place: FrameLocation, messages: StoredMessages) {
        let bytes = ENTRY_BYTES + messages.memory_bytes();
        let mut queue = self.queue.write();
        let is_newest = queue.entries.back().is_none_or(|(last, _)| *last < place);
        if bytes > self.bytes_max || !is_newest {
            // Readers find it in its file.
            return;
        }
        queue.bytes += bytes;
        queue.entries.push_back((place, messages));
        while queue.bytes > self.bytes_max
            && let Some((_, oldest)) = queue.entries.pop_front()
        {
            queue.bytes -= ENTRY_BYTES + oldest.memory_bytes();
        }
    }

    /// Returns the messages of the record at `place`, if they are among the newest.
    pub(super) fn get(&self, place: FrameLocation) -> Option<StoredMessages> {
        let queue = self.queue.read();
        let index = queue.entries.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        queue.entries.get(index).map(|(_, messages)| messages.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u32) -> FrameLocation {
        FrameLocation { segment: number / 4, offset: number % 4 }
    }

    fn messages(number: u32, bytes: usize) -> StoredMessages {
        StoredMessages { bytes: vec![number as u8; bytes].into(), annotation: None }
    }

    fn found(newest: &NewestMessages, numbers: std::ops::Range<u32>) -> Vec<u32> {
        numbers.filter(|number| newest.get(place(*number)).is_some()).collect()
    }

    #[test]
    fn the_oldest_messages_leave_first_and_the_bytes_stay_within_the_limit() {
        let newest = NewestMessages::within(3 * (ENTRY_BYTES + 100));
        (0..10).for_each(|number| newest.push(place(number), messages(number, 100)));
        assert_eq!(found(&newest, 0..10), [7, 8, 9]);
        assert_eq!(newest.get(place(8)).map(|found| found.bytes), Some(Bytes::from(vec![8; 100])));
        newest.push(place(10), messages(10, 150));
        assert_eq!(found(&newest, 0..11), [9, 10], "two had to make room for a larger one");
        assert!(newest.queue.read().bytes <= newest.bytes_max);
    }

    #[test]
    fn messages_that_do_not_fit_or_are_not_the_newest_are_left_to_their_file() {
        let newest = NewestMessages::within(2 * (ENTRY_BYTES + 100));
        newest.push(place(5), messages(5, 100));
        newest.push(place(6), messages(6, 1000));
        newest.push(place(4), messages(4, 10));
        assert_eq!(found(&newest, 0..10), [5]);
    }
}
