//! Unit tests of what values report: to stores that write them down, and to clients in errors.

use std::time::{Duration, SystemTime};

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn producer(id: &str, epoch: u64, sequence: u64) -> Producer {
    Producer { id: id.into(), epoch, sequence }
}

fn append(text: &'static str) -> Append {
    Append::of(ContentType::octet_stream(), Payload::raw(text.into()))
}

#[test]
fn restored_writers_equal_the_written_ones() {
    let mut writers = Writers::default();
    assert!(!writers.is_closed());
    for (producer, sequence) in
        [(Some(producer("p", 3, 0)), Some("b".into())), (None, None), (Some(producer("q", 0, 0)), None)]
    {
        writers.record(&Append { producer, sequence, ..append("x") }, NOW);
    }
    writers.record(&Append { producer: Some(producer("p", 3, 1)), close: true, ..append("x") }, NOW);
    let mut states: Vec<_> = writers.producers().collect();
    states.sort();
    assert_eq!(states, [(&"p".into(), 3, 1, NOW), (&"q".into(), 0, 0, NOW)]);
    assert_eq!((writers.is_closed(), writers.last_sequence()), (true, Some("b")));
    assert_eq!(writers.closed_by(), Some(&producer("p", 3, 1)));

    let closed = writers.is_closed().then(|| writers.closed_by().cloned());
    let known = states.into_iter();
    let known = known.map(|(id, epoch, sequence, seen)| (Producer { id: id.clone(), epoch, sequence }, seen));
    let again = Writers::remembered(known, writers.last_sequence().map(Into::into), closed);
    assert_eq!((again.is_closed(), again.last_sequence()), (true, Some("b")));
    assert_eq!(again.closed_by(), writers.closed_by());
    assert_eq!(again.producers().count(), 2);
    let open = Writers::remembered([], None, None);
    assert_eq!((open.is_closed(), open.last_sequence(), open.closed_by()), (false, None, None));
}

#[test]
fn the_last_sequence_and_the_epoch_of_the_last_append_count() {
    let admit = |writers: &mut Writers, append: &Append| {
        let admitted = writers.admit(append, &ContentType::octet_stream(), 10, NOW);
        if admitted == Ok(Admission::New) {
            writers.record(append, NOW);
        }
        admitted
    };
    let mut writers = Writers::default();
    let in_sequence = |sequence: &str| Append { sequence: Some(sequence.into()), ..append("x") };
    assert_eq!(admit(&mut writers, &in_sequence("b")), Ok(Admission::New));
    assert_eq!(admit(&mut writers, &append("x")), Ok(Admission::New));
    assert_eq!(admit(&mut writers, &in_sequence("a")), Err(AppendRefusal::SequenceRegression));
    let closing = |epoch| Append { close: true, producer: Some(producer("p", epoch, 0)), ..append("") };
    assert_eq!(admit(&mut writers, &closing(1)), Ok(Admission::New));
    assert_eq!(admit(&mut writers, &closing(1)), Ok(Admission::Duplicate { highest: Some(0) }));
    assert_eq!(admit(&mut writers, &closing(2)), Err(AppendRefusal::Closed));
}

#[test]
fn only_a_body_needs_the_content_type_of_the_stream() {
    let mut writers = Writers::default();
    let text = ContentType::parse("text/plain").unwrap();
    let wrong = Append { close: true, ..append("x") };
    assert_eq!(writers.admit(&wrong, &text, 10, NOW), Err(AppendRefusal::ContentType));
    assert_eq!(writers.admit(&Append { close: true, ..append("") }, &text, 10, NOW), Ok(Admission::New));
}

#[test]
fn a_producer_is_forgotten_after_a_week_and_not_before() {
    let check = |producers: &mut Producers, now| producers.check(&producer("p", 2, 5), Principal(1), 10, now);
    let mut producers = Producers::default();
    producers.record(&producer("p", 2, 5), Principal(1), NOW);
    let week = Duration::from_secs(604_800);
    assert_eq!(check(&mut producers, NOW + week - Duration::from_secs(1)), Ok(Some(5)));
    let forgotten = ProducerRefusal::SequenceGap { expected: 0, received: 5 };
    assert_eq!(check(&mut producers, NOW + week), Err(forgotten));
}

#[test]
fn a_message_expires_at_its_moment() {
    let said = |expires_at| Annotation {
        publisher: "p".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at,
        is_text: false,
        content_type: None,
        response_topic: None,
        correlation: None,
        user_properties: Vec::new(),
    };
    let second = Duration::from_secs(1);
    assert!(!said(None).has_expired(NOW + second));
    let expires = said(Some(NOW + second));
    assert_eq!([NOW, NOW + second, NOW + 2 * second].map(|at| expires.has_expired(at)), [false, true, true]);
}

