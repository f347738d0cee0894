//! [`Subscribers`]: the table of all subscribers, for operators.

use std::cmp::Ordering as Order;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::members::{Marks, Member};
use crate::clock::Clock;
use crate::hub::SubscribedView;
use crate::hub::clients::VISITED_MAX;

/// Maximum number of marks of a subscribed client, about 80 bytes each.
pub(super) const MARKS_MAX: u32 = 4096;

/// The subscribers by client. While a client reconnects there may be two with the same name.
#[derive(Debug, Default)]
pub(in crate::hub) struct Subscribers {
    table: Mutex<SubscriberTable>,
}

#[derive(Debug, Default)]
struct SubscriberTable {
    by_client: BTreeSet<ListedSubscriber>,
    next_number: u64,
}

/// A subscriber in the table, in the order of its client and its number.
#[derive(Debug)]
struct ListedSubscriber(Arc<Member>);

impl Subscribers {
    pub(super) fn enter(&self, client: Arc<str>) -> Arc<Member> {
        let mut table = self.table.lock();
        let member = table.member(client, MARKS_MAX);
        table.by_client.insert(ListedSubscriber(member.clone()));
        member
    }

    /// Creates a subscriber that operators do not see. It has at most one mark for each stream, since it cannot visit all streams
    /// instead.
    pub(in crate::hub) fn unlisted(&self) -> Arc<Member> {
        self.table.lock().member("".into(), u32::MAX)
    }

    pub(super) fn leave(&self, member: &Arc<Member>) {
        self.table.lock().by_client.remove(&ListedSubscriber(member.clone()));
    }

    /// Notes for all listed subscribers that any stream may have changed.
    pub(in crate::hub) fn missed(&self) {
        let members: Vec<_> = self.table.lock().by_client.iter().map(|listed| listed.0.clone()).collect();
        for member in members {
            member.marks.update(Marks::overflow);
        }
    }

    /// Returns the number of listed subscribers.
    pub(in crate::hub) fn count(&self) -> usize {
        self.table.lock().by_client.len()
    }

    /// Lists clients with their subscriptions whose names contain `contains`, in the order of their names. Returns at most `max` clients, and
    /// visits at most [`VISITED_MAX`].
    pub(in crate::hub) fn views(
        &self,
        contains: &str,
        max: usize,
        clock: Clock,
    ) -> Vec<(String, SubscribedView)> {
        let is_found = |listed: &&ListedSubscriber| listed.0.client.contains(contains);
        let members: Vec<_> = self
            .table
            .lock()
            .by_client
            .iter()
            .take(VISITED_MAX)
            .filter(is_found)
            .take(max)
            .map(|listed| listed.0.clone())
            .collect();
        members.iter().map(|member| (member.client.to_string(), member.view(clock))).collect()
    }

    /// Returns the subscriptions of one client; of its newest subscriber if there are several.
    pub(in crate::hub) fn one(&self, client: &str, clock: Clock) -> Option<SubscribedView> {
        // The place behind its last subscriber.
        let last = ListedSubscriber(Arc::new(Member::new(u64::MAX, client.into(), 0)));
        let newest = {
            let table = self.table.lock();
            let before = table.by_client.range(..=last).next_back();
            before.map(|listed| listed.0.clone()).filter(|member| *member.client == *client)
        };
        newest.map(|member| member.view(clock))
    }
}

impl SubscriberTable {
    fn member(&mut self, client: Arc<str>, marks_max: u32) -> Arc<Member> {
        self.next_number += 1;
        Arc::new(Member::new(self.next_number, client, marks_max))
    }
}

impl Ord for ListedSubscriber {
    fn cmp(&self, other: &Self) -> Order {
        (&self.0.client, self.0.number).cmp(&(&other.0.client, other.0.number))
    }
}

impl PartialOrd for ListedSubscriber {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ListedSubscriber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ListedSubscriber {}

impl Member {
    fn view(&self, clock: Clock) -> SubscribedView {
        SubscribedView {
            filters: self.filters.lock().iter().map(ToString::to_string).collect(),
            since: clock.text(self.since),
            delivered: self.delivered.load(Ordering::Relaxed),
        }
    }
}
