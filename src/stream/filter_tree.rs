//! A tree of filters by topic levels, for many filters: adding and removing one takes the time of its levels, and a lookup visits
//! only the filters whose first levels match the name. A [`FilterMap`](super::FilterMap) takes less memory for a few.

use std::collections::HashMap;
use std::str::Split;

use super::filter::{ANY_LEVELS, Filter, ONE_LEVEL};
use super::name::StreamName;
use super::tenant::split_tenant;

/// Values by [parsed](Filter::parse) filters with wildcards.
#[derive(Debug)]
pub struct FilterTree<T> {
    /// The value of the filter that ends at this node.
    here: Option<T>,
    /// The value of the filter that continues with `#`.
    any: Option<T>,
    /// Filters that continue with `+`.
    one: Option<Box<Self>>,
    /// Filters that continue with a literal level.
    named: HashMap<Box<str>, Self>,
}

impl<T> Default for FilterTree<T> {
    fn default() -> Self {
        let (here, any, one, named) = Default::default();
        Self { here, any, one, named }
    }
}

impl<T> FilterTree<T> {
    /// The value of a filter, which is the default one if the tree does not have the filter yet.
    pub fn get_or_insert_default(&mut self, filter: &Filter) -> &mut T
    where
        T: Default,
    {
        let mut node = self;
        for level in filter.as_str().split('/') {
            match level {
                ANY_LEVELS => return node.any.get_or_insert_default(),
                ONE_LEVEL => node = node.one.get_or_insert_default(),
                level => node = node.named.entry(level.into()).or_default(),
            }
        }
        node.here.get_or_insert_default()
    }

    /// The value of a filter.
    pub fn get(&self, filter: &Filter) -> Option<&T> {
        let mut node = self;
        for level in filter.as_str().split('/') {
            match level {
                ANY_LEVELS => return node.any.as_ref(),
                ONE_LEVEL => node = node.one.as_deref()?,
                level => node = node.named.get(level)?,
            }
        }
        node.here.as_ref()
    }

    /// The value of a filter, for changes.
    pub fn get_mut(&mut self, filter: &Filter) -> Option<&mut T> {
        let mut node = self;
        for level in filter.as_str().split('/') {
            match level {
                ANY_LEVELS => return node.any.as_mut(),
                ONE_LEVEL => node = node.one.as_deref_mut()?,
                level => node = node.named.get_mut(level)?,
            }
        }
        node.here.as_mut()
    }

    /// Removes a filter and returns its value.
    pub fn remove(&mut self, filter: &Filter) -> Option<T> {
        self.remove_levels(filter.as_str().split('/'))
    }

    fn remove_levels(&mut self, mut levels: Split<'_, char>) -> Option<T> {
        match levels.next() {
            None => self.here.take(),
            Some(ANY_LEVELS) => self.any.take(),
            Some(ONE_LEVEL) => {
                let removed = self.one.as_mut()?.remove_levels(levels);
                self.one.take_if(|next| next.is_empty());
                removed
            }
            Some(level) => {
                let next = self.named.get_mut(level)?;
                let removed = next.remove_levels(levels);
                if next.is_empty() {
                    self.named.remove(level);
                }
                removed
            }
        }
    }

    /// The values of the filters that match the name.
    pub fn matching(&self, name: &StreamName) -> Vec<&T> {
        let mut found = Vec::new();
        let (prefix, local) = split_tenant(name.as_str());
        // The prefix of a tenant is literal levels, and a `/`.
        let mut levels = prefix.split_terminator('/');
        if let Some(of_tenant) = levels.try_fold(self, |node, next| node.named.get(next)) {
            of_tenant.find(local.split('/'), local.starts_with('$'), &mut found);
        }
        found
    }

    /// Collects the values of the filters that match the remaining levels of a name. `hidden`: the levels are the whole name in its
    /// tenant and it starts with `$`, which a leading wildcard does not match.
    fn find<'a>(&'a self, mut levels: Split<'_, char>, hidden: bool, found: &mut Vec<&'a T>) {
        if !hidden {
            found.extend(&self.any);
        }
        let Some(level) = levels.next() else {
            found.extend(&self.here);
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

    /// Whether there is no filter.
    pub fn is_empty(&self) -> bool {
        self.here.is_none() && self.any.is_none() && self.one.is_none() && self.named.is_empty()
    }

    /// The sum of a number that each value has.
    pub fn sum(&self, number: &impl Fn(&T) -> usize) -> usize {
        let own: usize = self.here.iter().chain(&self.any).map(number).sum();
        let below = self.one.iter().map(|next| &**next).chain(self.named.values());
        own + below.map(|next| next.sum(number)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILTERS: [&str; 19] = [
        "#",
        "+",
        "+/+",
        "+/#",
        "+/b",
        "+/b/#",
        "a/#",
        "a/+",
        "a/+/c",
        "a/+/+",
        "a/b/+",
        "a/b/#",
        "a/b/c/#",
        "$x/#",
        "$x/+",
        "a/$x/+",
        "+/+/c",
        "$tenant/t/#",
        "$tenant/t/+/b",
    ];
    const NAMES: [&str; 16] = [
        "a",
        "b",
        "a/b",
        "b/b",
        "a/b/c",
        "b/b/c",
        "a/b/c/d",
        "a/c",
        "$x",
        "$x/b",
        "$x/b/c",
        "a/$x/c",
        "a/+/c",
        "$tenant/t/a",
        "$tenant/t/a/b",
        "$tenant/u/a",
    ];

    #[test]
    fn the_tree_finds_just_the_filters_that_match() {
        let filters: Vec<_> = FILTERS.iter().map(|text| Filter::parse(text).unwrap()).collect();
        let mut tree: FilterTree<usize> = FilterTree::default();
        let check = |tree: &FilterTree<usize>, there: std::ops::Range<usize>| {
            for name in NAMES {
                let name = StreamName::stored(name).unwrap();
                let found: BTreeSet<_> = tree.matching(&name).into_iter().copied().collect();
                let expected: BTreeSet<_> =
                    there.clone().filter(|number| filters[*number].matches(&name)).collect();
                assert_eq!(found, expected, "{name} with the filters {there:?}");
            }
            assert_eq!(tree.sum(&|_| 1), there.len());
        };
        for (number, filter) in filters.iter().enumerate() {
            check(&tree, 0..number);
            assert_eq!(tree.get(filter), None);
            *tree.get_or_insert_default(filter) = number;
        }
        for (number, filter) in filters.iter().enumerate() {
            check(&tree, number..filters.len());
            assert_eq!(tree.get_mut(filter).copied(), Some(number));
            assert_eq!((tree.remove(filter), tree.remove(filter)), (Some(number), None));
        }
        assert!(tree.is_empty());
    }
}
