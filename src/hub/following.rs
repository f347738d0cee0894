//! Reading many streams: all of them from their own places, in turn, and one wait for whichever changes first.
//!
//! A set of streams is read without a wait as long as there is something. Before it waits it subscribes, and only then
//! looks at each stream once more, so that no append can fall between the look and the wait.

mod look;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::consume_budget;

use super::{Hub, Subscriber, Update};
use crate::stream::{Failure, Filter, Progress, StreamName};

/// How many marked streams are taken note of at once.
const MARKS_MAX: usize = 64;

/// What an answer spends on a stream besides its name and its messages.
const NEWS_BYTES: usize = 128;

/// One of the streams that a reader asks for.
#[derive(Debug, Clone)]
pub struct Follow {
    /// The stream, which need not exist.
    pub stream: StreamName,
    /// How far the reader has come; `None`: it begins now.
    pub progress: Option<Progress>,
}

/// What a reader is told of one stream.
#[derive(Debug, Clone)]
pub struct News {
    /// The stream.
    pub stream: StreamName,
    /// What has come; `None`: there is no such stream.
    pub update: Option<Update>,
}

/// What a reader of many streams is told at once.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// The news, those of one stream in their order.
    pub news: Vec<News>,
    /// Whether nothing more could be read of any stream.
    pub up_to_date: bool,
}

/// Many streams and how far they have been read. Dropping it leaves no waiter behind.
pub struct Following {
    hub: Arc<Hub>,
    /// By name.
    streams: Vec<Followed>,
    /// The streams to be looked at, those that have waited longest first.
    ready: VecDeque<usize>,
    /// Whoever waits for them, once somebody does.
    subscriber: Option<Subscriber>,
    /// How many looks have brought messages.
    looks: u64,
}

struct Followed {
    name: StreamName,
    progress: Option<Progress>,
    /// Whether it is to be looked at.
    ready: bool,
    /// The number of the look that brought its last messages.
    served: u64,
    /// Whether the progress has changed since it was last told.
    moved: bool,
}

impl Hub {
    /// Begins to read many streams, each of them named once. Those that come first have their turn first.
    pub fn following(self: &Arc<Self>, follows: Vec<Follow>) -> Following {
        let looks = follows.len() as u64;
        let mut streams: Vec<_> = (0..).zip(follows).map(Followed::new).collect();
        streams.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut following =
            Following { hub: self.clone(), streams, ready: VecDeque::new(), subscriber: None, looks };
        following.look_at_all();
        following
    }
}

impl Followed {
    fn new((served, follow): (u64, Follow)) -> Self {
        Self { name: follow.stream, progress: follow.progress, ready: false, served, moved: false }
    }
}

impl Following {
    /// Reads what is there and does not wait: about `bytes_max` bytes, a little of each stream in turn. Streams of
    /// which nothing is known yet are looked at in any case, so that each has a place from then on.
    ///
    /// After a failure or a drop the places are too far on: read again from those that were told.
    pub async fn take(&mut self, bytes_max: usize) -> Result<Turn, Failure> {
        let mut turn = Turn::default();
        let mut left = bytes_max;
        while let Some(index) = self.next_ready(left > 0) {
            consume_budget().await;
            if let Some(news) = self.look(index, left).await? {
                left = left.saturating_sub(news.bytes());
                turn.news.push(news);
            }
        }
        turn.up_to_date = self.ready.is_empty();
        Ok(turn)
    }

    /// Waits until a stream has changed, or might have: `take` then brings what is new. At first it looks at all of
    /// them once more, and does not wait.
    ///
    /// Cancel safe.
    pub async fn changed(&mut self) {
        let Some(subscriber) = &self.subscriber else { return self.subscribe() };
        let marked = subscriber.changed(MARKS_MAX).await;
        self.hub.metrics.follower_woken();
        for name in marked {
            if let Ok(index) = self.streams.binary_search_by(|followed| followed.name.cmp(&name)) {
                self.look_at(index);
            }
        }
    }

    /// Each stream and how far it has been read: those that have waited longest for a turn first.
    pub fn places(&self) -> Vec<(&StreamName, Progress)> {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_unstable_by_key(|followed| followed.served);
        streams.into_iter().filter_map(Followed::place).collect()
    }

    /// The same for those where that has changed since this was last asked.
    pub fn moved(&mut self) -> Vec<(&StreamName, Progress)> {
        let moved = |followed: &mut Followed| std::mem::take(&mut followed.moved);
        let mut moved: Vec<_> =
            self.streams.iter_mut().filter_map(|followed| moved(followed).then_some(&*followed)).collect();
        moved.sort_unstable_by_key(|followed| followed.served);
        moved.into_iter().filter_map(Followed::place).collect()
    }

    fn subscribe(&mut self) {
        let subscriber = self.hub.follower();
        for followed in &self.streams {
            subscriber.add(Filter::literal(followed.name.clone()));
        }
        self.subscriber = Some(subscriber);
        self.look_at_all();
    }

    /// Those of which nothing is known come first, then those that have waited longest.
    fn look_at_all(&mut self) {
        let mut order: Vec<_> = (0..).zip(&self.streams).collect();
        order.sort_unstable_by_key(|(_, followed)| (followed.progress.is_some(), followed.served));
        let order: Vec<usize> = order.into_iter().map(|(index, _)| index).collect();
        order.into_iter().for_each(|index| self.look_at(index));
    }

    fn look_at(&mut self, index: usize) {
        if let Some(followed) = self.streams.get_mut(index)
            && !std::mem::replace(&mut followed.ready, true)
        {
            self.ready.push_back(index);
        }
    }

    /// The next stream to be looked at; if there is no room for messages, only one of which nothing is known.
    fn next_ready(&mut self, has_room: bool) -> Option<usize> {
        let index = *self.ready.front()?;
        let followed = self.streams.get_mut(index)?;
        if !has_room && followed.progress.is_some() {
            return None;
        }
        followed.ready = false;
        self.ready.pop_front()
    }
}

impl Followed {
    fn place(&self) -> Option<(&StreamName, Progress)> {
        self.progress.map(|progress| (&self.name, progress))
    }
}

impl News {
    /// About how much of an answer it takes.
    fn bytes(&self) -> usize {
        let messages = match &self.update {
            Some(Update::Batch(batch)) => batch.len(),
            Some(Update::Gap(_)) | None => 0,
        };
        NEWS_BYTES + self.stream.as_str().len() + messages
    }
}

impl Turn {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.news.is_empty()
    }
}
