//! Tests of what a stream and an append take of the memory budget, to the byte, and of when the sweep visits a stream.

use bytes::Bytes;

use super::*;
use crate::budget::{Bounds, Budget};
use crate::stream::{Failure, QoS, Shortage};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

/// A stream that `owner` creates.
fn stream(owner: &Arc<Owner>, create: &Create) -> Entry<Bytes> {
    let name = StreamName::parse("stream").unwrap();
    Entry::new(&name, create, EpochHistory::new(Epoch(1)), Log::default(), owner, NOW)
}

fn stream_of_gateway(create: &Create) -> Entry<Bytes> {
    stream(&Budget::unlimited().owner(Principal::GATEWAY), create)
}

#[test]
fn a_stream_takes_its_entry_its_place_and_its_texts_and_a_fork_its_ancestors() {
    let entry = allocated_bytes(size_of::<Mutex<Entry<Bytes>>>() + 16);
    // Each text has two reference counts, which take 16 bytes. An ancestor takes 16 bytes.
    let (name, place) = ("n".repeat(100), 64);
    assert_eq!(own_bytes::<Bytes>(&name, "text/plain", 0), entry + place + 128 + 32);
    assert_eq!(own_bytes::<Bytes>("n", "text/plain", 0), entry + place + 32 + 32);
    assert_eq!(own_bytes::<Bytes>("n", &"t".repeat(60), 3), entry + place + 32 + 80 + 48);
}

/// Appends to a stream that the principal of the append has created. Its share of the budget is `share` bytes.
fn append_within(share: u64, append: &Append) -> Result<Admission, AppendError> {
    let bounds = Bounds { memory_max: 100 * share, streams_max: u64::MAX, share_percent: 1 };
    let ada = Budget::new(bounds).owner(append.principal);
    stream(&ada, &Create::open(append_type(append))).decide(&mut append.clone(), NOW)
}

fn append_type(append: &Append) -> ContentType {
    append.creation().unwrap().content_type
}

#[test]
fn an_append_is_refused_only_if_the_share_of_its_principal_lacks_room_for_all_of_it() {
    let json = ContentType::parse("application/json").unwrap();
    let annotation = Annotation {
        publisher: "ada".into(),
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at: None,
        is_text: false,
        content_type: None,
        response_topic: None,
        correlation: None,
        user_properties: Vec::new(),
    };
    let ada = |append: Append| Append { principal: Principal(7), ..append.or_create() };
    let short = ada(Append::of(text(), Payload::raw("a message".into())));
    // Three values have three ends of four bytes.
    let values = ada(Append::of(json, Payload::json("1,22,333".into(), vec![1, 4, 8])));
    let annotated = Append { annotation: Some(Arc::new(annotation.clone())), ..short.clone() };
    let cases = [(&short, 9), (&values, 8 + 12), (&annotated, 9 + annotation.bytes())];
    for (append, content) in cases {
        let stream = own_bytes::<Bytes>("stream", append_type(append).as_str(), 0);
        let needed = stream + (size_of::<Record<Bytes>>() + content) as u64;
        assert_eq!(append_within(needed, append), Ok(Admission::New), "{content}");
        let refused = Err(AppendError::Failed(Failure::OverBudget(Shortage::Share)));
        assert_eq!(append_within(needed - 1, append), refused, "{content}");
    }
    let closing = Append { principal: Principal(7), ..Append::closing().or_create() };
    assert_eq!(append_within(1, &closing), Ok(Admission::New), "there is always room to close");
}

#[test]
fn a_stream_is_due_when_it_has_been_idle_or_its_oldest_message_is_too_old() {
    let aged = Retention { age_max: Some(seconds(50)), ..Retention::default() };
    let create = |lifetime, retention| Create {
        lifetime: Some(lifetime),
        retention: Some(retention),
        ..Create::open(text())
    };
    let forever = create(Lifetime::Unlimited, Retention::default());
    assert_eq!(stream_of_gateway(&forever).due(NOW), None);
    let until = create(Lifetime::Until(NOW + seconds(9)), Retention::default());
    assert_eq!(stream_of_gateway(&until).due(NOW), None, "an end at a time of day is not included");

    let mut entry = stream_of_gateway(&create(Lifetime::Idle(seconds(60)), aged));
    assert_eq!(entry.due(NOW + seconds(5)), Some(NOW + seconds(55)), "no message is older than now");
    entry.used = NOW + seconds(30);
    assert_eq!(entry.due(NOW + seconds(90)), Some(NOW + seconds(90)));
    let record = Some(Record::of(Payload::raw("x".into()), None, NOW + seconds(30)));
    let append = DecidedAppend { record, annotation: None, close: false, principal: Principal::GATEWAY };
    entry.finish(append, NOW + seconds(30));
    assert_eq!(entry.due(NOW + seconds(70)), Some(NOW + seconds(80)), "the message is the first");
    entry.retention = Retention::default();
    assert_eq!(entry.due(NOW + seconds(200)), Some(NOW + seconds(90)));
    entry.waiters = 1;
    assert_eq!(entry.due(NOW + seconds(50)), Some(NOW + seconds(90)));
    assert_eq!(
        entry.due(NOW + seconds(200)),
        Some(NOW + seconds(201)),
        "it does not end while somebody waits"
    );
}
