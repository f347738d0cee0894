//! Which subscriptions are due, and from which offsets.

use std::time::Duration;

use super::*;
use crate::stream::{Epoch, Position};

fn at(position: u64) -> Offset {
    Offset { epoch: Epoch(1), position: Position(position) }
}

fn key(stream: &str, jid: &str) -> SubscriptionKey {
    SubscriptionKey { stream: StreamName::parse(stream).unwrap(), jid: Jid::parse(jid).unwrap() }
}

fn table(keys: &[&SubscriptionKey]) -> JidTable {
    let limits = Limits { xmpp_subscriptions_per_jid_max: 2, xmpp_subscriptions_max: 3, ..Limits::default() };
    let mut table = JidTable::new(Budget::unlimited(), Arc::new(limits), Principal::GATEWAY);
    for key in keys {
        table.insert(key, &Arc::new(Grants::everything()), at(0)).unwrap();
    }
    table
}

/// Sends up to `offset` for the next due subscription.
fn send(table: &mut JidTable, offset: u64) -> DueSubscription {
    let due = table.take_due().unwrap();
    table.sent(&due, at(offset));
    due
}

#[test]
fn a_subscription_is_due_once_however_often_its_stream_changes() {
    let (one, other) = (key("a", "x@y"), key("a", "z@y"));
    let mut table = table(&[&one, &other, &key("b", "x@y")]);
    table.stream_changed(&one.stream);
    table.stream_changed(&one.stream);
    assert_eq!([table.take_due(), table.take_due()].map(|due| due.unwrap().key), [one, other]);
    assert!(table.take_due().is_none());
}

#[test]
fn what_is_not_confirmed_is_sent_again_over_the_next_link() {
    let one = key("a", "x@y");
    let mut table = table(&[&one]);
    table.begin_link();
    send(&mut table, 3);
    let at_barrier = table.unconfirmed();
    table.make_due(&one);
    send(&mut table, 5);
    table.confirm(at_barrier);
    table.begin_link();
    assert_eq!(table.take_due().unwrap().offset, at(3));
    assert_eq!(table.stored_state(&one), Some((at(3), false)));
    assert_eq!(table.take_unsaved(9), [(one.jid.clone(), vec![one])]);
}

#[test]
fn a_log_that_has_lost_what_was_confirmed_is_confirmed_again() {
    let one = key("a", "x@y");
    let mut table = table(&[&one]);
    for offset in [9, 3] {
        table.make_due(&one);
        send(&mut table, offset);
        let at_barrier = table.unconfirmed();
        table.confirm(at_barrier);
    }
    assert_eq!(table.unconfirmed_len(), 0);
    table.begin_link();
    assert_eq!(table.take_due().unwrap().offset, at(3));
}

#[test]
fn what_is_returned_waits_for_its_address() {
    let one = key("a", "x@y");
    let mut table = table(&[&one]);
    table.stream_changed(&one.stream);
    send(&mut table, 3);
    let at_barrier = table.unconfirmed();
    assert!(table.returned(&one, at(1)) && !table.returned(&one, at(2)));
    table.confirm(at_barrier);
    table.stream_changed(&one.stream);
    assert!(table.take_due().is_none());
    table.presence(&Jid::parse("x@y/phone").unwrap(), true);
    assert_eq!(table.take_due().unwrap().offset, at(1));
    assert!(!table.returned(&one, at(0)), "it is confirmed");
}

#[test]
fn a_message_that_is_returned_while_others_are_read_stops_these() {
    let one = key("a", "x@y");
    let mut table = table(&[&one]);
    table.stream_changed(&one.stream);
    send(&mut table, 3);
    table.make_due(&one);
    let due = table.take_due().unwrap();
    table.returned(&one, at(0));
    table.presence(&one.jid, true);
    table.sent(&due, at(9));
    assert_eq!(table.take_due().unwrap().offset, at(0));
}

#[test]
fn presence_of_one_resource_keeps_the_others_waiting() {
    let (bare, full) = (key("a", "x@y"), key("b", "x@y/phone"));
    let mut table = table(&[&bare, &full]);
    let [phone, desk] = ["x@y/phone", "x@y/desk"].map(|text| Jid::parse(text).unwrap());
    let due = |table: &mut JidTable| {
        table.all_are_due();
        let keys: BTreeSet<_> = std::iter::from_fn(|| table.take_due()).map(|due| due.key).collect();
        Vec::from_iter(keys)
    };
    table.presence(&phone, true);
    table.presence(&desk, true);
    table.presence(&phone, false);
    assert_eq!(due(&mut table), std::slice::from_ref(&bare));
    table.presence(&desk, false);
    assert_eq!(due(&mut table), []);
    table.presence(&desk, true);
    assert_eq!(due(&mut table), std::slice::from_ref(&bare));
    table.presence(&phone, true);
    assert_eq!(due(&mut table), [bare, full]);
}

#[test]
fn limits_hold_for_an_address_and_for_all() {
    let mut table = table(&[&key("a", "x@y/1"), &key("b", "x@y/2")]);
    let grants = Arc::new(Grants::everything());
    assert_eq!(table.insert(&key("c", "x@y"), &grants, at(0)), Err(NoSubscriptionRoom::Limit));
    assert_eq!(table.insert(&key("c", "z@y"), &grants, at(0)), Ok(()));
    assert_eq!(table.insert(&key("c", "w@y"), &grants, at(0)), Err(NoSubscriptionRoom::Limit));
    assert!(table.remove(&key("a", "x@y/1")) && !table.remove(&key("a", "x@y/1")));
    assert_eq!(table.insert(&key("c", "x@y"), &grants, at(0)), Ok(()));
    assert_eq!(table.of(&Jid::parse("x@y").unwrap()), [key("b", "x@y/2"), key("c", "x@y")]);
}

#[test]
fn a_stream_that_cannot_be_read_is_due_again_at_the_time_of_the_first_failure() {
    let (one, other) = (key("a", "x@y"), key("b", "x@y"));
    let mut table = table(&[&one, &other]);
    let at = |seconds| Instant::now() + Duration::from_secs(seconds);
    let (first, second) = (at(1), at(2));
    table.failed(one.clone(), first);
    table.failed(other.clone(), second);
    assert_eq!((table.retry_at(), table.has_due()), (Some(first), false));
    assert!(table.remove(&other));
    table.retry_failed();
    assert_eq!((table.retry_at(), table.take_due().unwrap().key), (None, one));
    assert!(!table.has_due());
}

#[test]
fn a_subscription_that_is_gone_is_not_due() {
    let one = key("a", "x@y");
    let mut table = table(&[&one]);
    for _ in 0..3 {
        table.stream_changed(&one.stream);
        assert_eq!(table.due_len(), 1);
        table.remove(&one);
        assert_eq!(table.due_len(), 0);
        table.insert(&one, &Arc::new(Grants::everything()), at(0)).unwrap();
    }
    table.stream_changed(&one.stream);
    table.presence(&one.jid, false);
    assert_eq!(table.due_len(), 0, "it is suspended");
}
