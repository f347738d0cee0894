//! The subscriptions of a session, and the delivery options that they give a message.

use crate::mqtt::codec::SubscriptionOptions;
use crate::stream::{Filter, FilterMap, QoS, StreamName};

/// Maximum memory of a filter, in the session and as an entry of the store, in bytes.
const FILTER_BYTES: usize = 384;
/// Maximum memory of one level of a wildcard filter in the tree of filters of the hub, in bytes.
const LEVEL_BYTES: usize = 448;

/// The subscriptions of a session, one per filter.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Subscriptions {
    by_filter: FilterMap<Subscription>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Subscription {
    options: SubscriptionOptions,
    /// All streams that existed before the subscription have offsets. Until then, a stream without an offset
    /// may be older than the subscription.
    begun: bool,
}

/// The options of all subscriptions that match a stream. A message is sent once, at the highest QoS of them
/// (MQTT 5, section 3.3.4), with the identifiers of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) struct Wanted {
    by: Vec<SubscriptionOptions>,
}

/// The options with which a message is sent to one client.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mqtt) struct DeliveryOptions {
    /// The highest QoS of the subscriptions.
    pub(in crate::mqtt) qos: QoS,
    /// The retain flag of the publish is forwarded.
    pub(in crate::mqtt) retain_as_published: bool,
    /// The subscription identifiers.
    pub(in crate::mqtt) identifiers: Vec<u32>,
}

impl Subscriptions {
    /// Adds a subscription that has not begun, or replaces the options of the same filter. Returns whether it
    /// is new.
    pub(in crate::mqtt) fn put(&mut self, filter: Filter, options: SubscriptionOptions) -> bool {
        if let Some(known) = self.by_filter.get_mut(&filter) {
            known.options = options;
            return false;
        }
        self.bytes += bytes_of(&filter);
        self.by_filter.insert(filter, Subscription { options, begun: false });
        true
    }

    /// Marks a subscription as begun: all streams that existed before it have offsets now.
    pub(in crate::mqtt) fn begin(&mut self, filter: &Filter) {
        self.by_filter.get_mut(filter).into_iter().for_each(|known| known.begun = true);
    }

    /// Removes a subscription. Returns whether it existed.
    pub(in crate::mqtt) fn remove(&mut self, filter: &Filter) -> bool {
        let existed = self.by_filter.remove(filter).is_some();
        if existed {
            self.bytes -= bytes_of(filter);
        }
        existed
    }

    /// Returns the number of subscriptions.
    pub(in crate::mqtt) fn len(&self) -> usize {
        self.by_filter.len()
    }

    /// Returns the maximum memory of the subscriptions, in bytes.
    pub(in crate::mqtt) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the options of exactly this filter.
    pub(in crate::mqtt) fn get(&self, filter: &Filter) -> Option<&SubscriptionOptions> {
        self.by_filter.get(filter).map(|known| &known.options)
    }

    pub(in crate::mqtt) fn filters(&self) -> impl Iterator<Item = &Filter> {
        self.by_filter.filters()
    }

    /// Whether a subscription matches a stream.
    pub(in crate::mqtt) fn want(&self, name: &StreamName) -> bool {
        self.by_filter.matches(name)
    }

    /// Whether subscriptions match a stream and none of them has begun.
    pub(in crate::mqtt) fn begin_to_want(&self, name: &StreamName) -> bool {
        let matching = self.by_filter.matching(name);
        !matching.is_empty() && matching.iter().all(|known| !known.begun)
    }

    /// Returns the options of all subscriptions that match a stream, if there are any.
    pub(in crate::mqtt) fn wanted(&self, name: &StreamName) -> Option<Wanted> {
        let by: Vec<_> = self.by_filter.matching(name).into_iter().map(|known| known.options).collect();
        (!by.is_empty()).then_some(Wanted { by })
    }
}

fn bytes_of(filter: &Filter) -> usize {
    let levels = if filter.has_wildcard() { filter.as_str().split('/').count() } else { 0 };
    FILTER_BYTES + 4 * filter.as_str().len() + LEVEL_BYTES * levels
}

impl Wanted {
    /// The options of a single subscription.
    pub(in crate::mqtt) fn by(options: SubscriptionOptions) -> Self {
        Self { by: vec![options] }
    }

    /// Returns the options to send a message with; `own`: the client published it itself. `None`: it is not
    /// sent.
    pub(in crate::mqtt) fn delivery_options(&self, own: bool) -> Option<DeliveryOptions> {
        let by = || self.by.iter().filter(|options| !(own && options.no_local));
        Some(DeliveryOptions {
            qos: by().map(|options| options.qos).max()?,
            retain_as_published: by().any(|options| options.retain_as_published),
            identifiers: by().filter_map(|options| options.identifier).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::RetainHandling;

    fn options(qos: QoS, no_local: bool, identifier: Option<u32>) -> SubscriptionOptions {
        let retain_handling = RetainHandling::Send;
        SubscriptionOptions { qos, no_local, retain_as_published: no_local, retain_handling, identifier }
    }

    #[test]
    fn overlapping_subscriptions_send_once_at_the_highest_qos() {
        let mut subscriptions = Subscriptions::default();
        let [all, one] = ["a/#", "a/b"].map(|filter| Filter::parse(filter).unwrap());
        let name = StreamName::parse("a/b").unwrap();
        assert!(subscriptions.wanted(&name).is_none());
        assert!(subscriptions.put(all, options(QoS::ExactlyOnce, true, Some(7))));
        assert!(subscriptions.put(one.clone(), options(QoS::AtMostOnce, false, Some(8))));
        assert!(!subscriptions.put(one.clone(), options(QoS::AtLeastOnce, false, Some(9))));
        assert!(subscriptions.begin_to_want(&name));
        subscriptions.begin(&one);
        assert!(!subscriptions.begin_to_want(&name), "a stream without an offset came after this one");
        let wanted = subscriptions.wanted(&name).unwrap();
        let delivery_options = |qos, retain_as_published, identifiers: &[u32]| {
            Some(DeliveryOptions { qos, retain_as_published, identifiers: identifiers.to_vec() })
        };
        assert_eq!(wanted.delivery_options(false), delivery_options(QoS::ExactlyOnce, true, &[7, 9]));
        assert_eq!(wanted.delivery_options(true), delivery_options(QoS::AtLeastOnce, false, &[9]));
        for text in ["a/#", "a/b"] {
            assert!(subscriptions.remove(&Filter::parse(text).unwrap()));
        }
        assert_eq!((subscriptions.bytes(), subscriptions.len(), subscriptions.want(&name)), (0, 0, false));
    }

    #[test]
    fn no_local_alone_sends_nothing_back() {
        assert_eq!(Wanted::by(options(QoS::AtLeastOnce, true, None)).delivery_options(true), None);
    }
}
