//! [`Wildcards`]: the wildcard filters of all subscribers. A publisher visits only the filters whose first levels match its stream,
//! and pays one atomic load if there are no filters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::members::{Member, Members};
use crate::stream::{Filter, FilterTree, StreamName};

/// All wildcard filters and their subscribers.
#[derive(Debug, Default)]
pub(in crate::hub) struct Wildcards {
    root: RwLock<FilterTree<Members>>,
    /// Number of filters, each counted once per subscriber. Changed only under the lock.
    ///
    /// Publishers read it without the lock. Either a publisher sees the filter, or its append came before the
    /// first read of the subscriber, which comes after the filter was added: both take the lock of that
    /// stream in the store.
    count: AtomicUsize,
}

impl Wildcards {
    /// Adds a filter that `member` does not have yet.
    pub(in crate::hub) fn insert(&self, filter: &Filter, member: &Arc<Member>) {
        let mut root = self.root.write();
        root.get_or_insert_default(filter).insert(member);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a filter that `member` has.
    pub(in crate::hub) fn remove(&self, filter: &Filter, member: &Member) {
        let mut root = self.root.write();
        if let Some(members) = root.get_mut(filter) {
            members.remove(member);
            if members.is_empty() {
                root.remove(filter);
            }
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Marks the stream for every subscriber with a filter that matches it.
    pub(in crate::hub) fn mark(&self, name: &StreamName) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.matching(name).iter().for_each(|members| members.mark(name));
        }
    }

    /// Whether a filter matches the stream.
    pub(in crate::hub) fn have(&self, name: &StreamName) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && !self.matching(name).is_empty()
    }

    /// Number of filters in the tree, each counted once per subscriber. Walks the tree instead of reading
    /// `count`.
    pub(in crate::hub) fn len(&self) -> usize {
        self.root.read().sum(&Members::len)
    }

    fn matching(&self, name: &StreamName) -> Vec<Members> {
        self.root.read().matching(name).into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_there_as_long_as_it_has_subscribers() {
        let wildcards = Wildcards::default();
        let members: Vec<_> = (0..3).map(|number| Arc::new(Member::new(number, "".into(), 1))).collect();
        let (both, own) = (Filter::parse("a/#").unwrap(), Filter::parse("+/b").unwrap());
        let name = StreamName::parse("a/b").unwrap();
        let found = || -> Vec<u64> {
            let mut found: Vec<_> = wildcards.matching(&name).iter().flat_map(Members::numbers).collect();
            found.sort_unstable();
            found
        };
        members.iter().take(2).for_each(|member| wildcards.insert(&both, member));
        wildcards.insert(&own, &members[2]);
        assert_eq!((found(), wildcards.len(), wildcards.have(&name)), (vec![0, 1, 2], 3, true));
        wildcards.remove(&both, &members[0]);
        wildcards.remove(&own, &members[2]);
        assert_eq!((found(), wildcards.len()), (vec![1], 1));
        wildcards.remove(&both, &members[1]);
        assert!(!wildcards.have(&name) && wildcards.root.read().is_empty());
        assert_eq!(wildcards.count.into_inner(), 0);
    }
}
