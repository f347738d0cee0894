//! The streams that a replay has found so far, and how each becomes a stream of the store.

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::disk::kept::Stored;
use crate::store::disk::record::StreamId;
use crate::store::disk::runs::{CollectedRuns, Runs};
use crate::store::entry::{Entry, State};
use crate::store::log::Record as Append;
use crate::stream::{Annotation, Position};

/// The messages of a stream that were found so far.
#[derive(Default)]
pub(super) struct Appends {
    pub(super) runs: Runs,
    /// The last append that is to be retained.
    pub(super) retained: Option<Append<Stored>>,
}

/// A stream without its messages.
pub(super) struct ReplayedStream {
    pub(super) entry: Entry<Stored>,
    /// The tail in the last record of the state.
    pub(super) written: Position,
    pub(super) trimmed: Position,
    pub(super) retained_from: Position,
}

impl Appends {
    /// Adds an append. `annotation` is set if it is to be retained.
    pub(super) fn push(&mut self, append: Append<Stored>, annotation: Option<Arc<Annotation>>) {
        let newer = self.retained.as_ref().is_none_or(|retained| retained.start < append.start);
        if annotation.is_some() && newer && !self.runs.contain(append.start) {
            self.retained = Some(Append { annotation, ..append.clone() });
        }
        self.runs.push(append);
    }
}

impl ReplayedStream {
    /// The stream with its messages: first those that it shares with its sources, then its own. Messages that are missing after
    /// the trimmed ones were damaged.
    pub(super) fn into_entry(self, found: &mut HashMap<StreamId, Box<Appends>>) -> Entry<Stored> {
        let Self { mut entry, written, trimmed, retained_from } = self;
        if entry.state == State::Deleted {
            return entry;
        }
        let (mut gathered, mut from) = (CollectedRuns::new(trimmed), Position(0));
        for (origin, to) in entry.origin.ancestors() {
            if let Some(appends) = found.get(&origin.0) {
                gathered.share(&appends.runs, from, *to);
            }
            from = *to;
        }
        let own = found.remove(&entry.origin.own().0).unwrap_or_default();
        let appends = gathered.own(own.runs, from);
        entry.restore_log(trimmed, written, appends);
        // An empty message clears the retained message.
        let is_retained = |append: &Append<Stored>| {
            !append.shape.is_empty_message()
                && append.start >= retained_from
                && append.end() <= entry.log.tail()
        };
        entry.retained = own.retained.filter(is_retained);
        entry.recount();
        entry
    }
}
