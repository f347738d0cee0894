//! Which streams a client wants, and how.

use crate::mqtt::codec::SubscriptionOptions;
use crate::stream::{Filter, Quality, StreamName};

/// The subscriptions of a session, one for each filter, in the order of those. Most clients have one or two, so no
/// room is kept for more.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Subscriptions {
    by_filter: Vec<(Filter, SubscriptionOptions)>,
}

/// How the messages of a stream are wanted by all subscriptions that match it. A message is sent once, at the highest
/// quality of them (MQTT 5, section 3.3.4), and says each of their identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) struct Wanted {
    by: Vec<SubscriptionOptions>,
}

/// A message as one client is to get it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mqtt) struct Terms {
    /// The highest quality that is asked for.
    pub(in crate::mqtt) quality: Quality,
    /// Whether the client is told that the message was published with retain.
    pub(in crate::mqtt) retain_as_published: bool,
    /// Of the subscriptions.
    pub(in crate::mqtt) identifiers: Vec<u32>,
}

impl Subscriptions {
    /// Adds a subscription or replaces the one of the same filter. Whether it is new.
    pub(in crate::mqtt) fn put(&mut self, filter: Filter, options: SubscriptionOptions) -> bool {
        match self.find(&filter) {
            Ok(at) => {
                self.by_filter.get_mut(at).into_iter().for_each(|(_, old)| *old = options);
                false
            }
            Err(at) => {
                self.by_filter.reserve_exact(1);
                self.by_filter.insert(at, (filter, options));
                true
            }
        }
    }

    /// Ends a subscription. Whether there was one.
    pub(in crate::mqtt) fn remove(&mut self, filter: &Filter) -> bool {
        self.find(filter).map(|at| self.by_filter.remove(at)).is_ok()
    }

    /// How many there are.
    pub(in crate::mqtt) fn len(&self) -> usize {
        self.by_filter.len()
    }

    /// The one of this very filter.
    pub(in crate::mqtt) fn get(&self, filter: &Filter) -> Option<&SubscriptionOptions> {
        let at = self.find(filter).ok()?;
        self.by_filter.get(at).map(|(_, options)| options)
    }

    /// The filters.
    pub(in crate::mqtt) fn filters(&self) -> impl Iterator<Item = &Filter> {
        self.by_filter.iter().map(|(filter, _)| filter)
    }

    fn find(&self, filter: &Filter) -> Result<usize, usize> {
        self.by_filter.binary_search_by(|(known, _)| known.cmp(filter))
    }

    /// How messages of a stream are wanted, if they are.
    pub(in crate::mqtt) fn wanted(&self, name: &StreamName) -> Option<Wanted> {
        let by: Vec<_> =
            self.by_filter.iter().filter(|(filter, _)| filter.matches(name)).map(|(_, o)| *o).collect();
        (!by.is_empty()).then_some(Wanted { by })
    }
}

impl Wanted {
    /// By one subscription alone.
    pub(in crate::mqtt) fn by(options: SubscriptionOptions) -> Self {
        Self { by: vec![options] }
    }

    /// On which terms a message is sent; `own`: the client published it itself. `None`: it is not sent.
    pub(in crate::mqtt) fn terms(&self, own: bool) -> Option<Terms> {
        let by = || self.by.iter().filter(|options| !(own && options.no_local));
        Some(Terms {
            quality: by().map(|options| options.quality).max()?,
            retain_as_published: by().any(|options| options.retain_as_published),
            identifiers: by().filter_map(|options| options.identifier).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::RetainHandling;

    fn options(quality: Quality, no_local: bool, identifier: Option<u32>) -> SubscriptionOptions {
        let retain_handling = RetainHandling::Send;
        SubscriptionOptions { quality, no_local, retain_as_published: no_local, retain_handling, identifier }
    }

    #[test]
    fn overlapping_subscriptions_send_once_at_the_highest_quality() {
        let mut subscriptions = Subscriptions::default();
        let [all, one] = ["a/#", "a/b"].map(|filter| Filter::parse(filter).unwrap());
        let name = StreamName::parse("a/b").unwrap();
        assert!(subscriptions.wanted(&name).is_none());
        assert!(subscriptions.put(all, options(Quality::ExactlyOnce, true, Some(7))));
        assert!(subscriptions.put(one.clone(), options(Quality::AtMostOnce, false, Some(8))));
        assert!(!subscriptions.put(one, options(Quality::AtLeastOnce, false, Some(9))));
        let wanted = subscriptions.wanted(&name).unwrap();
        let terms = |quality, retain_as_published, identifiers: &[u32]| {
            Some(Terms { quality, retain_as_published, identifiers: identifiers.to_vec() })
        };
        assert_eq!(wanted.terms(false), terms(Quality::ExactlyOnce, true, &[7, 9]));
        assert_eq!(wanted.terms(true), terms(Quality::AtLeastOnce, false, &[9]));
    }

    #[test]
    fn no_local_alone_sends_nothing_back() {
        assert_eq!(Wanted::by(options(Quality::AtLeastOnce, true, None)).terms(true), None);
    }
}
