//! Reads many streams: each from its own position, in turn, and with one wait for whichever changes first.
//!
//! A set of streams is read without a wait as long as there is something. Before it waits it subscribes, and only then
//! reads each stream once more, so that no append can fall between the read and the wait.

mod read;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::clients::Subject;
use super::signal::Waiter;
use super::source::Source;
use super::update::Change;
use super::{Hub, Subscriber, Update};
use crate::stream::{Filter, Gap, Offset, Progress, ReadError, StreamName};

/// Changed streams that are taken note of at once.
const MARKS_MAX: usize = 64;

/// One of the streams that a reader asks for.
#[derive(Debug, Clone)]
pub struct RequestedStream {
    /// The stream, which need not exist.
    pub stream: StreamName,
    /// How far the reader has come; `None`: it begins at the present tail.
    pub progress: Option<Progress>,
}

/// What a reader of many streams is told of one of them.
#[derive(Debug, Clone)]
pub struct StreamUpdate {
    /// The stream.
    pub stream: StreamName,
    /// What has come; `None`: there is no such stream.
    pub update: Option<Update>,
}

/// What a reader of many streams is told at once.
#[derive(Debug, Clone, Default)]
pub struct MultiBatch {
    /// The updates, those of one stream in their order.
    pub updates: Vec<StreamUpdate>,
    /// Whether nothing more could be read of any stream.
    pub up_to_date: bool,
}

/// The reader of many streams.
pub struct MultiReader {
    hub: Arc<Hub>,
    /// Sorted by name.
    streams: Vec<ReadPosition>,
    /// Indexes of the streams to be read, those that have waited longest first.
    ready: VecDeque<usize>,
    /// Marks the streams that change, once somebody waits for them. The waiter's waker goes with it.
    subscriber: Option<Subscriber>,
    waiter: Waiter,
    /// The number of reads that have brought an update.
    served: u64,
}

struct ReadPosition {
    name: StreamName,
    progress: Option<Progress>,
    /// Whether it is to be read.
    ready: bool,
    /// The number of the read that brought its last update.
    served: u64,
    /// Whether the progress has changed since it was last told.
    moved: bool,
}

impl Hub {
    /// Reads many streams, each of them named once. Those that come first have their turn first.
    pub fn multi_reader(self: &Arc<Self>, streams: Vec<RequestedStream>) -> MultiReader {
        let served = streams.len() as u64;
        let mut streams: Vec<_> = (0..).zip(streams).map(ReadPosition::new).collect();
        streams.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let (ready, subscriber, waiter) = Default::default();
        let mut reader = MultiReader { hub: self.clone(), streams, ready, subscriber, waiter, served };
        reader.mark_all();
        reader
    }
}

impl ReadPosition {
    fn new((served, request): (u64, RequestedStream)) -> Self {
        Self { name: request.stream, progress: request.progress, ready: false, served, moved: false }
    }

    fn position(&self) -> Option<(&StreamName, Progress)> {
        self.progress.map(|progress| (&self.name, progress))
    }
}

impl MultiReader {
    /// Each stream and how far it has been read: those that have waited longest for a turn first.
    pub fn positions(&self) -> Vec<(&StreamName, Progress)> {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_unstable_by_key(|stream| stream.served);
        streams.into_iter().filter_map(ReadPosition::position).collect()
    }

    /// The positions that have changed since this was last asked, in the same order.
    pub fn moved_positions(&mut self) -> Vec<(&StreamName, Progress)> {
        let mut moved: Vec<&ReadPosition> = Vec::new();
        for stream in &mut self.streams {
            if std::mem::take(&mut stream.moved) {
                moved.push(stream);
            }
        }
        moved.sort_unstable_by_key(|stream| stream.served);
        moved.into_iter().filter_map(ReadPosition::position).collect()
    }

    fn subscribe(&mut self) {
        let subscriber = self.hub.follower();
        for stream in &self.streams {
            subscriber.add(Filter::literal(stream.name.clone()));
        }
        self.subscriber = Some(subscriber);
        self.mark_all();
    }

    /// Streams without a position come first, then those that have waited longest.
    fn mark_all(&mut self) {
        let mut order: Vec<_> = (0..).zip(&self.streams).collect();
        order.sort_unstable_by_key(|(_, stream)| (stream.progress.is_some(), stream.served));
        let order: Vec<usize> = order.into_iter().map(|(index, _)| index).collect();
        order.into_iter().for_each(|index| self.mark(index));
    }

    /// Has a stream read after those that are marked already.
    fn mark(&mut self, index: usize) {
        if let Some(stream) = self.streams.get_mut(index)
            && !std::mem::replace(&mut stream.ready, true)
        {
            self.ready.push_back(index);
        }
    }
}

impl Source for MultiReader {
    type Batch = MultiBatch;
    type Update = MultiBatch;

    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn subject(&self) -> Subject {
        Subject::Streams(self.streams.len())
    }

    fn offset(&self) -> Option<Offset> {
        None
    }

    fn may_wait(&self) -> bool {
        self.streams.iter().all(|stream| stream.progress.is_some_and(Progress::is_known))
    }

    /// Publishers do not wait for readers of many streams.
    fn read_before_publisher_returns(&mut self) {}

    /// Reads a little of each stream in turn. Streams without a position are read even if there is no room for messages,
    /// so that each has one from then on.
    async fn read(&mut self, bytes_max: usize) -> Result<MultiBatch, ReadError> {
        self.read_streams(bytes_max).await.map_err(ReadError::Failed)
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Change<MultiBatch>> {
        if self.ready.is_empty() {
            match &self.subscriber {
                None => self.subscribe(),
                Some(subscriber) => {
                    let marked = ready!(subscriber.poll_changed(&mut self.waiter, context, MARKS_MAX));
                    self.hub.metrics.follower_woken();
                    for name in marked {
                        if let Ok(index) = self.streams.binary_search_by(|stream| stream.name.cmp(&name)) {
                            self.mark(index);
                        }
                    }
                }
            }
        }
        Poll::Ready(Change::default())
    }

    fn is_news(batch: &MultiBatch) -> bool {
        !batch.updates.is_empty()
    }

    /// A stream may be created again behind its end, so there is always something that can follow.
    fn is_last(_: &MultiBatch) -> bool {
        false
    }

    /// A gap is an update of its stream.
    fn gap(_: Gap) -> Option<MultiBatch> {
        None
    }
}
