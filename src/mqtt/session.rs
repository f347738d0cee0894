//! What is remembered of a client, without IO and without a clock: its subscriptions, how far it has been sent each
//! stream, and what is on its way in either direction.
//!
//! There is no queue of messages. What a client has not been sent lies in the logs behind its cursors, so a session
//! costs the same whether its client is a message or a million behind.

mod in_flight;
mod subscriptions;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::codec::{PacketId, SubscriptionOptions};
use crate::stream::{Filter, Start, StreamName};

pub(super) use in_flight::{Flight, InFlight, Phase};
pub(super) use subscriptions::{Subscriptions, Wanted};

/// A session of MQTT 5, section 4.1.
#[derive(Debug)]
pub(super) struct Session {
    /// The id of its client.
    pub(super) client: Arc<str>,
    pub(super) subscriptions: Subscriptions,
    /// What the client was sent and has not acknowledged.
    pub(super) in_flight: InFlight,
    /// Messages of quality 2 that are in the log, and that the client has not released yet.
    pub(super) received: HashSet<PacketId>,
    /// Streams whose retained message is still to be sent to a new subscription.
    pub(super) retained: VecDeque<Retained>,
    /// Behind what each stream was sent. A stream without one has come after its subscription.
    cursors: HashMap<StreamName, Start>,
}

/// A stream whose retained message is to be sent to a new subscription.
#[derive(Debug)]
pub(super) struct Retained {
    pub(super) stream: StreamName,
    /// What the subscription asks for.
    pub(super) options: SubscriptionOptions,
    /// From where the client gets the stream anyway; a retained message behind that would come twice.
    pub(super) before: Start,
}

impl Session {
    /// A new session of `client`.
    pub(super) fn new(client: Arc<str>) -> Self {
        Self {
            client,
            subscriptions: Subscriptions::default(),
            in_flight: InFlight::default(),
            received: HashSet::new(),
            retained: VecDeque::new(),
            cursors: HashMap::new(),
        }
    }

    /// From where a stream is sent next.
    pub(super) fn cursor(&self, name: &StreamName) -> Start {
        self.cursors.get(name).copied().unwrap_or(Start::Earliest)
    }

    /// Whether a stream was there when it was subscribed to, or has been sent since.
    pub(super) fn has_cursor(&self, name: &StreamName) -> bool {
        self.cursors.contains_key(name)
    }

    /// The stream was sent up to there.
    pub(super) fn set_cursor(&mut self, name: StreamName, start: Start) {
        self.cursors.insert(name, start);
    }

    /// The stream is no more; should one of its name come, it is sent from its beginning.
    pub(super) fn forget_cursor(&mut self, name: &StreamName) {
        self.cursors.remove(name);
    }

    /// Ends a subscription. Whether there was one. What is on its way still arrives.
    pub(super) fn unsubscribe(&mut self, filter: &Filter) -> bool {
        let existed = self.subscriptions.remove(filter);
        if existed {
            let subscriptions = &self.subscriptions;
            self.cursors.retain(|name, _| !filter.matches(name) || subscriptions.wanted(name).is_some());
        }
        existed
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::RetainHandling;
    use super::*;
    use crate::stream::Quality;

    #[test]
    fn a_cursor_lives_as_long_as_some_subscription_matches_its_stream() {
        let mut session = Session::new("c".into());
        let options = SubscriptionOptions {
            quality: Quality::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
            identifier: None,
        };
        let [all, one] = ["a/+", "a/b"].map(|filter| Filter::parse(filter).unwrap());
        let [b, c] = ["a/b", "a/c"].map(|name| StreamName::parse(name).unwrap());
        session.subscriptions.put(all.clone(), options);
        session.subscriptions.put(one, options);
        session.set_cursor(b.clone(), Start::Tail);
        session.set_cursor(c.clone(), Start::Tail);
        assert!(session.unsubscribe(&all));
        assert!(!session.unsubscribe(&all));
        assert!(session.has_cursor(&b));
        assert_eq!(session.cursor(&c), Start::Earliest);
    }
}