#[test]
fn a_fork_at_the_point_of_an_earlier_one_has_that_point_once() {
    let first = EpochHistory::new(Epoch(1)).fork(Position(10), Epoch(2));
    assert_eq!(first.ancestors(), [(Epoch(1), Position(10))]);
    let second = first.fork(Position(10), Epoch(3));
    assert_eq!(second.ancestors(), [(Epoch(1), Position(10))]);
    let third = first.fork(Position(12), Epoch(3));
    assert_eq!(third.ancestors(), [(Epoch(1), Position(10)), (Epoch(2), Position(12))]);
    assert_eq!(EpochHistory::of(third.ancestors().to_vec(), third.own()), third);
}

#[test]
fn positions_add_and_subtract() {
    assert_eq!(Position(5).after(7), Position(12));
    assert_eq!(Position(u64::MAX - 1).after(7), Position(u64::MAX));
    assert_eq!((Position(12).since(Position(5)), Position(5).since(Position(12))), (7, 0));
}

#[test]
fn a_payload_can_be_rebuilt_from_its_parts() {
    let json = Payload::json("1,22".into(), vec![1, 4]);
    assert_eq!((json.len(), json.is_empty(), &json.bytes()[..]), (4, false, &b"1,22"[..]));
    assert_eq!(
        (json.shape().is_json(), json.shape().is_empty(), json.shape().ends()),
        (true, false, &[1, 4][..])
    );
    let (shape, bytes) = json.clone().into_parts();
    assert_eq!((&bytes, shape.len(), shape.positions()), (json.bytes(), 4, 2));
    assert_eq!(&Shape::json(4, shape.ends().to_vec()), json.shape());
    assert_eq!(Shape::json(4, vec![4]).ends(), [0u32; 0], "one value needs no list");
    let raw = Payload::raw("abc".into());
    assert_eq!((raw.len(), raw.shape().is_json(), raw.shape().ends()), (3, false, &[][..]));
    let nothing = json.until(0);
    assert!(nothing.is_empty() && nothing.shape().is_empty() && !nothing.shape().is_json());
    assert!(raw.until(0).is_empty());
}

#[test]
fn progress_decides_where_a_reader_continues() {
    let offset = Offset { epoch: Epoch(3), position: Position(4) };
    for (progress, start, known) in [
        (Progress::Earliest, Start::Earliest, false),
        (Progress::At(offset), Start::At(offset), true),
        (Progress::Closed(offset), Start::At(offset), true),
        (Progress::Missing, Start::At(Offset::ZERO), true),
    ] {
        assert_eq!((progress.start(), progress.is_known()), (start, known));
    }
}

#[test]
fn filters_report_wildcards_and_content_types_json() {
    for (text, wildcard) in [("a/+", true), ("#", true), ("a/b", false), ("a//b", false)] {
        assert_eq!(Filter::parse(text).unwrap().has_wildcard(), wildcard, "{text}");
    }
    let json = ContentType::parse(" application/json; charset=utf-8 ").unwrap();
    assert_eq!((json.is_json(), json.as_str()), (true, "application/json; charset=utf-8"));
    assert!(!ContentType::octet_stream().is_json());
}

#[test]
fn values_and_reasons_display_as_text() {
    let filter = Filter::parse("a/+").unwrap();
    assert_eq!((format!("{filter}"), format!("{filter:?}")), ("a/+".into(), "\"a/+\"".into()));
    assert_eq!((format!("{}", name("a")), format!("{:?}", name("a"))), ("a".into(), "\"a\"".into()));
    assert_eq!(format!("{:?}", ContentType::octet_stream()), "\"application/octet-stream\"");
    for (reason, words) in [
        (InvalidName::Empty.to_string(), "empty"),
        (InvalidName::TooLong.to_string(), "512 bytes"),
        (InvalidName::ControlCharacter.to_string(), "control characters"),
        (InvalidName::DotSegment.to_string(), "segment"),
        (InvalidFilter::Empty.to_string(), "empty"),
        (InvalidFilter::TooManyLevels.to_string(), "200 levels"),
        (InvalidName::TooManyLevels.to_string(), "200 levels"),
        (InvalidFilter::ControlCharacter.to_string(), "control characters"),
        (InvalidFilter::Wildcard.to_string(), "whole level"),
        (InvalidOffset.to_string(), "Stream-Next-Offset"),
        (InvalidContentType.to_string(), "type/subtype"),
    ] {
        assert!(reason.contains(words), "{reason}");
    }
}
