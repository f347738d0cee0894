//! A map from topic filters to values, which finds the values for a stream name without testing every filter.
//!
//! The entries are sorted by the text of the filter, so filters with the same first levels are adjacent. A lookup goes through
//! the name level by level: within the range of filters that agree so far, binary search finds the ranges that continue with
//! the next level of the name and with `+`. The time of a lookup grows with the filters that share a prefix of levels with the
//! name, and one or two filters take no more memory than a list.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::filter::{ANY_LEVELS, Filter, ONE_LEVEL};
use super::name::StreamName;
use super::tenant::split_tenant;

/// A map from [parsed](Filter::parse) filters to values.
#[derive(Debug, Clone)]
pub struct FilterMap<T> {
    /// Sorted by the text of the filter.
    entries: Vec<(Filter, T)>,
}

impl<T> Default for FilterMap<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> FilterMap<T> {
    /// Sets the value of a filter, and returns the previous one.
    pub fn insert(&mut self, filter: Filter, value: T) -> Option<T> {
        match self.find(&filter) {
            Ok(at) => self.entries.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                // Most maps have one or two filters, so do not over-allocate.
                if self.entries.len() < 4 {
                    self.entries.reserve_exact(1);
                }
                self.entries.insert(at, (filter, value));
                None
            }
        }
    }

    /// Removes a filter and returns its value.
    pub fn remove(&mut self, filter: &Filter) -> Option<T> {
        self.find(filter).ok().map(|at| self.entries.remove(at).1)
    }

    /// The value of a filter.
    pub fn get(&self, filter: &Filter) -> Option<&T> {
        let at = self.find(filter).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// The value of a filter, for changes.
    pub fn get_mut(&mut self, filter: &Filter) -> Option<&mut T> {
        let at = self.find(filter).ok()?;
        self.entries.get_mut(at).map(|(_, value)| value)
    }

    /// The number of filters.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no filter.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The filters, in order.
    pub fn filters(&self) -> impl Iterator<Item = &Filter> {
        self.entries.iter().map(|(filter, _)| filter)
    }

    /// Whether at least one filter matches the name.
    pub fn matches(&self, name: &StreamName) -> bool {
        self.visit_matching(name, &mut |_| ControlFlow::Break(())).is_break()
    }

    /// The values of the filters that match the name.
    pub fn matching(&self, name: &StreamName) -> Vec<&T> {
        let mut found = Vec::new();
        let _to_the_end = self.visit_matching(name, &mut |value| {
            found.push(value);
            ControlFlow::Continue(())
        });
        found
    }

    fn visit_matching<'a>(
        &'a self,
        name: &StreamName,
        found: &mut impl FnMut(&'a T) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (prefix, name) = split_tenant(name.as_str());
        let all = CommonPrefix { entries: &self.entries, agreed: 0 };
        let of_tenant = if prefix.is_empty() { all } else { all.that_begin_with(&[prefix]) };
        of_tenant.visit(name, name.starts_with('$'), found)
    }

    fn find(&self, filter: &Filter) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| known.cmp(filter))
    }
}

impl<T> FromIterator<(Filter, T)> for FilterMap<T> {
    fn from_iter<I: IntoIterator<Item = (Filter, T)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (filter, value) in entries {
            map.insert(filter, value);
        }
        map
    }
}

/// A range of filters whose first `agreed` bytes are equal and end at a level.
struct CommonPrefix<'a, T> {
    entries: &'a [(Filter, T)],
    agreed: usize,
}

