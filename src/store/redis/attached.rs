//! [`AttachedStreams`]: the streams with readers at this gateway. While a stream has any, its idle lifetime does not elapse.
//!
//! The metadata of such a stream is kept as the last read found it, and follows the news from then on with the newest messages, so that
//! a reader learns without a call what comes next, or that there is nothing to read (the [*hot tail*](HotTail)). While the connection for
//! news is lost, nothing is known.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::hot::{HotTail, StreamMove};
use super::interest::ChannelInterest;
use super::reply::StreamHead;
use crate::budget::Charge;
use crate::store::log::Record;
use crate::stream::{Batch, Epoch, Position, ReadError, Start, StreamName};

/// The engine is told again that there are readers after this time.
const TELL_AGAIN: Duration = Duration::from_secs(20);

/// Changes of a stream that a read of it may be behind. If there are more during the read, its result is not kept.
const EARLY_MAX: usize = 8;

/// The place of a change among the kept messages, in bytes.
const KEPT_CHANGE_BYTES: u64 = size_of::<(StreamName, Position, u64)>() as u64;

/// Memory for the messages of news.
#[derive(Debug, Clone, Copy)]
pub struct NewsRoom {
    /// Of all streams, in bytes.
    pub bytes_max: u64,
    /// Of one stream, in bytes.
    pub stream_bytes_max: u64,
}

/// The streams with readers, and those that the last reader has left lately.
#[derive(Debug)]
pub(super) struct AttachedStreams {
    streams: Mutex<HashMap<StreamName, AttachedReaders>>,
    kept: Mutex<HotMessages>,
    room: NewsRoom,
    next_number: AtomicU64,
    /// The channels of these streams.
    pub(super) interest: ChannelInterest,
    /// Odd while news are followed; changes whenever that begins or ends.
    connections: AtomicU64,
}

/// The news that were known when a read began, so that its result is kept only if no other news have come meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewsSeen {
    connection: u64,
    /// [`AttachedReaders::number`].
    readers: u64,
    of_stream: u64,
}

/// The readers of one stream.
#[derive(Debug, Default)]
struct AttachedReaders {
    /// Differs between two times for which the stream has readers: nobody follows its changes in between.
    number: u64,
    numbers: HashSet<u64>,
    /// When the engine was told.
    told_at: Option<SystemTime>,
    /// When the last reader left, which the engine has not been told.
    left_at: Option<SystemTime>,
    /// Number of changes of the stream.
    news: u64,
    /// Metadata and newest messages as of the last change. `None`: the next read asks the engine.
    tail: Option<HotTail>,
    /// While that is nothing: the last changes, without messages, each with its number.
    early: VecDeque<(u64, StreamMove)>,
    /// The last read that others may join.
    read: Option<JoinableRead>,
}

/// The messages of all hot tails from the oldest to the newest. Those of streams that have no readers any more are still counted.
#[derive(Debug)]
struct HotMessages {
    ends: VecDeque<(StreamName, Position, u64)>,
    bytes: u64,
    charge: Charge,
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

impl AttachedReaders {
    /// Whether the engine has to know of the readers: unless the lifetime of the stream is known, and does not depend on them.
    fn matter(&self) -> bool {
        self.tail.as_ref().is_none_or(HotTail::ends_when_idle)
    }

    fn seen(&self, connection: u64) -> NewsSeen {
        NewsSeen { connection, readers: self.number, of_stream: self.news }
    }
}

impl AttachedStreams {
    /// No streams. The messages of news take at most `room`, and are charged to `charge`.
    pub(super) fn new(room: NewsRoom, charge: Charge) -> Self {
        Self {
            streams: Mutex::default(),
            kept: Mutex::new(HotMessages { ends: VecDeque::new(), bytes: 0, charge }),
            room,
            next_number: AtomicU64::new(0),
            interest: ChannelInterest::default(),
            connections: AtomicU64::new(0),
        }
    }

