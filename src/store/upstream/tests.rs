//! What a mirror answers by itself, and what only the parent can answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::Response;

use super::answer::{ParentPage, page};
use super::kept::MirrorRoom;
use super::mirror::Mirror;
use crate::budget::Budget;
use crate::store::entry::Moment;
use crate::stream::{
    ContentType, Description, Epoch, Lifetime, MessageLimit, Offset, Payload, Position, Principal, ReadLimit,
    Retention, Start,
};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const AT: Moment = Moment { now: NOW, wall: NOW };

fn offset(epoch: u64, position: u64) -> Offset {
    Offset { epoch: Epoch(epoch), position: Position(position) }
}

fn description(content_type: &str, tail: Offset) -> Description {
    Description {
        content_type: ContentType::parse(content_type).unwrap(),
        earliest: tail,
        tail,
        appended_at: None,
        closed: false,
        lifetime: Lifetime::Unlimited,
        retention: Retention::default(),
    }
}

/// A mirror that follows a stream from `tail` on.
fn mirror_of(content_type: &str, tail: Offset, bytes_max: u64) -> (Mirror, Arc<MirrorRoom>) {
    let room = Arc::new(MirrorRoom::new(bytes_max, bytes_max));
    let mirror = Mirror::new(&Budget::unlimited().owner(Principal::GATEWAY), room.clone(), NOW);
    let generation = mirror.ask_tail().unwrap();
    mirror.begin(description(content_type, tail), generation).unwrap();
    (mirror, room)
}

fn push(mirror: &Mirror, text: &str, next: Offset) {
    let payload = Payload::message(Bytes::copy_from_slice(text.as_bytes()));
    mirror.push(payload, next, NOW).unwrap();
}

/// The text that the mirror has from `start` on, with the next offset.
fn read(mirror: &Mirror, start: Start) -> Option<(String, Offset)> {
    let batch = mirror.read(start, ReadLimit { bytes_max: 1000 }, AT)?.into_batch();
    Some((String::from_utf8(batch.pieces.concat()).unwrap(), batch.next))
}

fn response(content_type: &str, next: Offset, lengths: Option<&str>, body: &'static str) -> Response<Bytes> {
    let response = Response::builder().header("content-type", content_type);
    let response =
        response.header("stream-next-offset", next.to_string()).header("stream-up-to-date", "true");
    let response =
        lengths.into_iter().fold(response, |response, lengths| response.header("stream-lengths", lengths));
    response.body(Bytes::from_static(body.as_bytes())).unwrap()
}

fn page_of(start: Start, next: Offset, lengths: &str, body: &'static str) -> ParentPage {
    page(&response("text/plain", next, Some(lengths), body), start).unwrap()
}

#[test]
fn a_mirror_answers_from_its_tail_on_and_from_what_has_arrived() {
    let (mirror, _) = mirror_of("text/plain", offset(7, 10), 1 << 20);
    assert_eq!(read(&mirror, Start::Tail), Some((String::new(), offset(7, 10))));
    push(&mirror, "abc", offset(7, 13));
    push(&mirror, "de", offset(7, 15));
    assert_eq!(read(&mirror, Start::At(offset(7, 10))), Some(("abcde".into(), offset(7, 15))));
    assert_eq!(read(&mirror, Start::At(offset(7, 12))), Some(("cde".into(), offset(7, 15))));
    for unknown in [offset(7, 9), offset(7, 16), offset(6, 12), offset(8, 12)] {
        assert_eq!(read(&mirror, Start::At(unknown)), None, "{unknown}");
    }
    assert_eq!(read(&mirror, Start::Earliest), None);
}

#[test]
fn history_is_kept_up_to_what_has_arrived_and_a_hole_is_for_the_parent() {
    let (mirror, _) = mirror_of("text/plain", offset(7, 10), 1 << 20);
    let start = Start::At(offset(7, 2));
    let late = page_of(start, offset(7, 6), "3,1", "cdef");
    assert!(late.is_exact());
    mirror.keep_page(start, &late, NOW);
    assert_eq!(read(&mirror, start), Some(("cdef".into(), offset(7, 6))));
    assert_eq!(read(&mirror, Start::At(offset(7, 6))), None);
    let rest = page_of(Start::At(offset(7, 6)), offset(7, 10), "4", "ghij");
    mirror.keep_page(Start::At(offset(7, 6)), &rest, NOW);
    assert_eq!(read(&mirror, start), Some(("cdefghij".into(), offset(7, 10))));
    let first = page_of(Start::Earliest, offset(7, 10), "2,3,1,4", "abcdefghij");
    mirror.keep_page(Start::Earliest, &first, NOW);
    assert_eq!(read(&mirror, Start::Earliest), Some(("abcdefghij".into(), offset(7, 10))));
}

