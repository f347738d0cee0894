//! [`Wildcards`]: the wildcard filters of all subscribers, as a tree of topic levels. A publisher visits only
//! the filters whose first levels match its stream, and pays one atomic load if there are no filters.

use std::collections::HashMap;
use std::str::Split;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::members::{Member, Members};
use crate::stream::{ANY_LEVELS, Filter, ONE_LEVEL, StreamName, split_tenant};

/// All wildcard filters and their subscribers.
#[derive(Debug, Default)]
pub(in crate::hub) struct Wildcards {
    root: RwLock<Level>,
    /// Number of filters, each counted once per subscriber. Changed only under the lock.
    ///
    /// Publishers read it without the lock. Either a publisher sees the filter, or its append came before the
    /// first read of the subscriber, which comes after the filter was added: both take the lock of that
    /// stream in the store.
    count: AtomicUsize,
}

/// A node of the tree: the filters that share their first levels.
#[derive(Debug, Default)]
struct Level {
    /// Subscribers whose filter ends at this node.
    here: Members,
    /// Subscribers whose filter continues with `#`.
    any: Members,
    /// Filters that continue with `+`.
    one: Option<Box<Level>>,
    /// Filters that continue with a literal level.
    named: HashMap<Box<str>, Level>,
}

impl Wildcards {
    /// Adds a filter that `member` does not have yet.
    pub(in crate::hub) fn insert(&self, filter: &Filter, member: &Arc<Member>) {
        let mut root = self.root.write();
        root.insert(filter.as_str().split('/'), member);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a filter that `member` has.
    pub(in crate::hub) fn remove(&self, filter: &Filter, member: &Member) {
        let mut root = self.root.write();
        root.remove(filter.as_str().split('/'), member);
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
        self.root.read().len()
    }

    fn matching(&self, name: &StreamName) -> Vec<Members> {
        let mut found = Vec::new();
        let (prefix, local) = split_tenant(name.as_str());
        let root = self.root.read();
        // The prefix of a tenant is literal levels, and a `/`.
        let mut levels = prefix.split_terminator('/');
        if let Some(of_tenant) = levels.try_fold(&*root, |level, next| level.named.get(next)) {
            of_tenant.find(local.split('/'), local.starts_with('$'), &mut found);
        }
        found
    }
}

impl Level {
    fn insert(&mut self, mut levels: Split<'_, char>, member: &Arc<Member>) {
        match levels.next() {
            None => self.here.insert(member),
            Some(ANY_LEVELS) => self.any.insert(member),
            Some(ONE_LEVEL) => self.one.get_or_insert_default().insert(levels, member),
            Some(level) => self.named.entry(level.into()).or_default().insert(levels, member),
        }
    }

    fn remove(&mut self, mut levels: Split<'_, char>, member: &Member) {
        match levels.next() {
            None => self.here.remove(member),
            Some(ANY_LEVELS) => self.any.remove(member),
            Some(ONE_LEVEL) => {
                self.one.iter_mut().for_each(|next| next.remove(levels.clone(), member));
                self.one.take_if(|next| next.is_empty());
            }
            Some(level) => {
                let Some(next) = self.named.get_mut(level) else { return };
                next.remove(levels, member);
                if next.is_empty() {
                    self.named.remove(level);
                }
            }
        }
    }

    /// Collects the subscribers whose filters match the remaining levels of a name. `hidden`: the levels are
    /// the whole name in its tenant and it starts with `$`, which a leading wildcard does not match.
    fn find(&self, mut levels: Split<'_, char>, hidden: bool, found: &mut Vec<Members>) {
        if !self.any.is_empty() && !hidden {
            found.push(self.any.clone());
        }
        let Some(level) = levels.next() else {
            if !self.here.is_empty() {
                found.push(self.here.clone());
            }
            return;
        };
        if let Some(next) = &self.one
            && !hidden
        {
            next.find(levels.clone(), false, found);
        }
        if let Some(next) = self.named.get(level) {
            next.find(levels, false, found);
        }
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.any.is_empty() && self.one.is_none() && self.named.is_empty()
    }

    fn len(&self) -> usize {
        let below: usize = self.one.iter().map(|next| next.len()).sum();
        let named: usize = self.named.values().map(Level::len).sum();
        self.here.len() + self.any.len() + below + named
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILTERS: [&str; 17] = [
        "#", "+", "+/+", "+/#", "+/b", "+/b/#", "a/#", "a/+", "a/+/c", "a/+/+", "a/b/+", "a/b/#", "a/b/c/#",
        "$x/#", "$x/+", "a/$x/+", "+/+/c",
    ];
    const NAMES: [&str; 13] = [
        "a", "b", "a/b", "b/b", "a/b/c", "b/b/c", "a/b/c/d", "a/c", "$x", "$x/b", "$x/b/c", "a/$x/c", "a/+/c",
    ];

    #[test]
    fn the_tree_finds_just_the_filters_that_match() {
        let wildcards = Wildcards::default();
        let members: Vec<_> = (0..).zip(FILTERS).map(|(n, text)| Arc::new(Member::new(n, text, 1))).collect();
        let filter = |member: &Member| Filter::parse(&member.client).unwrap();
        let found = |name: &str| -> BTreeSet<u64> {
            let found = wildcards.matching(&StreamName::parse(name).unwrap());
            found.iter().flat_map(Members::numbers).collect()
        };
        let expected = |name: &str, there: &[Arc<Member>]| -> BTreeSet<u64> {
            let name = StreamName::parse(name).unwrap();
            there.iter().filter(|member| filter(member).matches(&name)).map(|member| member.number).collect()
        };
        for count in 0..=members.len() {
            for name in NAMES {
                assert_eq!(found(name), expected(name, &members[..count]), "{name} with {count} filters");
            }
            assert_eq!(wildcards.len(), count);
            if let Some(member) = members.get(count) {
                wildcards.insert(&filter(member), member);
            }
        }
        for (count, member) in members.iter().enumerate() {
            wildcards.remove(&filter(member), member);
            for name in NAMES {
                assert_eq!(found(name), expected(name, &members[count + 1..]), "{name}");
            }
        }
        assert!(wildcards.root.read().is_empty() && wildcards.count.into_inner() == 0);
    }
}
