//! What a connection goes through a part at a time: the retained messages for a new subscription, and the streams that may
//! have changed without a mark. What is found is remembered for one part only, however many streams match.

use std::collections::VecDeque;

use super::codec::SubscriptionOptions;
use super::session::Session;
use crate::hub::{Hub, StreamWalk};
use crate::stream::{Filter, Start, StreamName};

/// A subscription that is being sent what is retained.
#[derive(Debug)]
pub(super) struct RetainedWalk {
    pub(super) filter: Filter,
    /// What the subscription asks for.
    pub(super) options: SubscriptionOptions,
    walk: StreamWalk,
    /// Streams of the current part that the filter matches and that are not looked at yet.
    found: VecDeque<StreamName>,
}

/// The next step of a walk.
#[derive(Debug)]
pub(super) enum WalkStep {
    /// A stream that may have something retained.
    Stream(StreamName),
    /// Streams were looked for.
    Searched,
    /// The walk is over.
    Over,
}

/// A look at all streams that may have changed without a mark: while the client was away, or when there were too many.
#[derive(Debug)]
pub(super) struct CatchUp {
    walk: StreamWalk,
    /// Streams with an offset that were found.
    found: usize,
    /// Streams with an offset, once some of them were not found: they may be no more.
    unseen: Vec<StreamName>,
}

impl RetainedWalk {
    /// Goes on with the first subscription that is to be sent what is retained.
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
    /// A look at all streams that the session's filters match.
    pub(super) fn of(session: &Session) -> Self {
        let walk = StreamWalk::over(session.subscriptions().filters());
        Self { walk, found: 0, unseen: Vec::new() }
    }

    /// Looks at the next part, and returns those that have more than was sent. `None`: all were looked at. Forgets offsets of
    /// streams that are no more.
    pub(super) async fn next(&mut self, hub: &Hub, session: &mut Session) -> Option<Vec<StreamName>> {
        if let Some(streams) = hub.next_streams(&mut self.walk).await {
            let mut changed = Vec::new();
            for (name, tail) in streams {
                self.found += usize::from(session.has_offset(&name));
                if session.offset(&name) != Start::At(tail) && session.subscriptions().want(&name) {
                    changed.push(name);
                }
            }
            if self.walk.is_over() && self.found < session.offset_count() {
                self.unseen = session.streams().cloned().collect();
            }
            return Some(changed);
        }
        let name = self.unseen.pop()?;
        if hub.describe(&name).await.is_err() {
            session.forget_offset(&name);
        }
        Some(Vec::new())
    }
}
