//! Tests of what a session stores, when it must be stored, and how it is restored.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::*;
use crate::mqtt::codec::{MessageProperties, Reason, RetainHandling, Will};
use crate::stream::{Epoch, Position};

/// The stored entries of one session.
#[derive(Default)]
struct Stored(BTreeMap<Bytes, Bytes>);

impl Stored {
    /// Stores the unsaved changes. Returns the kinds of their keys with `+` for a value and `-` for a
    /// removal, and whether they were due.
    fn save(&mut self, session: &mut Session) -> (Vec<String>, bool) {
        let is_due = session.is_due();
        let change = session.change(None).unwrap();
        session.saved();
        let mut words = Vec::new();
        for (key, value) in change.entries {
            words.push(format!("{}{}", if value.is_some() { '+' } else { '-' }, char::from(key[0])));
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
        words.sort();
        (words, is_due)
    }

    fn entries(&self) -> Vec<(Bytes, Bytes)> {
        // Stores return entries in no particular order.
        self.0.iter().rev().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn restored(&self) -> Session {
        let restored = RestoredSession::new("c".into(), &self.entries());
        assert_eq!(restored.damaged, 0);
        restored.session
    }
}

fn session() -> Session {
    Session::new("c".into(), true)
}

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn id(id: u16) -> PacketId {
    PacketId(NonZeroU16::new(id).unwrap())
}

fn at(position: u64) -> Offset {
    Offset { epoch: Epoch(7), position: Position(position) }
}

fn ack(kind: AckKind, id: PacketId) -> Ack {
    Ack { kind, id, reason: Reason::Success }
}

const OPTIONS: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::ExactlyOnce,
    no_local: true,
    retain_as_published: false,
    retain_handling: RetainHandling::SendIfNew,
    identifier: Some(300),
};

#[test]
fn each_change_stores_its_own_entries_in_time() {
    type Step = fn(&mut Session);
    let steps: [(&str, Step, &[&str], bool); 19] = [
        ("subscribes", |s| _ = s.subscribe(filter("a/+"), OPTIONS), &["+s"], true),
        (
            "two streams are there",
            |s| ["a/b", "a/c"].iter().for_each(|n| s.set_offset(name(n), at(1))),
            &["+c", "+c"],
            false,
        ),
        ("it is to be sent what is retained", |s| s.begin_retained(filter("a/+")), &["+w"], true),
        ("the first is sent", |s| s.pass_retained(&filter("a/+"), name("a/b")), &["+w"], false),
        ("and the last", |s| s.end_retained(&filter("a/+")), &["-w"], false),
        ("qos 1 is sent", |s| _ = s.send(name("a/b"), at(1), QoS::AtLeastOnce, false), &["+f"], false),
        ("and the offset with it", |s| s.set_offset(name("a/b"), at(2)), &["+c"], false),
        ("qos 2 is sent", |s| _ = s.send(name("a/b"), at(2), QoS::ExactlyOnce, false), &["+f"], true),
        ("PUBACK", |s| _ = s.acknowledged(ack(AckKind::Puback, id(1))), &["-f"], false),
        ("PUBREC", |s| _ = s.acknowledged(ack(AckKind::Pubrec, id(2))), &["+f"], true),
        ("PUBCOMP", |s| _ = s.acknowledged(ack(AckKind::Pubcomp, id(2))), &["-f"], false),
        ("PUBCOMP of nothing", |s| _ = s.acknowledged(ack(AckKind::Pubcomp, id(2))), &[], false),
        ("a message is received, and stored with it", |s| s.received(id(9)), &[], false),
        ("and released", |s| _ = s.released(id(9)), &["-q"], true),
        ("and once more", |s| _ = s.released(id(9)), &[], false),
        ("a stream ends", |s| s.forget_offset(&name("a/c")), &["-c"], false),
        ("the offset is as it was", |s| s.set_offset(name("a/b"), at(2)), &[], false),
        ("unsubscribes", |s| _ = s.unsubscribe(&filter("a/+")), &["-s"], true),
        ("and the last stream is over", |s| s.forget_offset(&name("a/b")), &["-c"], false),
    ];
    let (mut session, mut stored) = (session(), Stored::default());
    for (what, step, keys, is_due) in steps {
        step(&mut session);
        assert_eq!(session.has_unsaved(), !keys.is_empty(), "{what}");
        assert_eq!(
            stored.save(&mut session),
            (keys.iter().map(ToString::to_string).collect(), is_due),
            "{what}"
        );
    }
    assert!(stored.0.is_empty(), "no entries are left");
}

#[test]
fn an_entry_that_changes_ten_times_is_stored_once_with_its_last_value() {
    let (mut session, mut stored) = (session(), Stored::default());
    for position in 0..10_000 {
        session.set_offset(name(&format!("s/{position}")), at(1));
    }
    stored.save(&mut session);
    for position in 0..10 {
        session.set_offset(name("s/1"), at(position));
        let sent = session.send(name("s/1"), at(position), QoS::AtLeastOnce, false);
        session.acknowledged(ack(AckKind::Puback, sent)).unwrap();
    }
    let (keys, _) = stored.save(&mut session);
    assert_eq!(keys.iter().filter(|key| *key == "+c").count(), 1);
    assert_eq!(keys.iter().filter(|key| *key == "+f").count(), 0);
    assert_eq!(stored.restored().offset(&name("s/1")), Start::At(at(9)));
    assert!(!session.has_unsaved());
}

#[test]
fn a_refused_change_stays_unsaved() {
    let (mut session, mut stored) = (session(), Stored::default());
    session.subscribe(filter("a"), OPTIONS);
    // The store has not accepted the change.
    assert!(session.change(None).unwrap().anew, "nothing of the session is stored");
    assert!(session.is_due() && session.has_unsaved());
    stored.save(&mut session);
    assert!(!session.change(None).unwrap().anew);
    assert!(!session.is_due() && !session.has_unsaved());
}

#[test]
fn a_session_without_a_store_has_no_changes() {
    let mut session = Session::new("c".into(), false);
    session.subscribe(filter("a"), OPTIONS);
    session.send(name("a"), at(1), QoS::ExactlyOnce, false);
    assert!(!session.is_due() && !session.has_unsaved());
    assert!(session.change(None).is_none() && session.receiving(id(1)).is_none());
}

#[test]
fn a_session_comes_back_as_it_was_stored() {
    let (mut session, mut stored) = (session(), Stored::default());
    session.subscribe(filter("a/+"), OPTIONS);
    session.set_offset(name("a/b"), at(5));
    session.set_offset(name("a/c"), at(0));
    let sent: Vec<_> = [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .map(|qos| session.send(name("a/b"), at(3), qos, true))
        .into();
    session.acknowledged(ack(AckKind::Pubrec, sent[2])).unwrap();
    session.begin_retained(filter("a/+"));
    session.pass_retained(&filter("a/+"), name("a/b"));
    stored.save(&mut session);
    let receiving = session.receiving(id(40_000)).unwrap();
    stored.0.extend(receiving.entries.into_iter().map(|(key, value)| (key, value.unwrap())));

    let mut again = stored.restored();
    assert!(!again.has_unsaved() && again.end().is_some());
    assert_eq!(again.subscriptions().get(&filter("a/+")), Some(&OPTIONS));
    assert_eq!((again.offset(&name("a/b")), again.has_offset(&name("a/c"))), (Start::At(at(5)), true));
    assert!(again.has_received(id(40_000)) && again.received_count() == 1);
    let flights: Vec<_> = std::iter::from_fn(|| again.send_again()).map(|f| (f.id, f.phase, f.qos)).collect();
    let (two, one) = (QoS::ExactlyOnce, QoS::AtLeastOnce);
    let (published, received) = (DeliveryPhase::Published, DeliveryPhase::Received);
    assert_eq!(flights, [(sent[0], published, two), (sent[1], published, one), (sent[2], received, two)]);
    assert_eq!(again.next_retained(), Some((&filter("a/+"), Some(&name("a/b")))));
    assert!(!again.subscriptions().begin_to_want(&name("a/d")), "a stream without an offset has come later");
    // The next id is not one of those in flight.
    assert_eq!(again.send(name("a/b"), at(5), one, false), id(4));
}

fn presence() -> Presence {
    let properties = MessageProperties {
        expiry: Some(Duration::from_secs(9)),
        is_text: true,
        content_type: Some("text/plain".into()),
        response_topic: None,
        correlation: Some(Bytes::from_static(b"\0")),
        user_properties: vec![("a".into(), "b".into())],
    };
    let (topic, payload) = ("gone".into(), Bytes::from_static(b"x"));
    let (qos, delay) = (QoS::AtLeastOnce, Duration::from_secs(3));
    let will = Will { topic, payload, qos, retain: true, properties, delay };
    let moment = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Presence::Away { until: moment(20), will: Some((will, moment(10))) }
}

/// One entry of each kind, as bytes. Earlier formats must stay readable: a new format adds a line here.
const FORMAT_1: &[(&[u8], &[u8])] = &[
    (b"p", b"\x01\x01\x14\x00\x01\x04gone\x01x\x01\x01\x01\x09\x00\x01\x01\x0atext/plain\x00\x01\x01\x00\x01\x01a\x01b\x03\x00\x0a\x00"),
    (b"sa/+", b"\x01\x02\x01\x00\x01\x01\xac\x02"),
    (b"ca/b", b"\x01\x02\x07\x05"),
    (b"f\x00\x02", b"\x01\x02\x02\x03a/b\x07\x03\x02\x00\x01"),
    (b"q\x9c\x40", b"\x01"),
    (b"r\x00\x00\x00\x00\x00\x00\x00\x00", b"\x01\x00\x03a/b\x02\x01\x00\x01\x01\xac\x02\x00"),
    (b"wb/+", b"\x01\x03b/b"),
    (b"sb/+", b"\x01\x02\x01\x00\x01\x01\xac\x02"),
    (b"a", b"\x01\x01\x01\x02\x03\x04\x0a\x00"),
];

fn format_1() -> Vec<(Bytes, Bytes)> {
    FORMAT_1.iter().map(|(key, value)| (Bytes::from_static(key), Bytes::from_static(value))).collect()
}

#[test]
fn entries_of_earlier_versions_are_read() {
    let mut restored = RestoredSession::new("c".into(), &format_1());
    assert_eq!((restored.damaged, restored.presence), (0, Some(presence())));
    let session = &mut restored.session;
    let renewing = session.renewing(&restored.credentials.unwrap()).unwrap();
    assert_eq!(renewing.entries[0].1.as_deref(), FORMAT_1.last().map(|(_, value)| *value));
    assert_eq!(session.subscriptions().get(&filter("a/+")), Some(&OPTIONS));
    assert_eq!(session.offset(&name("a/b")), Start::At(at(5)));
    let flight = session.send_again().unwrap();
    assert_eq!((flight.id, flight.start, flight.phase), (id(2), at(3), DeliveryPhase::Received));
    assert!(session.has_received(id(40_000)));
    // The queue of an earlier version is sent from the start, and is removed from the store.
    assert_eq!(session.next_retained(), Some((&filter("a/+"), None)));
    let change = session.change(None).unwrap();
    let keys: Vec<_> = change.entries.iter().map(|(key, value)| (key[0], value.is_some())).collect();
    assert!(keys.len() == 2 && keys.contains(&(b'r', false)) && keys.contains(&(b'w', true)), "{keys:?}");
    session.end_retained(&filter("a/+"));
    assert_eq!(session.next_retained(), Some((&filter("b/+"), Some(&name("b/b")))));
    // The current version writes the same bytes.
    assert_eq!(presence().entries(None).next().unwrap().1, Some(format_1()[0].1.clone()));
}

#[test]
fn entries_that_cannot_be_read_are_skipped() {
    for (at, (key, value)) in format_1().into_iter().enumerate() {
        let mut damages = vec![(key.clone(), Bytes::new()), (Bytes::new(), value.clone())];
        damages.push((key.slice(..1), Bytes::from_static(b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")));
        damages.push((key.clone(), Bytes::from([b"\x02", &value[1..]].concat())));
        damages.extend((1..value.len()).map(|length| (key.clone(), value.slice(..length))));
        for damage in damages {
            let mut entries = format_1();
            entries[at] = damage.clone();
            let restored = RestoredSession::new("c".into(), &entries);
            assert_eq!(restored.damaged, 1, "{damage:?}");
        }
    }
}

#[test]
fn an_offset_is_kept_as_long_as_a_subscription_matches_its_stream() {
    let mut session = session();
    let all = filter("a/+");
    session.subscribe(all.clone(), OPTIONS);
    session.subscribe(filter("a/b"), OPTIONS);
    assert!(session.unsubscribe(&all));
    assert!(!session.unsubscribe(&all));
    let ended = [(all, ())].into_iter().collect();
    let is_over = ["a/b", "a/c", "b/c"].map(|stream| session.is_over(&name(stream), &ended));
    assert_eq!(is_over, [false, true, false]);
}

#[test]
fn many_offsets_are_stored_in_parts_before_their_subscription() {
    let (mut session, mut stored) = (session(), Stored::default());
    session.subscribe(filter("a"), OPTIONS);
    stored.save(&mut session);
    session.subscribe(filter("s/+"), OPTIONS);
    (0..2500).for_each(|stream| session.set_offset(name(&format!("s/{stream}")), at(1)));
    let refused = session.take_offsets_change().unwrap();
    session.put_offsets_back(&refused);
    let mut parts = Vec::new();
    while let Some(change) = session.take_offsets_change() {
        assert!(change.entries.iter().all(|(key, value)| key[0] == b'c' && value.is_some()));
        parts.push(change.entries.len());
    }
    assert_eq!(parts, [1000, 1000]);
    let (keys, is_due) = stored.save(&mut session);
    assert_eq!((keys.len(), is_due), (501, true));
}

#[test]
fn the_memory_of_a_session_follows_its_contents() {
    let mut session = Session::new("c".into(), false);
    let empty = session.bytes();
    session.subscribe(filter("a/+/#"), OPTIONS);
    session.set_offset(name("a/b"), at(1));
    let used = session.bytes();
    assert!(used > empty + 500, "{used}");
    session.unsubscribe(&filter("a/+/#"));
    session.forget_offset(&name("a/b"));
    assert_eq!(session.bytes(), empty);
}

#[test]
fn an_offset_is_not_stored_before_the_message_in_flight_that_lies_before_it() {
    let (mut session, mut stored) = (session(), Stored::default());
    session.subscribe(filter("#"), OPTIONS);
    stored.save(&mut session);
    // More changes than one may have.
    for position in 0..1500 {
        let id = session.send(name("busy"), at(position), QoS::AtLeastOnce, false);
        session.acknowledged(ack(AckKind::Puback, id)).unwrap();
    }
    session.send(name("busy"), at(1500), QoS::AtLeastOnce, false);
    session.set_offset(name("busy"), at(1501));
    session.set_offset(name("quiet"), at(1));
    let mut alone = Vec::new();
    while let Some(change) = session.take_offsets_change() {
        alone.extend(change.entries.into_iter().map(|(key, _)| key));
    }
    assert_eq!(alone, [SessionKey::Offset(name("quiet")).to_bytes()]);
    stored.save(&mut session);
    let mut restored = stored.restored();
    assert_eq!(restored.offset(&name("busy")), Start::At(at(1501)));
    assert_eq!(restored.send_again().unwrap().start, at(1500));
}