#[test]
fn a_restart_of_the_parent_keeps_offsets_and_any_other_epoch_forgets_them() {
    let (mirror, _) = mirror_of("text/plain", offset(7, 10), 1 << 20);
    push(&mirror, "abc", offset(7, 13));
    // The message follows the last one, so the log goes on.
    push(&mirror, "de", offset(9, 15));
    assert_eq!(read(&mirror, Start::At(offset(7, 11))), Some(("bcde".into(), offset(9, 15))));
    assert_eq!(read(&mirror, Start::At(offset(7, 14))), None);
    // This one does not: the log may be another.
    push(&mirror, "x", offset(11, 4));
    assert_eq!(read(&mirror, Start::At(offset(9, 15))), None);
    assert_eq!(read(&mirror, Start::Tail), Some((String::new(), offset(11, 4))));
    // A page of an earlier epoch is kept once the epoch is known to be of this log.
    let start = Start::At(offset(10, 1));
    let page = page_of(start, offset(10, 3), "2", "yz");
    mirror.keep_page(start, &page, NOW);
    assert_eq!(read(&mirror, start), None);
    mirror.learn(offset(10, 3), Epoch(11));
    mirror.keep_page(start, &page, NOW);
    assert_eq!(read(&mirror, start), Some(("yz".into(), offset(10, 3))));
}

#[test]
fn a_tail_that_was_asked_for_before_everything_was_forgotten_does_not_count() {
    let (mirror, _) = mirror_of("text/plain", offset(7, 10), 1 << 20);
    mirror.forget();
    let generation = mirror.ask_tail().unwrap();
    assert_eq!(mirror.ask_tail(), None, "one task asks");
    mirror.forget();
    assert!(mirror.begin(description("text/plain", offset(7, 10)), generation).is_none());
    assert_eq!(read(&mirror, Start::Tail), None);
    let generation = mirror.ask_tail().unwrap();
    assert!(mirror.begin(description("text/plain", offset(3, 1)), generation).is_some());
    assert_eq!(read(&mirror, Start::Tail), Some((String::new(), offset(3, 1))));
}

#[test]
fn mirrors_keep_the_newest_messages_within_their_room_and_free_it() {
    let (mirror, room) = mirror_of("application/octet-stream", offset(7, 0), 2000);
    for end in 1..=100 {
        push(&mirror, "x", offset(7, end));
        assert!(room.bytes() <= 2000, "{}", room.bytes());
    }
    assert_eq!(read(&mirror, Start::At(offset(7, 0))), None);
    assert_eq!(read(&mirror, Start::At(offset(7, 99))), Some(("x".into(), offset(7, 100))));
    drop(mirror);
    assert_eq!(room.bytes(), 0);
}

#[test]
fn what_the_parents_retention_has_trimmed_is_for_the_parent_to_tell() {
    let room = Arc::new(MirrorRoom::new(1 << 20, 1 << 20));
    let mirror = Mirror::new(&Budget::unlimited().owner(Principal::GATEWAY), room, NOW);
    let retention =
        Retention { messages_max: Some(2), age_max: Some(Duration::from_secs(5)), ..Retention::default() };
    let description = Description { retention, ..description("application/json", offset(7, 1)) };
    mirror.begin(description, mirror.ask_tail().unwrap()).unwrap();
    let values = Payload::json("1,2,3".into(), vec![1, 3, 5]);
    mirror.push_own(&values, offset(7, 4), false, NOW);
    assert_eq!(read(&mirror, Start::At(offset(7, 1))), None);
    assert_eq!(read(&mirror, Start::At(offset(7, 2))), Some(("2,3".into(), offset(7, 4))));
    let late = Moment { now: NOW + Duration::from_secs(6), ..AT };
    assert!(mirror.read(Start::At(offset(7, 2)), ReadLimit { bytes_max: 1000 }, late).is_none());
}

#[test]
fn single_messages_are_appends_and_a_text_of_several_is_for_the_parent() {
    let limit = MessageLimit { bytes_max: 1000, count_max: 10 };
    let contents = |mirror: &Mirror, from: u64| {
        let messages = mirror.messages(Start::At(offset(7, from)), limit, NOW)?.into_messages().messages;
        Some(
            messages
                .into_iter()
                .map(|message| String::from_utf8(message.bytes.to_vec()).unwrap())
                .collect::<Vec<_>>(),
        )
    };
    let (binary, _) = mirror_of("application/octet-stream", offset(7, 0), 1 << 20);
    push(&binary, "ab", offset(7, 2));
    push(&binary, "", offset(7, 3));
    push(&binary, "c", offset(7, 4));
    assert_eq!(contents(&binary, 0).unwrap(), ["ab", "", "c"]);
    let (text, _) = mirror_of("text/plain", offset(7, 0), 1 << 20);
    push(&text, "abc", offset(7, 3));
    assert_eq!(contents(&text, 0), None);
    let start = Start::At(offset(7, 0));
    text.keep_page(start, &page_of(start, offset(7, 3), "1,2", "abc"), NOW);
    assert_eq!(contents(&text, 0).unwrap(), ["a", "bc"]);
}

#[test]
fn lengths_that_are_not_those_of_the_body_do_not_count() {
    for (lengths, appends) in
        [("1*2,0,3", 4), ("5", 1), ("4", 1), ("6", 1), ("x", 1), ("0*18446744073709551615,5", 1)]
    {
        let response = response("text/plain", offset(7, 5), Some(lengths), "abcde");
        let page = page(&response, Start::At(offset(7, 0))).unwrap();
        assert_eq!(page.parts.len(), appends, "{lengths}");
    }
    let long: &'static str = Box::leak(format!("[{}1]", "123456789,".repeat(4000)).into_boxed_str());
    let json = page(&response("application/json", offset(7, 4001), None, long), Start::Earliest).unwrap();
    assert_eq!((json.parts.len(), json.from, json.is_exact()), (3, Position(0), true));
}
