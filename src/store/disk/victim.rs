//! A segment that is given up, and how far that is: which logs may have records in it, and which records those are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::kept::{Kept, RecordSpan, Stored};
use super::packed::Packed;
use super::record::StreamId;
use super::segment::Segment;
use crate::store::entry::Entry;
use crate::stream::Position;

/// How soon a file that could not be removed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The most runs of a log that are looked at while its stream is locked.
const RUNS_MAX: usize = 4096;

/// A segment that is being given up.
pub(super) struct Reclaiming {
    pub(super) victim: Arc<Segment>,
    /// Streams whose logs are still to be searched.
    pub(super) logs: Vec<StreamId>,
    /// Where the search goes on in the last of them.
    pub(super) from: Position,
    /// Streams and sessions whose state may have to be written again.
    pub(super) streams: Vec<StreamId>,
    /// Whether the logs of all streams are searched.
    pub(super) thorough: bool,
    /// When the file could not be removed. It is tried again after a while.
    pub(super) stuck_at: Option<Instant>,
}

/// Records that lie in the segment, by who owns them.
pub(super) enum LiveRecords {
    Kept(Arc<Kept>),
    /// Rows of a run.
    Packed(Arc<Packed>, Vec<(usize, RecordSpan)>),
}

/// What a search has found.
pub(super) struct SearchResult {
    pub(super) live: Vec<LiveRecords>,
    /// Where it goes on; `None`: that was all of the log.
    pub(super) next: Option<Position>,
}

impl Reclaiming {
    /// Searches the logs of the streams of which something was written to the segment, and of their forks.
    pub(super) fn of(victim: Arc<Segment>, forks: &HashMap<StreamId, Vec<StreamId>>) -> Self {
        let written: HashSet<_> = victim.streams.lock().clone();
        let forked = written.iter().filter_map(|stream| forks.get(stream)).flatten();
        // What was written of a stream may be a part of the logs of its forks.
        let streams: Vec<_> = forked.chain(&written).copied().collect::<HashSet<_>>().into_iter().collect();
        Self { victim, logs: streams.clone(), from: Position(0), streams, thorough: false, stuck_at: None }
    }

    /// Searches all logs: of a stream that was deleted since, a fork that began since may have what is looked for.
    pub(super) fn thorough(victim: Arc<Segment>, all: Vec<StreamId>) -> Self {
        Self { victim, logs: all, from: Position(0), streams: Vec::new(), thorough: true, stuck_at: None }
    }

    /// How long it waits before it goes on.
    pub(super) fn pause(&self) -> Duration {
        self.stuck_at.map_or(Duration::ZERO, |at| TRY_AGAIN.saturating_sub(at.elapsed()))
    }
}

/// The records of a stream that lie in a segment, from a position on, up to some bytes.
pub(super) fn live_in(segment: u32, entry: &Entry<Stored>, from: Position, bytes_max: u32) -> SearchResult {
    let (mut live, mut bytes) = (Vec::new(), 0u32);
    for (looked_at, part) in entry.log.parts_from(from).enumerate() {
        if looked_at >= RUNS_MAX || bytes >= bytes_max {
            return SearchResult { live, next: Some(part.start()) };
        }
        let (rows, kept) = part.run.lying_in(segment);
        bytes += rows.iter().map(|(_, span)| span.bytes).sum::<u32>();
        bytes += kept.iter().map(|kept| kept.bytes()).sum::<u32>();
        if !rows.is_empty() {
            live.push(LiveRecords::Packed(part.run.clone(), rows));
        }
        live.extend(kept.into_iter().map(LiveRecords::Kept));
    }
    for record in entry.log.open().iter().chain(&entry.retained) {
        match &record.content {
            Stored::Kept(kept) if kept.place().segment == segment => {
                live.push(LiveRecords::Kept(kept.clone()))
            }
            Stored::Kept(_) | Stored::Packed(_) => {}
        }
    }
    SearchResult { live, next: None }
}
