//! Single messages, their annotations, and the retained message.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pollgate::stream::{
    Annotation, Append, AppendError, ChangeError, Create, Gap, GapReason, Message, MessageLimit, Messages,
    Missing, Offset, Payload, Position, QoS, ReadError, ReadLimit, Retention, Start,
};

use super::world::*;

pub const NO_LIMIT: MessageLimit = MessageLimit { bytes_max: usize::MAX, count_max: usize::MAX };

fn said(publisher: &str, retain: bool, expires_at: Option<SystemTime>) -> Option<Arc<Annotation>> {
    Some(Arc::new(Annotation {
        publisher: publisher.into(),
        qos: QoS::AtLeastOnce,
        retain,
        expires_at,
        is_text: true,
        content_type: Some("text/plain".into()),
        response_topic: None,
        correlation: Some(Bytes::from_static(b"\0")),
        user_properties: vec![("a".into(), "b".into())],
    }))
}

/// Returns an append with an annotation.
pub fn annotated(payload: Payload, publisher: &str, retain: bool) -> Append {
    Append { annotation: said(publisher, retain, None), ..append(json(), payload) }
}

fn binary(bytes: &'static [u8], publisher: &str) -> Append {
    let octets = pollgate::stream::ContentType::octet_stream();
    Append { annotation: said(publisher, false, None), ..append(octets, raw(bytes)) }
}

/// Formats the messages as `content publisher`.
fn texts(messages: &Messages) -> Vec<String> {
    messages.messages.iter().map(text_of).collect()
}

fn text_of(message: &Message) -> String {
    let publisher = message.annotation.as_ref().map_or("nobody", |annotation| &annotation.publisher);
    format!("{} {publisher}", String::from_utf8(message.bytes.to_vec()).unwrap())
}

impl World {
    pub async fn messages(
        &self,
        stream: &str,
        start: Start,
        limit: MessageLimit,
    ) -> Result<Messages, ReadError> {
        self.store.messages(&name(stream), start, limit, self.now).await
    }

    pub async fn retained(&self, stream: &str) -> Option<String> {
        let retained = self.store.retained(&name(stream), self.now).await.unwrap();
        retained.as_ref().map(text_of)
    }
}

pub async fn messages_are_read_one_by_one_with_their_annotations(make: MakeStore<'_>) {
    let mut world = World::new(make);
    let mut offsets = vec![world.open("s").await.tail];
    for n in 0..300 {
        world.later(1);
        let values = numbers([3 * n, 3 * n + 1, 3 * n + 2]);
        let append = if n % 2 == 0 { annotated(values, "ada", false) } else { append(json(), values) };
        world.append("s", append).await.unwrap();
    }
    let all = world.messages("s", Start::Earliest, NO_LIMIT).await.unwrap();
    let expected: Vec<_> =
        (0..900).map(|n| format!("{n} {}", if n / 3 % 2 == 0 { "ada" } else { "nobody" })).collect();
    assert_eq!(texts(&all), expected);
    for (index, message) in all.messages.iter().enumerate() {
        assert_eq!(message.start, *offsets.last().unwrap());
        assert_eq!(message.next.position, Position(index as u64 + 1));
        assert_eq!(message.at, world.now - Duration::from_secs(299 - index as u64 / 3));
        offsets.push(message.next);
    }
    let said = all.messages[0].annotation.as_ref().unwrap();
    assert_eq!(Some(said.clone()), self::said("ada", false, None));
    for (index, offset) in offsets.iter().enumerate() {
        let rest = world.messages("s", Start::At(*offset), NO_LIMIT).await.unwrap();
        assert_eq!(texts(&rest), expected[index..]);
        assert_eq!((rest.next, rest.tail, rest.up_to_date), (offsets[900], Position(900), true));
    }
}

pub async fn a_read_of_messages_stops_at_its_limits_but_returns_at_least_one(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    world.append("s", append(json(), numbers([10, 11, 12]))).await.unwrap();
    world.append("s", append(json(), numbers([13, 14]))).await.unwrap();
    for (bytes_max, count_max, expected) in
        [(0, 9, 1), (1, 9, 1), (2, 9, 1), (4, 9, 2), (7, 9, 3), (8, 9, 4), (99, 9, 5), (99, 4, 4), (99, 0, 1)]
    {
        let limit = MessageLimit { bytes_max, count_max };
        let some = world.messages("s", Start::Earliest, limit).await.unwrap();
        assert_eq!(some.messages.len(), expected, "{limit:?}");
        assert_eq!((some.next.position.0, some.tail), (expected as u64, Position(5)));
        assert_eq!(some.up_to_date, expected == 5);
        let rest = world.messages("s", Start::At(some.next), NO_LIMIT).await.unwrap();
        assert_eq!(
            [texts(&some), texts(&rest)].concat(),
            ["10", "11", "12", "13", "14"].map(|n| format!("{n} nobody"))
        );
    }
}

