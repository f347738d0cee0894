//! [`EngineShares`]: what principals may store in the engine in sum, over all partitions and gateways.
//!
//! Each partition counts the streams of each principal, and their bytes, in the steps that change them. The gateway that sweeps adds them up
//! and tells each partition with its next sweep who has used up a share; the engine refuses more from these until a later sweep says otherwise.
//! So a share may be exceeded by what is stored between two sweeps.
//!
//! Only principals are added up that have at least a part of their share in some partition, as all others have less than it in sum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::argument::PARTITIONS;
use super::functions::EngineCall;
use crate::budget::Budget;
use crate::stream::Shortage;

/// Says in the list of who has used up a share that the number of all streams is used up.
const ALL_STREAMS: &str = "streams *";

/// The limits, and what the last sweep has found.
#[derive(Debug)]
pub(super) struct EngineShares {
    /// Has the number of streams, and how much one principal may have of them and of the memory of the engine.
    budget: Arc<Budget>,
    /// Memory of the engine, in bytes; 0: it has no bound.
    memory_max: AtomicU64,
    /// Who has used up a share, and the lease in which this was found.
    over: Mutex<Option<(String, Vec<String>)>>,
}

/// Why the engine refuses more to a principal, by its verdict.
pub(super) fn shortage_of(verdict: &str) -> Option<Shortage> {
    match verdict {
        "share_used_up" => Some(Shortage::Share),
        "too_many_streams" => Some(Shortage::Streams),
        "too_many_own_streams" => Some(Shortage::OwnStreams),
        _ => None,
    }
}

/// The least amount in one partition with which a share may be used up in sum.
fn part_of(share: u64) -> String {
    if share == u64::MAX { "+inf".to_owned() } else { share.div_ceil(PARTITIONS).max(1).to_string() }
}

impl EngineShares {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, memory_max: AtomicU64::new(0), over: Mutex::default() }
    }

    pub(super) fn set_memory(&self, bytes: u64) {
        self.memory_max.store(bytes, Ordering::Relaxed);
    }

    /// How many streams one principal may have, and how many bytes their messages may take.
    fn own_max(&self) -> [u64; 2] {
        let bytes = match self.memory_max.load(Ordering::Relaxed) {
            0 => u64::MAX,
            memory_max => self.budget.share(memory_max),
        };
        [self.budget.share(self.budget.streams_max()), bytes]
    }

    /// Adds to a sweep which principals it has to return, and who has used up a share. In the first sweep of a lease, the partitions keep
    /// what the gateway before has told.
    pub(super) fn add_to(&self, call: EngineCall, lease: &str) -> EngineCall {
        let call = self.own_max().into_iter().fold(call, |call, share| call.with(part_of(share)));
        match &*self.over.lock() {
            Some((found_in, over)) if found_in == lease => {
                over.iter().fold(call.with("set"), EngineCall::with)
            }
            _ => call.with("keep"),
        }
    }

    /// Notes who has used up a share, of the streams that there are and of what principals have of them and of their bytes.
    pub(super) fn note(&self, lease: &str, streams: usize, sums: BTreeMap<String, [u64; 2]>) {
        let mut over = Vec::new();
        if streams as u64 >= self.budget.streams_max() {
            over.push(ALL_STREAMS.to_owned());
        }
        let own_max = self.own_max();
        for (creator, used) in sums {
            let kinds = ["streams", "bytes"].into_iter().zip(used.into_iter().zip(own_max));
            over.extend(
                kinds.filter(|(_, (used, max))| used >= max).map(|(kind, _)| format!("{kind} {creator}")),
            );
        }
        *self.over.lock() = Some((lease.to_owned(), over));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_used_up_in_sum_is_used_by_a_part_in_some_partition() {
        for share in [1, 2, 127, 128, 129, 500_000] {
            let part: u64 = part_of(share).parse().unwrap();
            // The most that is in no partition a part.
            assert!((part - 1) * PARTITIONS < share, "{share}");
        }
        assert_eq!(part_of(u64::MAX), "+inf");
    }
}
