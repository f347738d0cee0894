//! Tests of the table of streams: the work of one sweep and what it returns, and when the table is shrunk.

use std::time::Duration;

use bytes::Bytes;

use super::expiry::{SWEEP_ENDED_MAX, TABLE_MIN};
use super::*;
use crate::store::entry::DecidedAppend;
use crate::store::log::{Log, Record};
use crate::stream::{ContentType, EpochHistory, Lifetime, Retention};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const SOON: Duration = Duration::from_secs(10);

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

fn streams() -> Streams<Bytes> {
    Streams::new(Budget::unlimited())
}

impl Streams<Bytes> {
    /// Adds a stream that `prepare` may change.
    fn add(&self, stream: &str, create: &Create, prepare: impl FnOnce(&mut Entry<Bytes>)) {
        let owner = self.budget.owner(Principal::GATEWAY);
        let history = EpochHistory::new(Epoch(self.len() as u64 + 1));
        let mut entry = Entry::new(&name(stream), create, history, Log::default(), &owner, NOW);
        prepare(&mut entry);
        self.insert(&mut self.structure(), entry, NOW);
    }

    /// Adds `count` streams of this lifetime.
    fn add_many(&self, prefix: &str, count: usize, lifetime: Lifetime) {
        let create = Create { lifetime: Some(lifetime), ..Create::open(text()) };
        for number in 0..count {
            self.add(&format!("{prefix}{number}"), &create, |_| {});
        }
    }
}

#[test]
fn a_sweep_ends_a_limited_number_of_streams_and_the_next_one_goes_on() {
    let streams = streams();
    streams.add_many("idle", SWEEP_ENDED_MAX + 300, Lifetime::Idle(SOON));
    streams.add_many("until", SWEEP_ENDED_MAX + 300, Lifetime::Until(NOW + SOON));
    streams.add_many("forever", SWEEP_ENDED_MAX, Lifetime::Unlimited);
    assert!(streams.sweep(NOW).is_empty());
    let ended = || streams.sweep(NOW + SOON).len();
    assert_eq!([ended(), ended(), ended(), ended()], [SWEEP_ENDED_MAX, SWEEP_ENDED_MAX, 600, 0]);
    assert_eq!(streams.len(), SWEEP_ENDED_MAX);
}

/// The sweep visits such a stream each time, and counts it against the limit of streams that it ends.
#[test]
fn a_stream_with_a_change_underway_ends_after_the_change() {
    let streams = streams();
    let until = Lifetime::Until(NOW + SOON);
    let create = Create { lifetime: Some(until), ..Create::open(text()) };
    streams.add("a change", &create, |entry| entry.underway = 1);
    streams.add_many("until", SWEEP_ENDED_MAX, until);
    let ended = || streams.sweep(NOW + SOON);
    assert_eq!([ended().len(), ended().len(), ended().len()], [SWEEP_ENDED_MAX - 1, 1, 0]);
    streams.find(&name("a change")).unwrap().lock().underway = 0;
    assert_eq!(ended(), [name("a change")]);
}

#[test]
fn streams_without_an_end_do_not_delay_the_end_of_another_one() {
    let streams = streams();
    streams.add_many("forever", SWEEP_ENDED_MAX + 1, Lifetime::Unlimited);
    streams.add_many("until", 1, Lifetime::Until(NOW + SOON));
    assert_eq!(streams.sweep(NOW + SOON), [name("until0")]);
}

/// A message of exactly the age that the retention allows is kept, although its stream is due.
#[test]
fn a_stream_that_is_due_and_keeps_its_message_does_not_delay_the_end_of_another_one() {
    let streams = streams();
    let retention = Some(Retention { age_max: Some(SOON), ..Retention::default() });
    streams.add("a message", &Create { retention, ..Create::open(text()) }, |entry| {
        let record = Some(Record::of(Payload::raw("x".into()), None, NOW));
        let principal = Principal::GATEWAY;
        entry.finish(DecidedAppend { record, annotation: None, close: false, principal }, NOW);
    });
    streams.add_many("idle", 1, Lifetime::Idle(SOON));
    assert_eq!(streams.sweep(NOW + SOON), [name("idle0")]);
    let messages_kept = || streams.find(&name("a message")).unwrap().lock().log.messages_kept();
    assert_eq!(messages_kept(), 1);
    assert!(streams.sweep(NOW + SOON + Duration::from_secs(1)).is_empty());
    assert_eq!(messages_kept(), 0, "the sweep has removed the message");
}

#[test]
fn the_epochs_of_streams_that_end_by_themselves_are_returned_once() {
    let streams = streams();
    streams.add_many("idle", 2, Lifetime::Idle(SOON));
    streams.add_many("until", 1, Lifetime::Until(NOW + SOON));
    streams.add_many("deleted", 1, Lifetime::Idle(SOON));
    assert_eq!(streams.remove(&mut streams.structure(), &name("deleted0")), [Epoch(4)]);
    assert_eq!(streams.take_ended_ids(), []);
    streams.end(&name("idle1"), NOW + SOON);
    streams.sweep(NOW + SOON);
    assert_eq!(streams.take_ended_ids(), [2, 3, 1].map(Epoch));
    assert_eq!(streams.take_ended_ids(), []);
}

#[test]
fn a_table_from_which_most_streams_are_removed_is_shrunk() {
    let streams = streams();
    streams.add_many("forever", TABLE_MIN + 2, Lifetime::Unlimited);
    let remove = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            streams.remove(&mut streams.structure(), &name(&format!("forever{number}")));
        }
        streams.sweep(NOW);
        streams.structure().removed
    };
    assert_eq!(remove(0..1), 1, "most are there");
    assert_eq!(
        remove(1..TABLE_MIN + 1),
        TABLE_MIN + 1,
        "there are not more than this and the one that is left"
    );
    assert!(streams.table.capacity() > TABLE_MIN);
    assert_eq!(remove(TABLE_MIN + 1..TABLE_MIN + 2), 0);
    assert!(streams.table.capacity() < TABLE_MIN);
}

#[test]
fn an_append_of_any_type_is_split_by_the_type_of_the_stream_that_it_will_be_in() {
    let streams = streams();
    let json = || ContentType::parse("application/json").unwrap();
    for (stream, state) in [("live", State::Live), ("begun", State::Begun), ("deleted", State::Deleted)] {
        streams.add(stream, &Create::open(json()), |entry| entry.state = state);
    }
    let split = |stream: &str, mut append: Append| {
        streams.split_ahead(&name(stream), &mut append).map(|()| append.payload.messages())
    };
    let any = || Append::of_any_type("[1, 2]".into(), text(), 8);
    assert_eq!(split("live", any()), Ok(2));
    assert_eq!(split("begun", any()), Ok(2), "the creation is decided");
    assert_eq!(split("deleted", any()), Err(Missing::Deleted.into()));
    assert_eq!(split("none", any()), Err(Missing::NotFound.into()));
    assert_eq!(split("none", any().or_create()), Ok(1), "it creates a stream of text");
    let declared = Append::of(text(), Payload::raw("x".into()));
    assert_eq!(split("deleted", declared), Ok(1), "its messages are split already");
}

#[test]
fn epochs_rise_and_are_known_before_they_are_assigned() {
    for epochs in [Epochs::random(), Epochs::after(Epoch(7))] {
        let first = epochs.peek();
        assert!(first > Epoch(7));
        assert_eq!([epochs.next(), epochs.peek(), epochs.next()], [0, 1, 1].map(|n| Epoch(first.0 + n)));
    }
}