pub async fn an_append_of_bytes_is_one_message_from_any_offset(make: MakeStore<'_>) {
    let world = World::new(make);
    let octets = pollgate::stream::ContentType::octet_stream();
    let start = world.create("s", Create::open(octets)).await.unwrap().tail;
    world.append("s", binary(b"one,", "ada")).await.unwrap();
    world.append("s", binary(b"x", "bob")).await.unwrap();
    world.append("s", binary(b"three", "eve")).await.unwrap();
    for (position, expected) in [
        (0, vec!["one, ada", "x bob", "three eve"]),
        (1, vec!["ne, ada", "x bob", "three eve"]),
        (3, vec![", ada", "x bob", "three eve"]),
        (4, vec!["x bob", "three eve"]),
        (5, vec!["three eve"]),
        (9, vec!["e eve"]),
        (10, vec![]),
    ] {
        let from = Offset { position: Position(position), ..start };
        let messages = world.messages("s", Start::At(from), NO_LIMIT).await.unwrap();
        assert_eq!(texts(&messages), expected);
        assert!(messages.messages.first().is_none_or(|first| first.start == from));
        assert_eq!(messages.next.position, Position(10));
    }
}

pub async fn reads_of_messages_end_and_fail_like_other_reads(make: MakeStore<'_>) {
    let world = World::new(make);
    let retention = Some(Retention { messages_max: Some(2), ..Retention::default() });
    let start = world.create("s", Create { retention, ..Create::open(json()) }).await.unwrap().tail;
    let tail = world.push("s", 0..3).await;
    let behind = Start::At(Offset { position: Position(4), ..tail });
    assert_eq!(world.messages("s", behind, NO_LIMIT).await.unwrap_err(), ReadError::BehindTail);
    let earliest = Offset { position: Position(1), ..tail };
    let gap = ReadError::Gap(Gap { reason: GapReason::Trimmed { missed: 1 }, earliest });
    assert_eq!(world.messages("s", Start::At(start), NO_LIMIT).await.unwrap_err(), gap);
    let open = world.messages("s", Start::Tail, NO_LIMIT).await.unwrap();
    assert!(open.messages.is_empty() && open.up_to_date && !open.closed);
    world.append("s", Append { close: true, ..append(json(), numbers([3])) }).await.unwrap();
    let one = MessageLimit { count_max: 1, ..NO_LIMIT };
    let first = world.messages("s", Start::Earliest, one).await.unwrap();
    assert!(!first.closed && !first.up_to_date);
    let last = world.messages("s", Start::At(first.next), one).await.unwrap();
    assert_eq!((texts(&last), last.closed, last.up_to_date), (vec!["3 nobody".into()], true, true));
    let missing = world.messages("none", Start::Earliest, NO_LIMIT).await.unwrap_err();
    assert_eq!(missing, ReadError::Missing(Missing::NotFound));
}

pub async fn the_retained_message_outlives_its_log_until_it_is_cleared(make: MakeStore<'_>) {
    let world = World::new(make);
    let retention = Some(Retention { messages_max: Some(1), ..Retention::default() });
    world.create("s", Create { retention, ..Create::open(json()) }).await.unwrap();
    assert_eq!(world.retained("s").await, None);
    world.append("s", annotated(numbers([1, 2, 3]), "ada", true)).await.unwrap();
    let found = world.messages("s", Start::Earliest, NO_LIMIT).await.unwrap().messages;
    let retained = world.store.retained(&name("s"), world.now).await.unwrap();
    assert_eq!(found, retained.into_iter().collect::<Vec<_>>());
    world.append("s", annotated(numbers([4]), "bob", false)).await.unwrap();
    world.push("s", [5]).await;
    assert_eq!(world.content("s").await, "5");
    assert_eq!(world.retained("s").await.as_deref(), Some("3 ada"));
    let by = |sequence, value| Append {
        producer: producer(0, sequence),
        ..annotated(numbers([value]), "eve", true)
    };
    world.append("s", by(0, 6)).await.unwrap();
    world.push("s", [7]).await;
    assert_eq!(world.retained("s").await.as_deref(), Some("6 eve"));
    world.store.clear_retained(&name("s"), world.now).await.unwrap();
    assert!(world.append("s", by(0, 6)).await.unwrap().duplicate);
    assert_eq!((world.retained("s").await, world.content("s").await.as_str()), (None, "7"));
    world.append("s", annotated(numbers([8]), "ada", true)).await.unwrap();
    world.store.delete(&name("s"), world.now).await.unwrap();
    let retained = world.store.retained(&name("s"), world.now).await;
    assert_eq!(retained, Err(ReadError::Missing(Missing::NotFound)));
    let cleared = world.store.clear_retained(&name("s"), world.now).await;
    assert_eq!(cleared, Err(ChangeError::Missing(Missing::NotFound)));
    world.open("s").await;
    assert_eq!(world.retained("s").await, None, "a new life begins without one");
}

