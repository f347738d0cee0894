//! [`StreamWalk`]: visits the streams that filters may match, page by page, yielding in between so that many
//! streams do not block other tasks.

use tokio::task::{consume_budget, yield_now};

use crate::hub::{Hub, until_answered};
use crate::stream::{Filter, Offset, StreamName};

/// A walk over the streams that some filters may match; advanced by [`Hub::next_streams`].
#[derive(Debug)]
pub struct StreamWalk {
    /// The parts still to visit; the next one is last.
    roots: Vec<Root>,
    /// Name behind which the next page of the current part starts.
    after: Option<StreamName>,
}

/// A set of streams to visit.
#[derive(Debug, PartialEq, Eq)]
enum Root {
    /// One stream.
    Stream(StreamName),
    /// The streams whose names start with this prefix.
    Under(Box<str>),
}

impl Root {
    /// A prefix comes before the stream with this name.
    fn order(&self) -> (&str, bool) {
        match self {
            Self::Stream(name) => (name.as_str(), true),
            Self::Under(prefix) => (prefix, false),
        }
    }

    /// Whether all streams of `later`, which does not come before this part, are streams of this part.
    fn covers(&self, later: &Self) -> bool {
        match self {
            Self::Stream(_) => self == later,
            Self::Under(prefix) => later.order().0.starts_with(&**prefix),
        }
    }
}

impl StreamWalk {
    /// Creates a walk that visits every stream that one of the filters matches once, in the order of the names.
    pub fn over<'a>(filters: impl IntoIterator<Item = &'a Filter>) -> Self {
        let root = |filter: &'a Filter| match filter.exact() {
            Some(name) => Some(Root::Stream(name.clone())),
            // Without a wildcard, no stream can have this name.
            None => filter.has_wildcard().then(|| Root::Under(filter.prefix().into())),
        };
        let mut roots: Vec<_> = filters.into_iter().filter_map(root).collect();
        roots.sort_unstable_by(|one, other| one.order().cmp(&other.order()));
        roots.dedup_by(|later, earlier| earlier.covers(later));
        roots.reverse();
        Self { roots, after: None }
    }

    /// Number of parts that are still to be visited.
    pub fn parts(&self) -> usize {
        self.roots.len()
    }

    /// Whether all streams have been visited.
    pub fn is_over(&self) -> bool {
        self.roots.is_empty()
    }

    /// Continues the walk behind the stream `after`.
    pub fn starting_after(self, after: Option<StreamName>) -> Self {
        Self { after, ..self }
    }
}

impl Hub {
    /// Returns the next existing streams of a walk, each with its tail. Some may match no filter, and a page
    /// may be empty. `None`: the walk is over. Waits while the store cannot be read.
    pub async fn next_streams(&self, walk: &mut StreamWalk) -> Option<Vec<(StreamName, Offset)>> {
        match walk.roots.last()? {
            Root::Stream(name) => {
                consume_budget().await;
                let is_behind = walk.after.as_ref() < Some(name);
                let tail = if is_behind { self.settled_tail(name).await } else { None };
                let found = tail.map(|tail| (name.clone(), tail));
                walk.roots.pop();
                Some(found.into_iter().collect())
            }
            Root::Under(prefix) => {
                yield_now().await;
                // Before the part, a page would end at once.
                let after = walk.after.as_ref().filter(|after| after.as_str() >= &**prefix);
                let page = || self.store.page(prefix, after, self.clock.now());
                let page = until_answered(page).await;
                // Filters without a prefix match no name that begins with `$`.
                let is_of_tenant = |name: &StreamName| prefix.is_empty() && !name.tenant().is_default();
                match page.next {
                    Some(name) if is_of_tenant(&name) => walk.after = Some(StreamName::behind_tenants()),
                    Some(name) => walk.after = Some(name),
                    // Later parts come behind all that were visited.
                    None => drop(walk.roots.pop()),
                }
                Some(page.streams)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_filters_are_walked_once() {
        let roots = |texts: &[&str]| {
            let filters: Vec<_> = texts.iter().map(|text| Filter::parse(text).unwrap()).collect();
            StreamWalk::over(&filters).roots
        };
        let under = |prefix: &str| Root::Under(prefix.into());
        assert_eq!(roots(&["a/#", "a/b/#", "b/+/c", "b/+"]), [under("b/"), under("a")]);
        assert_eq!(roots(&["a/#", "#", "+/x"]), [under("")]);
        let named = |name| Root::Stream(StreamName::parse(name).unwrap());
        assert_eq!(roots(&["d", "a", "a//b", "c/#", "c/x", "a"]), [named("d"), under("c"), named("a")]);
    }
}
