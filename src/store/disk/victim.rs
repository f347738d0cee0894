//! A segment that is being reclaimed: which logs are still to be searched for records in it, and the search itself.

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

/// How soon to try again to remove a file that could not be removed.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The maximum number of runs that are searched while a stream is locked.
const RUNS_MAX: usize = 4096;

/// A segment that is being emptied and removed.
pub(super) struct Reclaiming {
    pub(super) victim: Arc<Segment>,
    /// Streams whose logs are still to be searched; the last one is next.
    pub(super) logs: Vec<StreamId>,
    /// The position at which the search of the last of them continues.
    pub(super) from: Position,
    /// Streams and sessions whose state may have to be written again.
    pub(super) streams: Vec<StreamId>,
    /// Whether the logs of all streams are searched.
    pub(super) thorough: bool,
    /// When the file could not be removed; it is tried again after [`TRY_AGAIN`].
    pub(super) stuck_at: Option<Instant>,
}

/// Records in use in the segment, by owner.
pub(super) enum LiveRecords {
    Kept(Arc<Kept>),
    /// Records that only a sealed run owns, by row.
    Packed(Arc<Packed>, Vec<(usize, RecordSpan)>),
}

/// The result of a search.
pub(super) struct SearchResult {
    pub(super) live: Vec<LiveRecords>,
    /// Where the search continues; `None` if the log is searched completely.
    pub(super) next: Option<Position>,
}

impl Reclaiming {
    /// Starts with the logs of the streams that have records in the segment, and of their forks.
    pub(super) fn of(victim: Arc<Segment>, forks: &HashMap<StreamId, Vec<StreamId>>) -> Self {
        let written: HashSet<_> = victim.streams.lock().clone();
        let forked = written.iter().filter_map(|stream| forks.get(stream)).flatten();
        // The logs of forks may contain records of their sources.
        let streams: Vec<_> = forked.chain(&written).copied().collect::<HashSet<_>>().into_iter().collect();
        Self { victim, logs: streams.clone(), from: Position(0), streams, thorough: false, stuck_at: None }
    }

    /// Starts with the logs of all streams: after a stream was deleted, a new fork may still have its records.
    pub(super) fn thorough(victim: Arc<Segment>, all: Vec<StreamId>) -> Self {
        Self { victim, logs: all, from: Position(0), streams: Vec::new(), thorough: true, stuck_at: None }
    }

    /// How long to wait before the next attempt.
    pub(super) fn pause(&self) -> Duration {
        self.stuck_at.map_or(Duration::ZERO, |at| TRY_AGAIN.saturating_sub(at.elapsed()))
    }
}

/// The records of a stream in a segment, from a position on, up to about `bytes_max`.
pub(super) fn find_live(segment: u32, entry: &Entry<Stored>, from: Position, bytes_max: u32) -> SearchResult {
    let (mut live, mut bytes) = (Vec::new(), 0u32);
    for (searched, part) in entry.log.parts_from(from).enumerate() {
        if searched >= RUNS_MAX || bytes >= bytes_max {
            return SearchResult { live, next: Some(part.start()) };
        }
        let (rows, kept) = part.run.records_in(segment);
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
