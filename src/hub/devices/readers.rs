//! [`Readers`]: which devices read a stream or the streams of a filter, and which of them wait for a change. An append visits those
//! that wait alone, so that a busy stream costs nothing for devices that are woken already.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use crate::hub::ClientId;
use crate::stream::{Filter, FilterTree, Offset, StreamName, Tenant};

/// How many streams behind a filter are remembered that had messages last.
const RECENT_MAX: usize = 8;

/// Longer names are not remembered, in bytes.
const RECENT_NAME_MAX: usize = 128;

/// What a device reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ReadTarget {
    /// One stream.
    Stream(StreamName),
    /// Each stream that a filter with wildcards matches.
    Filter(Filter),
}

/// What devices read.
#[derive(Debug, Default)]
pub(super) struct Readers {
    by_stream: HashMap<StreamName, StreamReaders>,
    by_filter: FilterTree<FilterReaders>,
}

#[derive(Debug, Default)]
struct StreamReaders {
    /// The last known tail. `None`: the stream does not exist.
    tail: Option<Offset>,
    readers: ReaderSet,
}

#[derive(Debug, Default)]
struct FilterReaders {
    /// The filter itself; `None` until a device reads it.
    filter: Option<Filter>,
    /// When the newest message of the streams that the filter matches was appended, as far as it is known.
    news: Option<SystemTime>,
    /// The streams that had messages last, each with its tail, the newest at the end.
    recent: VecDeque<(StreamName, Offset, SystemTime)>,
    readers: ReaderSet,
}

#[derive(Debug, Default)]
struct ReaderSet {
    all: BTreeSet<ClientId>,
    /// Those for which a change makes a difference.
    waiting: BTreeSet<ClientId>,
}

impl ReadTarget {
    pub(super) fn tenant(&self) -> Tenant {
        match self {
            Self::Stream(stream) => stream.tenant(),
            Self::Filter(filter) => Tenant::of(filter.as_str()),
        }
    }

    /// The filter that matches what is read.
    pub(super) fn to_filter(&self) -> Filter {
        match self {
            Self::Stream(stream) => Filter::literal(stream.clone()),
            Self::Filter(filter) => filter.clone(),
        }
    }
}

impl Readers {
    /// Adds a reader of a stream, which waits. Returns whether it is the first one of the stream.
    pub(super) fn add_to_stream(&mut self, stream: &StreamName, id: &ClientId, tail: Option<Offset>) -> bool {
        let readers = self.by_stream.entry(stream.clone()).or_default();
        let is_first = readers.readers.add(id);
        if is_first {
            readers.tail = tail;
        }
        is_first
    }

    /// Adds a reader of a filter, which waits. Returns whether it is the first one of the filter.
    pub(super) fn add_to_filter(&mut self, filter: &Filter, id: &ClientId, news: Option<SystemTime>) -> bool {
        let readers = self.by_filter.get_or_insert_default(filter);
        readers.filter = Some(filter.clone());
        readers.news = readers.news.max(news);
        readers.readers.add(id)
    }

    /// Removes a reader. Returns whether it was the last one.
    pub(super) fn remove(&mut self, target: &ReadTarget, id: &ClientId) -> bool {
        let Some(readers) = self.readers_mut(target) else { return false };
        readers.all.remove(id);
        readers.waiting.remove(id);
        let is_last = readers.all.is_empty();
        if is_last {
            match target {
                ReadTarget::Stream(stream) => drop(self.by_stream.remove(stream)),
                ReadTarget::Filter(filter) => drop(self.by_filter.remove(filter)),
            }
        }
        is_last
    }

    /// Whether any device reads it.
    pub(super) fn has(&self, target: &ReadTarget) -> bool {
        match target {
            ReadTarget::Stream(stream) => self.by_stream.contains_key(stream),
            ReadTarget::Filter(filter) => self.by_filter.get(filter).is_some(),
        }
    }

    /// The last known tail. `None`: nobody reads the stream.
    pub(super) fn tail(&self, stream: &StreamName) -> Option<Option<Offset>> {
        self.by_stream.get(stream).map(|readers| readers.tail)
    }

    /// When the newest message behind a filter was appended, as far as it is known.
    pub(super) fn news(&self, filter: &Filter) -> Option<SystemTime> {
        self.by_filter.get(filter)?.news
    }