    /// Adds a reader. The engine is told with the next sweep, since no lifetime is shorter than the interval of sweeps.
    pub(super) fn attach(&self, name: &StreamName) -> Epoch {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let mut streams = self.streams.lock();
        let new = || {
            self.interest.readers_begin(name);
            AttachedReaders { number, ..AttachedReaders::default() }
        };
        let readers = streams.entry(name.clone()).or_insert_with(new);
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
        let left_at = streams.get(name).filter(|readers| readers.matter())?.left_at;
        if left_at.is_some() {
            streams.remove(name);
            self.interest.readers_end(name);
        }
        left_at
    }

    /// The streams of which the engine has to be told at `now`, each with the time at which the last reader left. Streams without readers
    /// are forgotten.
    pub(super) fn take_due(&self, now: SystemTime) -> Vec<(StreamName, Option<SystemTime>)> {
        let is_due = |readers: &AttachedReaders| match readers.told_at {
            _ if !readers.matter() => false,
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
        streams.retain(|name, readers| {
            let has_left = readers.left_at.is_some();
            if has_left {
                self.interest.readers_end(name);
            }
            !has_left
        });
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
        self.streams.lock().values_mut().for_each(|readers| {
            readers.tail = None;
            readers.early.clear();
        });
    }

    /// Waits until the changes of a stream with readers are heard, at most for a moment, and not at all if news may be missed at the
    /// moment anyway.
    pub(super) async fn wait_until_heard(&self, name: &StreamName) {
        if self.has(name.as_str()) && !self.interest.hears(name) {
            let are_followed = self.connections.load(Ordering::SeqCst) % 2 == 1;
            self.interest.wait_until_heard(name, are_followed).await;
        }
    }

    /// Returns the read with this start and limit that another reader has begun since the last news, or a new one. Readers that the same
    /// append has woken share one call of the engine this way. `None`: changes may be missed at the moment, so no read is shared.
    pub(super) fn join_read(
        &self,
        name: &StreamName,
        start: Start,
        bytes_max: usize,
    ) -> Option<Arc<SharedRead>> {
        let connection = self.connections.load(Ordering::SeqCst);
        let mut streams = self.streams.lock();
        let is_heard = connection % 2 == 1 && self.interest.hears(name);
        let readers = streams.get_mut(name).filter(|_| is_heard)?;
        let seen = readers.seen(connection);
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
        let seen = self.streams.lock().get(name)?.seen(connection);
        (connection % 2 == 1 && self.interest.hears(name)).then_some(seen)
    }

    /// Keeps the metadata that a read has found, with the changes of the stream since the read began, if they are known.
    pub(super) fn store_head(&self, name: &StreamName, seen: NewsSeen, head: &StreamHead) {
        let mut streams = self.streams.lock();
        let Some(readers) = streams.get_mut(name) else { return };
        let now = readers.seen(self.connections.load(Ordering::SeqCst));
        if (seen.connection, seen.readers) != (now.connection, now.readers) {
            return;
        }
        match &mut readers.tail {
            Some(tail) if now == seen => tail.refresh(head.clone()),
            // It has followed the changes.
            Some(_) => {}
            None => {
                let mut tail = HotTail::of(head.clone());
                let missed = readers.early.drain(..).filter(|(number, _)| *number > seen.of_stream);
                let missed: Vec<_> = missed.map(|(_, moved)| moved).collect();
                let are_all = missed.len() as u64 == readers.news - seen.of_stream;
                if are_all && missed.into_iter().all(|moved| tail.advance(moved)) {
                    readers.tail = Some(tail);
                }
            }
        }
    }

    /// A stream has changed. `None`: it has ended, or it is not known what has happened.
    pub(super) fn note_news(&self, name: &StreamName, moved: Option<StreamMove>) {
        let mut streams = self.streams.lock();
        let Some(readers) = streams.get_mut(name) else { return };
        readers.news += 1;
        let Some(moved) = moved else {
            readers.tail = None;
            return;
        };
        let Some(mut tail) = readers.tail.take() else {
            if readers.early.len() == EARLY_MAX {
                readers.early.pop_front();
            }
            readers.early.push_back((readers.news, StreamMove { records: Vec::new(), ..moved }));
            return;
        };
        let (end, bytes) = (moved.tail, moved.records.iter().map(Record::bytes).sum::<u64>());
        if !tail.advance(moved) {
            return;
        }
        tail.shrink(self.room.stream_bytes_max);
        readers.tail = Some(tail);
        if bytes > 0 {
            self.make_room(&mut streams, (name.clone(), end, bytes + KEPT_CHANGE_BYTES));
        }
    }

    /// Counts the messages of a change, and forgets the oldest ones of all streams that leave no room for them.
    fn make_room(
        &self,
        streams: &mut HashMap<StreamName, AttachedReaders>,
        new: (StreamName, Position, u64),
    ) {
        let mut kept = self.kept.lock();
        kept.bytes += new.2;
        kept.ends.push_back(new);
        while kept.bytes > self.room.bytes_max
            && let Some((name, end, bytes)) = kept.ends.pop_front()
        {
            kept.bytes -= bytes;
            let tail = streams.get_mut(&name).and_then(|readers| readers.tail.as_mut());
            tail.into_iter().for_each(|tail| tail.forget_until(end));
        }
        let bytes = kept.bytes;
        kept.charge.set(bytes);
    }

    /// Applies `find` to what is known of a stream without a call.
    pub(super) fn known<T>(&self, name: &StreamName, find: impl FnOnce(&HotTail) -> Option<T>) -> Option<T> {
        find(self.streams.lock().get(name)?.tail.as_ref()?)
    }

    /// Whether a stream has readers.
    pub(super) fn has(&self, name: &str) -> bool {
        self.streams.lock().contains_key(name)
    }

    /// The streams with readers.
    pub(super) fn names(&self) -> Vec<StreamName> {
        self.streams.lock().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::argument::ChangeChannel;
    use super::super::hot::tests::{appended, head, read};
    use super::*;
    use crate::budget::{Account, Budget};
    use crate::stream::{Lifetime, Principal, Tenant};

    fn attached(bytes_max: u64) -> AttachedStreams {
        let owner = Budget::unlimited().owner_in(Tenant::default(), Principal::GATEWAY);
        let charge = Charge::new(&owner, Account::Buffers, 0);
        let attached = AttachedStreams::new(NewsRoom { bytes_max, stream_bytes_max: u64::MAX }, charge);
        attached.news_begin();
        attached
    }

    fn name(text: &str) -> StreamName {
        StreamName::parse(text).unwrap()
    }

    /// A reader of a stream whose changes are heard.
    fn attach(attached: &AttachedStreams, name: &StreamName) {
        attached.attach(name);
        attached.interest.hear(ChangeChannel::of(name));
    }

    /// A stream with a reader that has read it.
    fn watch(attached: &AttachedStreams, name: &StreamName) {
        attach(attached, name);
        let seen = attached.news_seen(name).unwrap();
        attached.store_head(name, seen, &head(0));
    }

    fn known(attached: &AttachedStreams, name: &StreamName, from: u64) -> Option<String> {
        attached.known(name, |tail| read(tail, from))
    }

    #[test]
    fn changes_during_a_read_are_followed_if_all_are_known() {
        let (attached, name) = (attached(u64::MAX), name("s"));
        attach(&attached, &name);
        let seen = || attached.news_seen(&name).unwrap();
        attached.note_news(&name, Some(appended(0, "before the read")));
        let begun = seen();
        attached.note_news(&name, Some(appended(15, "1")));
        attached.note_news(&name, Some(appended(16, "2")));
        // The read was made after the first change.
        attached.store_head(&name, begun, &head(16));
        assert_eq!(known(&attached, &name, 17).as_deref(), Some(""));
        attached.note_news(&name, Some(appended(17, "3")));
        assert_eq!(known(&attached, &name, 17).as_deref(), Some("3"));

        attached.note_news(&name, None);
        assert_eq!(known(&attached, &name, 17), None);
        let begun = seen();
        attached.note_news(&name, None);
        attached.store_head(&name, begun, &head(18));
        assert_eq!(known(&attached, &name, 18), None, "the stream has ended meanwhile");
        let begun = seen();
        (0..=EARLY_MAX as u64).for_each(|at| attached.note_news(&name, Some(appended(18 + at, "x"))));
        attached.store_head(&name, begun, &head(18));
        assert_eq!(
            known(&attached, &name, 18 + EARLY_MAX as u64 + 1),
            None,
            "the first of them is forgotten"
        );
        let begun = seen();
        attached.detach(&name, Epoch(0), SystemTime::UNIX_EPOCH);
        attached.take_due(SystemTime::UNIX_EPOCH);
        attached.attach(&name);
        attached.store_head(&name, begun, &head(18));
        assert_eq!(known(&attached, &name, 18), None, "the stream had no readers meanwhile");
        let begun = seen();
        attached.news_end();
        attached.news_begin();
        attached.store_head(&name, begun, &head(18));
        assert_eq!(known(&attached, &name, 18), None, "changes may have been missed");
    }

    #[test]
    fn the_engine_is_told_of_readers_if_the_lifetime_of_their_stream_depends_on_them() {
        let now = SystemTime::UNIX_EPOCH;
        for (lifetime, is_told) in [
            (None, true),
            (Some(Lifetime::Idle(Duration::from_secs(9))), true),
            (Some(Lifetime::Unlimited), false),
            (Some(Lifetime::Until(now)), false),
        ] {
            let (attached, name) = (attached(u64::MAX), name("s"));
            attach(&attached, &name);
            if let Some(lifetime) = lifetime {
                let seen = attached.news_seen(&name).unwrap();
                attached.store_head(&name, seen, &StreamHead { lifetime, ..head(0) });
            }
            assert_eq!(!attached.take_due(now).is_empty(), is_told, "{lifetime:?}");
            attached.detach(&name, Epoch(0), now);
            assert_eq!(attached.take_left(&name).is_some(), is_told, "{lifetime:?}");
            assert_eq!(attached.has("s"), !is_told);
            assert!(attached.take_due(now).is_empty() && !attached.has("s"), "{lifetime:?}");
        }
    }

    #[test]
    fn messages_of_all_streams_are_bounded_together_and_the_oldest_make_room() {
        let one = appended(0, "ab").records.iter().map(Record::bytes).sum::<u64>() + KEPT_CHANGE_BYTES;
        let attached = attached(2 * one);
        let names = ["a", "b", "c"].map(name);
        for name in &names {
            watch(&attached, name);
            attached.note_news(name, Some(appended(0, "ab")));
        }
        let found = names.each_ref().map(|name| known(&attached, name, 0));
        assert_eq!(found.each_ref().map(Option::is_some), [false, true, true]);
        assert!(names.iter().all(|name| known(&attached, name, 2).is_some()), "their tails are known");
        assert_eq!(attached.kept.lock().charge.bytes(), 2 * one);
    }

    #[test]
    fn readers_join_a_read_until_there_are_news_or_all_have_its_result() {
        let (attached, name) = (attached(u64::MAX), name("s"));
        attached.news_end();
        let join = || attached.join_read(&name, Start::Tail, 100);
        assert!(join().is_none(), "the stream has no readers");
        attached.attach(&name);
        assert!(join().is_none(), "no news are followed");
        attached.news_begin();
        assert!(join().is_none(), "those of the stream are not");
        attached.interest.hear(ChangeChannel::of(&name));
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