pub async fn an_empty_message_is_a_message_and_clears_the_retained_one(make: MakeStore<'_>) {
    let world = World::new(make);
    let said = |body: &'static str| {
        let append = Append::of_any_type(body.into(), text(), 8).or_create();
        Append { annotation: said("ada", true, None), ..append }
    };
    // More than a sealed run has.
    for number in 0..100 {
        let appended = world.append("s", said("")).await.unwrap();
        assert_eq!((appended.tail.position, appended.messages, appended.bytes), (Position(number + 1), 1, 0));
    }
    let all = world.messages("s", Start::Earliest, NO_LIMIT).await.unwrap();
    assert_eq!(all.messages.len(), 100);
    let few = MessageLimit { bytes_max: 10, count_max: usize::MAX };
    assert_eq!(world.messages("s", Start::Earliest, few).await.unwrap().messages.len(), 10);
    let read = ReadLimit { bytes_max: 7 };
    let batch = world.store.read(&name("s"), Start::Earliest, read, world.now).await.unwrap();
    assert_eq!((batch.pieces.len(), batch.next.position, batch.is_empty()), (7, Position(7), false));
    world.append("s", said("kept")).await.unwrap();
    assert_eq!(world.retained("s").await.as_deref(), Some("kept ada"));
    world.append("s", said("")).await.unwrap();
    assert_eq!((world.retained("s").await, world.content("s").await.as_str()), (None, "kept"));
    world.create("json", Create::open(json())).await.unwrap();
    assert_eq!(world.append("json", said("")).await, Err(AppendError::Empty));
}

pub async fn a_character_with_empty_messages_between_its_bytes_is_read_whole(make: MakeStore<'_>) {
    let world = World::new(make);
    let append = |body: &'static [u8]| Append::of_any_type(Bytes::from_static(body), text(), 8).or_create();
    for body in [&b"a\xc3"[..], b"", b""] {
        world.append("s", append(body)).await.unwrap();
    }
    let read = async |start| {
        let limit = ReadLimit { bytes_max: 3 };
        world.store.read(&name("s"), start, limit, world.now).await.unwrap()
    };
    let begun = read(Start::Earliest).await;
    assert_eq!((content(&begun).as_str(), begun.next.position), ("a", Position(1)));
    assert!(read(Start::At(begun.next)).await.is_empty(), "the rest is to come");
    world.append("s", append(b"\xa4b")).await.unwrap();
    let rest = read(Start::At(begun.next)).await;
    assert_eq!((content(&rest).as_str(), rest.next.position), ("äb", Position(6)));
    // More of them between the bytes of a character than one read returns do not stop a reader.
    for body in [&b"\xc3"[..], b"", b"", b"", b"", b"\xa4"] {
        world.append("s", append(body)).await.unwrap();
    }
    assert!(read(Start::At(rest.next)).await.next > rest.next);
}

pub async fn a_retained_message_expires(make: MakeStore<'_>) {
    let mut world = World::new(make);
    world.open("s").await;
    let expires_at = Some(world.now + Duration::from_secs(10));
    let append = Append { annotation: said("ada", true, expires_at), ..append(json(), numbers([1])) };
    world.append("s", append).await.unwrap();
    world.later(9);
    assert_eq!(world.retained("s").await.as_deref(), Some("1 ada"));
    world.later(1);
    assert_eq!((world.retained("s").await, world.content("s").await.as_str()), (None, "1"));
}

pub async fn a_fork_shares_what_was_said_but_retains_nothing(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("source").await;
    world.append("source", annotated(numbers([1, 2]), "ada", true)).await.unwrap();
    world.create("fork", fork_of("source", Some(Offset::ZERO), 1)).await.unwrap();
    let shared = world.messages("fork", Start::Earliest, NO_LIMIT).await.unwrap();
    assert_eq!((texts(&shared), world.retained("fork").await), (vec!["1 ada".into()], None));
    world.create("second", fork_of("source", None, 0)).await.unwrap();
    assert_eq!((world.content("second").await.as_str(), world.retained("second").await), ("1,2", None));
    assert_eq!(world.retained("source").await.as_deref(), Some("2 ada"));
}

pub async fn annotations_do_not_change_a_read(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    world.append("s", annotated(numbers([1]), "ada", true)).await.unwrap();
    let closing = Append { close: true, ..annotated(Payload::default(), "ada", true) };
    world.append("s", closing).await.unwrap();
    let limit = ReadLimit { bytes_max: 99 };
    let batch = world.store.read(&name("s"), Start::Earliest, limit, world.now).await.unwrap();
    assert_eq!((content(&batch).as_str(), batch.messages, batch.closed), ("1", 1, true));
    assert_eq!(
        world.retained("s").await.as_deref(),
        Some("1 ada"),
        "an append without content retains nothing"
    );
}
