//! The result of a replay: the streams and sessions as they were when the log ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Replay;
use crate::store::disk::kept::{Kept, Stored};
use crate::store::disk::losses::Losses;
use crate::store::disk::record::StreamId;
use crate::store::disk::session_log::SessionLog;
use crate::store::entry::{Entry, State};
use crate::store::sessions::StoredSessions;
use crate::stream::{Epoch, FORK_DEPTH_MAX, StreamName};

/// The result of a replay.
pub(in crate::store::disk) struct ReplayedLog {
    #[expect(clippy::vec_box, reason = "each stream is freed when the store takes it over")]
    pub(in crate::store::disk) streams: Vec<Box<Entry<Stored>>>,
    /// Streams whose tails were moved past damage, which is still to be written.
    pub(in crate::store::disk) skipped: Vec<StreamId>,
    pub(in crate::store::disk) losses: Losses,
    pub(in crate::store::disk) tombstones: HashMap<StreamId, Arc<Kept>>,
    pub(in crate::store::disk) sessions: StoredSessions,
    pub(in crate::store::disk) session_log: SessionLog,
    pub(in crate::store::disk) next_stream: StreamId,
    pub(in crate::store::disk) next_epoch: Epoch,
}

impl Replay {
    /// The streams, as they were when the log ended. Ended streams are included only while they have forks.
    pub(in crate::store::disk) fn into_streams(mut self) -> ReplayedLog {
        self.remove_older_streams();
        self.count_forks();
        self.measure_depths();
        let (mut appends, mut shared) = (self.appends, HashSet::new());
        for entry in self.streams.values().map(|head| &head.entry) {
            shared.extend(entry.origin.ancestors().iter().map(|(origin, _)| origin.0));
        }
        for (stream, appends) in &mut appends {
            if shared.contains(stream) { appends.runs.seal() } else { appends.runs.join() }
        }
        // Forks come first, while the runs that they share are still with the stream that appended them.
        let mut heads: Vec<_> = self.streams.into_values().collect();
        heads.sort_unstable_by_key(|head| std::cmp::Reverse(head.entry.origin.own()));
        let (losses, mut skipped) = (self.losses, Vec::new());
        let restored = heads.into_iter().map(|head| {
            let mut entry = head.into_entry(&mut appends);
            let (stream, tail) = (entry.origin.own().0, entry.log.tail());
            if entry.state != State::Deleted {
                entry.log.skip_to(losses.continue_at(stream, tail, entry.closed));
                entry.decided = entry.log.tail();
            }
            if entry.log.tail() > tail {
                skipped.push(stream);
            }
            Box::new(entry)
        });
        let mut streams: Vec<_> = restored.collect();
        if self.latest > self.now {
            // A clock was wrong, and retention would keep these messages until the time that it showed.
            streams.iter_mut().for_each(|entry| entry.log.cap_append_times(self.now));
        }
        let (next_stream, next_epoch) = (self.next_stream, self.next_epoch);
        let (tombstones, sessions, session_log) = (self.tombstones, self.sessions, self.session_log);
        ReplayedLog { streams, skipped, losses, tombstones, sessions, session_log, next_stream, next_epoch }
    }

    /// Removes ended streams whose name belongs to a newer stream. A name that forks kept is free once they are gone, which is
    /// not written. If a newer stream has the name, there are no such forks, and forks of the newer stream must not be counted
    /// for the older one.
    fn remove_older_streams(&mut self) {
        let mut newest: HashMap<StreamName, StreamId> = HashMap::new();
        for (id, head) in &self.streams {
            let known = newest.entry(head.entry.name.clone()).or_insert(*id);
            *known = (*known).max(*id);
        }
        self.streams.retain(|id, head| newest.get(&head.entry.name) == Some(id));
    }

    /// Computes the number of sources of each fork, which is not written.
    fn measure_depths(&mut self) {
        let sources: HashMap<StreamName, StreamName> = self
            .streams
            .values()
            .filter_map(|head| {
                Some((head.entry.name.clone(), head.entry.asked.fork.as_ref()?.source.clone()))
            })
            .collect();
        for entry in self.streams.values_mut().map(|head| &mut head.entry) {
            let (mut depth, mut name) = (0, &entry.name);
            // An earlier version allowed longer chains.
            while let Some(source) = sources.get(name).filter(|_| depth < FORK_DEPTH_MAX) {
                (depth, name) = (depth + 1, source);
            }
            entry.depth = depth;
        }
    }

    fn count_forks(&mut self) {
        loop {
            let mut forks: HashMap<StreamName, usize> = HashMap::new();
            for head in self.streams.values() {
                if let Some(fork) = &head.entry.asked.fork {
                    *forks.entry(fork.source.clone()).or_default() += 1;
                }
            }
            let before = self.streams.len();
            self.streams.retain(|_, head| {
                let entry = &mut head.entry;
                entry.forks = forks.get(&entry.name).copied().unwrap_or_default();
                entry.state != State::Deleted || entry.forks > 0
            });
            if self.streams.len() == before {
                return;
            }
        }
    }
}
