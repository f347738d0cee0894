//! [`MultiReader`]: reads many streams in turn, each from its own position, and waits until any of them
//! changes.
//!
//! The streams are read without a subscription as long as there is something to read. Before the first wait
//! the reader subscribes, and only then reads each stream once more, so that no append is missed between the
//! read and the wait.

mod history;
mod read;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use super::clients::Subject;
use super::signal::Waiter;
use super::source::Source;
use super::update::Change;
use super::{Hub, OriginState, OriginStatus, Subscriber, Update};
use crate::stream::{Filter, Gap, Offset, Progress, ReadError, StreamName};

/// Changed streams taken from the subscriber at once.
const MARKS_MAX: usize = 64;

/// One stream of a request for many.
#[derive(Debug, Clone)]
pub struct RequestedStream {
    /// The stream, which need not exist.
    pub stream: StreamName,
    /// How far the client has read the stream. `None`: reading starts before the current tail, by `history`.
    pub progress: Option<Progress>,
    /// How many messages before the tail the client asks for.
    pub history: u64,
    /// The client asks for the times of the messages.
    pub times: bool,
    /// The client may not read the stream: nothing of it is read, and its position stays what it is.
    pub withheld: bool,
}

/// An update of one of many streams.
#[derive(Debug, Clone)]
pub struct StreamUpdate {
    /// The stream.
    pub stream: StreamName,
    /// The update. `None`: the stream does not exist.
    pub update: Option<Update>,
    /// When the messages were appended, if the client asks for that. A text has the time of its end.
    pub times: Vec<SystemTime>,
}

/// The result of one read of many streams.
#[derive(Debug, Clone, Default)]
pub struct MultiBatch {
    /// The updates; those of the same stream are in order.
    pub updates: Vec<StreamUpdate>,
    /// Nothing more could be read from any stream.
    pub up_to_date: bool,
}

/// A reader of many streams.
pub struct MultiReader {
    hub: Arc<Hub>,
    /// Sorted by name.
    streams: Vec<ReadPosition>,
    /// Indexes of the streams to be read; the one that has waited longest is first.
    ready: VecDeque<usize>,
    /// Collects the streams that change. `None` until the first wait. The waker in `waiter` is dropped with
    /// it.
    subscriber: Option<Subscriber>,
    waiter: Waiter,
    /// Number of reads that returned an update.
    served: u64,
}

/// One stream of a [`MultiReader`], with its position.
struct ReadPosition {
    name: StreamName,
    progress: Option<Progress>,
    /// See [`RequestedStream::history`].
    history: u64,
    /// See [`RequestedStream::times`].
    times: bool,
    /// See [`RequestedStream::withheld`].
    withheld: bool,
    /// The stream is in [`MultiReader::ready`].
    ready: bool,
    /// Value of [`MultiReader::served`] at the last update of this stream.
    served: u64,
    /// The progress has changed since `moved_positions` was last called.
    moved: bool,
}

impl Hub {
    /// Creates a reader of many streams. No stream may occur twice. Streams are first read in the order of
    /// the list.
    pub fn multi_reader(self: &Arc<Self>, streams: Vec<RequestedStream>) -> MultiReader {
        let served = streams.len() as u64;
        if self.has_origins() {
            let readable = streams.iter().filter(|stream| !stream.withheld);
            readable.for_each(|stream| self.origins.note_reader(&stream.stream));
        }
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
        let RequestedStream { stream: name, progress, history, times, withheld } = request;
        Self { name, progress, history, times, withheld, ready: false, served, moved: false }
    }

    fn position(&self) -> Option<(&StreamName, Progress)> {
        self.progress.map(|progress| (&self.name, progress))
    }
}

impl MultiReader {
    /// Returns each stream with its progress; the stream that has waited longest for a turn is first.
    pub fn positions(&self) -> Vec<(&StreamName, Progress)> {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_unstable_by_key(|stream| stream.served);
        streams.into_iter().filter_map(ReadPosition::position).collect()
    }

    /// Returns the streams whose progress has changed since the last call, in the order of
    /// [`positions`](Self::positions).
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

    /// Returns the streams that the client may not read.
    pub fn withheld(&self) -> impl Iterator<Item = &StreamName> {
        self.streams.iter().filter(|stream| stream.withheld).map(|stream| &stream.name)
    }

    /// Returns the streams whose origin fails, with its state.
    pub fn failing_origins(&self) -> Vec<(&StreamName, Arc<OriginStatus>)> {
        if !self.hub.has_origins() {
            return Vec::new();
        }
        let readable = self.streams.iter().filter(|stream| !stream.withheld);
        let origins =
            readable.filter_map(|stream| Some((&stream.name, self.hub.origin_status(&stream.name)?)));
        origins.filter(|(_, status)| matches!(status.state, OriginState::Failing { .. })).collect()
    }

    fn subscribe(&mut self) {
        let subscriber = self.hub.unlisted_subscriber();
        for stream in self.streams.iter().filter(|stream| !stream.withheld) {
            subscriber.add(Filter::literal(stream.name.clone()));
        }
        self.subscriber = Some(subscriber);
        self.mark_all();
    }

    /// Marks all streams as ready: first those without a position, then those that have waited longest.
    fn mark_all(&mut self) {
        let mut order: Vec<_> = (0..).zip(&self.streams).collect();
        order.sort_unstable_by_key(|(_, stream)| (stream.progress.is_some(), stream.served));
        let order: Vec<usize> = order.into_iter().map(|(index, _)| index).collect();
        order.into_iter().for_each(|index| self.mark(index));
    }

    /// Appends a stream to the ready queue, unless it is in it or withheld.
    fn mark(&mut self, index: usize) {
        if let Some(stream) = self.streams.get_mut(index)
            && !stream.withheld
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
        let is_known = |stream: &ReadPosition| stream.progress.is_some_and(Progress::is_known);
        self.streams.iter().all(|stream| stream.withheld || is_known(stream))
    }

    /// Reads a part of each ready stream in turn. Streams without a position are read even if there is no
    /// room for messages, so that they have one afterwards.
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

    /// Always false: a stream may be created again after its end.
    fn is_last(_: &MultiBatch) -> bool {
        false
    }

    /// Always `None`: a gap is an update of its stream and does not end the read.
    fn gap(_: Gap) -> Option<MultiBatch> {
        None
    }
}
