//! [`AttachedStreams`]: the streams with readers at this gateway. While a stream has any, its idle lifetime does not elapse.
//!
//! The metadata of such a stream is kept as the last read found it, and follows the news from then on, so that a reader at the tail
//! learns without a call that there is nothing to read (the *hot tail*). While the connection for news is lost, nothing is known.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::reply::StreamHead;
use crate::stream::{Batch, Epoch, Position, ReadError, Start, StreamName};

/// The engine is told again that there are readers after this time.
const TELL_AGAIN: Duration = Duration::from_secs(20);

/// The streams with readers, and those that the last reader has left lately.
#[derive(Debug, Default)]
pub(super) struct AttachedStreams {
    streams: Mutex<HashMap<StreamName, AttachedReaders>>,
    next_number: AtomicU64,
    /// Odd while news are followed; changes whenever that begins or ends.
    connections: AtomicU64,
}

/// The news that were known when a read began, so that its result is kept only if no other news have come meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewsSeen {
    connection: u64,
    of_stream: u64,
}

/// The readers of one stream.
#[derive(Debug, Default)]
struct AttachedReaders {
    numbers: HashSet<u64>,
    /// When the engine was told.
    told_at: Option<SystemTime>,
    /// When the last reader left, which the engine has not been told.
    left_at: Option<SystemTime>,
    /// Number of news of the stream.
    news: u64,
    /// The metadata as of the last news.
    head: Option<StreamHead>,
    /// The last read that others may join.
    read: Option<JoinableRead>,
}

/// A read whose result is for all readers that ask for the same, as long as one of them waits for it.
#[derive(Debug)]
struct JoinableRead {
    seen: NewsSeen,
    start: Start,
    bytes_max: usize,
    result: Weak<SharedRead>,
}

/// The result of a read, once one of the readers has it.
pub(super) type SharedRead = OnceCell<Result<Batch, ReadError>>;

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

    /// News are followed from now on. Readers have to ask once.
    pub(super) fn news_begin(&self) {
        self.connections.fetch_or(1, Ordering::SeqCst);
    }

    /// News may be missed from now on.
    pub(super) fn news_end(&self) {
        let _before = self
            .connections
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| (count % 2 == 1).then_some(count + 1));
        self.streams.lock().values_mut().for_each(|readers| readers.head = None);
    }

    /// Returns the read with this start and limit that another reader has begun since the last news, or a new one. Readers that the same
    /// append has woken share one call of the engine this way. `None`: news may be missed at the moment, so no read is shared.
    pub(super) fn join_read(
        &self,
        name: &StreamName,
        start: Start,
        bytes_max: usize,
    ) -> Option<Arc<SharedRead>> {
        let connection = self.connections.load(Ordering::SeqCst);
        let mut streams = self.streams.lock();
        let readers = streams.get_mut(name).filter(|_| connection % 2 == 1)?;
        let seen = NewsSeen { connection, of_stream: readers.news };
        let is_same =
            |read: &&JoinableRead| (read.seen, read.start, read.bytes_max) == (seen, start, bytes_max);
        if let Some(begun) = readers.read.as_ref().filter(is_same).and_then(|read| read.result.upgrade()) {
            return Some(begun);
        }
        let begins = Arc::new(SharedRead::new());
        readers.read = Some(JoinableRead { seen, start, bytes_max, result: Arc::downgrade(&begins) });
        Some(begins)
    }

    /// What a read has to know when it begins; `None`: its result is not kept.
    pub(super) fn news_seen(&self, name: &StreamName) -> Option<NewsSeen> {
        let connection = self.connections.load(Ordering::SeqCst);
        let of_stream = self.streams.lock().get(name)?.news;
        (connection % 2 == 1).then_some(NewsSeen { connection, of_stream })
    }

    /// Keeps the metadata that a read has found, unless there were news since it began.
    pub(super) fn store_head(&self, name: &StreamName, seen: NewsSeen, head: &StreamHead) {
        let mut streams = self.streams.lock();
        if let Some(readers) = streams.get_mut(name)
            && seen
                == (NewsSeen { connection: self.connections.load(Ordering::SeqCst), of_stream: readers.news })
        {
            readers.head = Some(head.clone());
        }
    }

    /// A stream has moved to a tail from the one `before`; `None`: it has ended, or it is not known what has happened.
    pub(super) fn note_news(&self, name: &StreamName, moved: Option<(Epoch, Position, Position, bool)>) {
        let mut streams = self.streams.lock();
        let Some(readers) = streams.get_mut(name) else { return };
        readers.news += 1;
        let head = readers.head.take().zip(moved);
        let head = head.filter(|(head, (epoch, ..))| head.history.own() == *epoch);
        readers.head = head.and_then(|(mut head, (_, before, tail, closed))| {
            let is_known = tail < head.tail || (tail == head.tail && closed == head.closed);
            let follows = before == head.tail;
            if follows && !is_known {
                (head.tail, head.closed) = (tail, closed);
            }
            (is_known || follows).then_some(head)
        });
    }

    /// The metadata of a stream if it is known without a call.
    pub(super) fn head(&self, name: &StreamName) -> Option<StreamHead> {
        self.streams.lock().get(name)?.head.clone()
    }

    /// The streams with readers.
    pub(super) fn names(&self) -> Vec<StreamName> {
        self.streams.lock().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_join_a_read_until_there_are_news_or_all_have_its_result() {
        let (attached, name) = (AttachedStreams::default(), StreamName::parse("s").unwrap());
        let join = || attached.join_read(&name, Start::Tail, 100);
        assert!(join().is_none(), "the stream has no readers");
        attached.attach(&name);
        assert!(join().is_none(), "no news are followed");
        attached.news_begin();
        let begun = join().unwrap();
        assert!(Arc::ptr_eq(&begun, &join().unwrap()));
        let others = [
            attached.join_read(&name, Start::Tail, 200).unwrap(),
            attached.join_read(&name, Start::Earliest, 200).unwrap(),
        ];
        assert!(others.iter().all(|other| !Arc::ptr_eq(other, &begun)));
        let begun = join().unwrap();
        attached.note_news(&name, None);
        let after_news = join().unwrap();
        assert!(!Arc::ptr_eq(&begun, &after_news));
        after_news.set(Err(ReadError::BehindTail)).unwrap();
        assert!(join().unwrap().initialized());
        drop(after_news);
        assert!(!join().unwrap().initialized());
        attached.news_end();
        assert!(join().is_none());
    }
}