impl<'a, T> CommonPrefix<'a, T> {
    /// Visits the filters that match the rest of a name. `hidden` is set at the first level of a name that begins with `$`,
    /// which wildcards do not match.
    fn visit(
        self,
        rest: &str,
        hidden: bool,
        found: &mut impl FnMut(&'a T) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.entries.is_empty() {
            return ControlFlow::Continue(());
        }
        let (level, below) = match rest.split_once('/') {
            Some((level, below)) => (level, Some(below)),
            None => (rest, None),
        };
        if !hidden {
            self.find(&[ANY_LEVELS]).map_or(ControlFlow::Continue(()), &mut *found)?;
        }
        let is_wildcard = level == ONE_LEVEL || level == ANY_LEVELS;
        let candidates = [(!hidden).then_some(ONE_LEVEL), (!is_wildcard).then_some(level)];
        for candidate in candidates.into_iter().flatten() {
            match below {
                Some(below) => self.continued_by(candidate).visit(below, false, found)?,
                None => {
                    self.find(&[candidate]).map_or(ControlFlow::Continue(()), &mut *found)?;
                    self.find(&[candidate, "/", ANY_LEVELS])
                        .map_or(ControlFlow::Continue(()), &mut *found)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The value of the filter whose remaining text is `pieces`.
    fn find(&self, pieces: &[&str]) -> Option<&'a T> {
        let at = self.entries.binary_search_by(|entry| compare(self.rest_of(entry), pieces)).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// The filters whose next level is `level` and that have further levels.
    fn continued_by(&self, level: &str) -> Self {
        self.that_begin_with(&[level, "/"])
    }

    /// The filters whose remaining text begins with `pieces`.
    fn that_begin_with(&self, pieces: &[&str]) -> Self {
        let begins = |rest: &[u8]| {
            let behind = pieces.iter().try_fold(rest, |rest, piece| rest.strip_prefix(piece.as_bytes()));
            behind.is_some()
        };
        let from = self.entries.partition_point(|entry| compare(self.rest_of(entry), pieces).is_lt());
        let entries = self.entries.get(from..).unwrap_or_default();
        let to = entries.partition_point(|entry| begins(self.rest_of(entry)));
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        Self { entries: entries.get(..to).unwrap_or_default(), agreed: self.agreed + length }
    }

    fn rest_of<'f>(&self, (filter, _): &'f (Filter, T)) -> &'f [u8] {
        filter.as_str().as_bytes().get(self.agreed..).unwrap_or_default()
    }
}

/// Compares bytes with the concatenation of `pieces`.
fn compare(mut bytes: &[u8], pieces: &[&str]) -> Ordering {
    for piece in pieces {
        let (compared, rest) = bytes.split_at(piece.len().min(bytes.len()));
        match compared.cmp(piece.as_bytes()) {
            Ordering::Equal => bytes = rest,
            different => return different,
        }
    }
    if bytes.is_empty() { Ordering::Equal } else { Ordering::Greater }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(levels: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
        let mut longest = all.clone();
        for _ in 0..2 {
            longest =
                longest.iter().flat_map(|text| levels.iter().map(move |l| format!("{text}/{l}"))).collect();
            all.extend(longest.iter().cloned());
        }
        all
    }

    #[test]
    fn a_lookup_finds_exactly_the_matching_filters() {
        let names: Vec<_> = texts(&["a", "ab", "b", "$x", "+", "#"])
            .iter()
            .filter_map(|text| StreamName::parse(text).ok())
            .collect();
        let filters: Vec<_> = texts(&["a", "ab", "b", "$x", "", "+", "#"])
            .iter()
            .filter_map(|text| Filter::parse(text).ok())
            .collect();
        let mut random = fastrand::Rng::with_seed(5);
        for size in [0, 1, 2, 7, 30, 150, filters.len()] {
            let mut chosen = filters.clone();
            random.shuffle(&mut chosen);
            chosen.truncate(size);
            let mut map: FilterMap<usize> = FilterMap::default();
            for (number, filter) in chosen.iter().enumerate() {
                assert_eq!(map.insert(filter.clone(), number), None);
            }
            assert_eq!(map.len(), chosen.len());
            for name in &names {
                let mut found: Vec<_> = map.matching(name).into_iter().copied().collect();
                found.sort_unstable();
                let numbered = chosen.iter().enumerate();
                let expected: Vec<_> =
                    numbered.filter(|(_, filter)| filter.matches(name)).map(|(number, _)| number).collect();
                assert_eq!(found, expected, "{name} in {chosen:?}");
                assert_eq!(map.matches(name), !expected.is_empty());
            }
            for (number, filter) in chosen.iter().enumerate() {
                assert_eq!(map.get(filter), Some(&number));
                assert_eq!((map.remove(filter), map.get(filter)), (Some(number), None));
            }
            assert!(map.is_empty());
        }
    }

    #[test]
    fn a_filter_is_there_once() {
        let filter = Filter::parse("a/+").unwrap();
        let mut map: FilterMap<u8> = [(filter.clone(), 1)].into_iter().collect();
        assert_eq!((map.insert(filter.clone(), 2), map.len()), (Some(1), 1));
        map.get_mut(&filter).into_iter().for_each(|value| *value += 1);
        assert_eq!(
            map.filters().zip(map.matching(&StreamName::parse("a/b").unwrap())).last(),
            Some((&filter, &3))
        );
    }
}
