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

impl StreamWalk {
    /// Creates a walk that visits every stream that one of the filters matches. Streams under overlapping
    /// wildcard filters are visited once.
    pub fn over<'a>(filters: impl IntoIterator<Item = &'a Filter>) -> Self {
        let (mut prefixes, mut roots) = (Vec::new(), Vec::new());
        for filter in filters {
            match filter.exact() {
                Some(name) => roots.push(Root::Stream(name.clone())),
                None if filter.has_wildcard() => prefixes.push(filter.prefix()),
                // No stream can have this name.
                None => {}
            }
        }
        prefixes.sort_unstable();
        prefixes.dedup_by(|later, earlier| later.starts_with(&**earlier));
        roots.extend(prefixes.into_iter().rev().map(|prefix| Root::Under(prefix.into())));
        Self { roots, after: None }
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
                let page = || self.store.page(prefix, walk.after.as_ref(), self.clock.now());
                let page = until_answered(page).await;
                // Filters without a prefix match no name that begins with `$`.
                let is_of_tenant = |name: &StreamName| prefix.is_empty() && !name.tenant().is_default();
                walk.after = match page.next {
                    Some(name) if is_of_tenant(&name) => Some(StreamName::behind_tenants()),
                    next => next,
                };
                if walk.after.is_none() {
                    walk.roots.pop();
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
        let named = Root::Stream(StreamName::parse("a").unwrap());
        assert_eq!(roots(&["a", "a//b", "c/#"]), [named, under("c")]);
    }
}
