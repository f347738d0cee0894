//! Walks of a connection over many streams, page by page: [`RetainedWalk`] for the retained messages of a new
//! subscription, and [`CatchUp`] for streams that may have changed without a mark. Only one page is held in
//! memory, however many streams match.

use std::collections::VecDeque;

use super::codec::SubscriptionOptions;
use super::session::Session;
use crate::hub::{Hub, StreamWalk};
use crate::stream::{Filter, Start, StreamName};

/// A walk that sends retained messages to a new subscription.
#[derive(Debug)]
pub(super) struct RetainedWalk {
    pub(super) filter: Filter,
    /// Options of the subscription.
    pub(super) options: SubscriptionOptions,
    walk: StreamWalk,
    /// Streams of the current page that match the filter and are still to be checked.
    found: VecDeque<StreamName>,
}

/// The next step of a walk.
#[derive(Debug)]
pub(super) enum WalkStep {
    /// A stream that may have a retained message.
    Stream(StreamName),
    /// A page was fetched.
    Searched,
    /// The walk is over.
    Over,
}

/// A walk over all streams that may have changed without a mark: while the client was disconnected, or when
/// there were too many marks.
#[derive(Debug)]
pub(super) struct CatchUp {
    walk: StreamWalk,
    /// Number of visited streams that have an offset.
    found: usize,
    /// All streams with an offset, filled if some of them were not visited, since those may no longer exist.
    unseen: Vec<StreamName>,
}

impl RetainedWalk {
    /// Continues with the first subscription that still has to receive retained messages.
    pub(super) fn of(session: &Session) -> Option<Self> {
        let (filter, after) = session.next_retained()?;
        let options = *session.subscriptions().get(filter)?;
        let walk = StreamWalk::over([filter]).starting_after(after.cloned());
        Some(Self { filter: filter.clone(), options, walk, found: VecDeque::new() })
    }

    pub(super) async fn next(&mut self, hub: &Hub) -> WalkStep {
        if let Some(stream) = self.found.pop_front() {
            return WalkStep::Stream(stream);
        }
        let Some(streams) = hub.next_streams(&mut self.walk).await else { return WalkStep::Over };
        let names = streams.into_iter().map(|(name, _)| name);
        self.found.extend(names.filter(|name| self.filter.matches(name)));
        WalkStep::Searched
    }
}

impl CatchUp {
    /// Creates a walk over all streams that the filters of the session match.
    pub(super) fn of(session: &Session) -> Self {
        let walk = StreamWalk::over(session.subscriptions().filters().chain(session.shared_filters()));
        Self { walk, found: 0, unseen: Vec::new() }
    }

    /// Visits the next page, and returns its streams that have more than was sent. Forgets offsets of streams
    /// that no longer exist. `None`: the walk is over.
    pub(super) async fn next(&mut self, hub: &Hub, session: &mut Session) -> Option<Vec<StreamName>> {
        if let Some(streams) = hub.next_streams(&mut self.walk).await {
            let mut changed = Vec::new();
            for (name, tail) in streams {
                self.found += usize::from(session.has_offset(&name));
                let is_behind =
                    session.offset(&name) != Start::At(tail) && session.subscriptions().want(&name);
                if is_behind || session.shared_filters().any(|filter| filter.matches(&name)) {
                    changed.push(name);
                }
            }
            if self.walk.is_over() && self.found < session.offset_count() {
                self.unseen = session.streams().cloned().collect();
            }
            return Some(changed);
        }
        let name = self.unseen.pop()?;
        if hub.settled_tail(&name).await.is_none() {
            session.forget_offset(&name);
        }
        Some(Vec::new())
    }
}