    /// The news behind a filter before its first unread message; `None`: all that is remembered was read. `is_unread` tells that of a
    /// stream and its tail.
    pub(super) fn news_before_unread(
        &self,
        filter: &Filter,
        is_unread: impl Fn(&StreamName, Offset) -> bool,
    ) -> Option<SystemTime> {
        let recent = &self.by_filter.get(filter)?.recent;
        let (.., at) = recent.iter().find(|(stream, tail, _)| is_unread(stream, *tail))?;
        at.checked_sub(Duration::from_nanos(1))
    }

    /// A stream may have another tail; `None`: it does not exist. If it has another message, that was appended at `appended_at`. Returns
    /// for what devices read that makes a difference.
    pub(super) fn moved(
        &mut self,
        stream: &StreamName,
        tail: Option<Offset>,
        appended_at: Option<SystemTime>,
    ) -> Vec<ReadTarget> {
        let mut targets = Vec::new();
        if let Some(readers) = self.by_stream.get_mut(stream) {
            readers.tail = tail;
            targets.push(ReadTarget::Stream(stream.clone()));
        }
        let Some(at) = appended_at else { return targets };
        for filter in self.filters_of(stream) {
            if let Some(readers) = self.by_filter.get_mut(&filter) {
                // Appends to two streams may arrive here in another order than that of their times.
                let after = readers.news.map(|news| news + Duration::from_nanos(1));
                readers.news = after.max(Some(at));
                if let (Some(tail), Some(news)) = (tail, readers.news) {
                    readers.remember(stream, tail, news);
                }
                targets.push(ReadTarget::Filter(filter));
            }
        }
        targets
    }

    /// A stream had its newest message when the gateway started. Other than [`moved`](Self::moved) this is no change.
    pub(super) fn found(&mut self, stream: &StreamName, appended_at: SystemTime) {
        for filter in self.filters_of(stream) {
            if let Some(readers) = self.by_filter.get_mut(&filter) {
                readers.news = readers.news.max(Some(appended_at));
            }
        }
    }

    /// A reader waits for changes again.
    pub(super) fn wait(&mut self, target: &ReadTarget, id: &ClientId) {
        if let Some(readers) = self.readers_mut(target).filter(|readers| readers.all.contains(id)) {
            readers.waiting.insert(id.clone());
        }
    }

    /// A reader needs to hear of no change.
    pub(super) fn stop_waiting(&mut self, target: &ReadTarget, id: &ClientId) {
        if let Some(readers) = self.readers_mut(target) {
            readers.waiting.remove(id);
        }
    }

    /// The readers that wait, by id, from the first one behind `after` on.
    pub(super) fn waiting(&self, target: &ReadTarget, after: Option<&ClientId>, max: usize) -> Vec<ClientId> {
        let readers = match target {
            ReadTarget::Stream(stream) => self.by_stream.get(stream).map(|readers| &readers.readers),
            ReadTarget::Filter(filter) => self.by_filter.get(filter).map(|readers| &readers.readers),
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = readers.map(|readers| &readers.waiting);
        waiting.into_iter().flat_map(|ids| ids.range((from, Bound::Unbounded))).take(max).cloned().collect()
    }

    fn filters_of(&self, stream: &StreamName) -> Vec<Filter> {
        let matching = self.by_filter.matching(stream);
        matching.into_iter().filter_map(|readers| readers.filter.clone()).collect()
    }

    fn readers_mut(&mut self, target: &ReadTarget) -> Option<&mut ReaderSet> {
        match target {
            ReadTarget::Stream(stream) => self.by_stream.get_mut(stream).map(|readers| &mut readers.readers),
            ReadTarget::Filter(filter) => self.by_filter.get_mut(filter).map(|readers| &mut readers.readers),
        }
    }
}

impl FilterReaders {
    /// Remembers the tail of a stream whose message was the newest at `at`.
    fn remember(&mut self, stream: &StreamName, tail: Offset, at: SystemTime) {
        self.recent.retain(|(other, ..)| other != stream);
        if stream.as_str().len() > RECENT_NAME_MAX {
            return;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((stream.clone(), tail, at));
    }
}

impl ReaderSet {
    /// Adds a reader, which waits. Returns whether it is the first one.
    fn add(&mut self, id: &ClientId) -> bool {
        let is_first = self.all.is_empty();
        self.all.insert(id.clone());
        self.waiting.insert(id.clone());
        is_first
    }
}
