//! What a mirror answers by itself, and what only the parent can answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::access::UpstreamAccess;
use super::answer::{ParentPage, page};
use super::kept::MirrorRoom;
use super::mirror::Mirror;
use super::parent::Parent;
use super::shared::UpstreamShared;
use crate::budget::Budget;
use crate::http_client::{Destination, Trust};
use crate::metrics::Metrics;
use crate::store::entry::Moment;
use crate::stream::{
    ContentType, Description, Epoch, Lifetime, MessageLimit, Offset, Payload, Position, Principal, ReadLimit,
    Retention, Start, StreamName,
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
        has_origin: false,
    }
}

/// A mirror that follows a stream from `tail` on.
fn mirror_of(content_type: &str, tail: Offset, bytes_max: u64) -> (Mirror, Arc<MirrorRoom>) {
    let room = Arc::new(MirrorRoom::new(bytes_max, bytes_max));
    let mirror = Mirror::new(&Budget::unlimited().owner(Principal::GATEWAY), room.clone());
    let generation = mirror.ask_tail().unwrap();
    mirror.begin(description(content_type, tail), generation).unwrap();
    (mirror, room)
}

/// A mirror that follows a stream with this retention and lifetime.
fn mirror_of_description(description: Description) -> Mirror {
    let room = Arc::new(MirrorRoom::new(1 << 20, 1 << 20));
    let mirror = Mirror::new(&Budget::unlimited().owner(Principal::GATEWAY), room);
    mirror.begin(description, mirror.ask_tail().unwrap()).unwrap();
    mirror
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
    page(&response("text/plain", next, Some(lengths), body), start, NOW).unwrap()
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
    mirror.keep_page(start, &late);
    assert_eq!(read(&mirror, start), Some(("cdef".into(), offset(7, 6))));
    assert_eq!(read(&mirror, Start::At(offset(7, 6))), None);
    let rest = page_of(Start::At(offset(7, 6)), offset(7, 10), "4", "ghij");
    mirror.keep_page(Start::At(offset(7, 6)), &rest);
    assert_eq!(read(&mirror, start), Some(("cdefghij".into(), offset(7, 10))));
    let first = page_of(Start::Earliest, offset(7, 10), "2,3,1,4", "abcdefghij");
    mirror.keep_page(Start::Earliest, &first);
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
    mirror.keep_page(start, &page);
    assert_eq!(read(&mirror, start), None);
    mirror.learn(offset(10, 3), Epoch(11));
    mirror.keep_page(start, &page);
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
    let retention =
        Retention { messages_max: Some(2), age_max: Some(Duration::from_secs(5)), ..Retention::default() };
    let mirror =
        mirror_of_description(Description { retention, ..description("application/json", offset(7, 1)) });
    let values = Payload::json("1,2,3".into(), vec![1, 3, 5]);
    mirror.push_own(&values, offset(7, 4), false, NOW);
    assert_eq!(read(&mirror, Start::At(offset(7, 1))), None);
    assert_eq!(read(&mirror, Start::At(offset(7, 2))), Some(("2,3".into(), offset(7, 4))));
    let late = Moment { now: NOW + Duration::from_secs(6), ..AT };
    assert!(mirror.read(Start::At(offset(7, 2)), ReadLimit { bytes_max: 1000 }, late).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_retention_may_have_trimmed_unseen_is_for_the_parent_to_tell_again() {
    let mirror_with = |content_type: &str, retention: Retention| {
        mirror_of_description(Description { retention, ..description(content_type, offset(7, 0)) })
    };
    // Positions of texts are bytes, but an append is trimmed as a whole.
    let bytes = Retention { bytes_max: Some(8), ..Retention::default() };
    let text = mirror_with("text/plain", bytes);
    text.push_own(&Payload::message("abcdef".into()), offset(7, 6), false, NOW);
    assert_eq!(read(&text, Start::At(offset(7, 3))), Some(("def".into(), offset(7, 6))));
    text.push_own(&Payload::message("ghi".into()), offset(7, 9), false, NOW);
    assert_eq!(read(&text, Start::At(offset(7, 3))), None);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(read(&text, Start::At(offset(7, 6))), Some(("ghi".into(), offset(7, 9))));
    // Others are known only as long as the parent has told them lately.
    let messages = Retention { messages_max: Some(2), ..Retention::default() };
    let age = Retention { age_max: Some(Duration::from_secs(60)), ..Retention::default() };
    for (content_type, retention) in
        [("application/json", bytes), ("text/plain", messages), ("text/plain", age)]
    {
        let mirror = mirror_with(content_type, retention);
        let start = Start::At(offset(7, 0));
        let payload = match content_type {
            "text/plain" => Payload::message("1,2".into()),
            _ => Payload::json("1,2".into(), vec![1, 3]),
        };
        let next = offset(7, payload.positions());
        mirror.push_own(&payload, next, false, NOW);
        assert_eq!(read(&mirror, start), Some(("1,2".into(), next)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(read(&mirror, start), None, "{content_type} {retention:?}");
        assert_eq!(read(&mirror, Start::At(next)), Some((String::new(), next)));
        if content_type == "text/plain" {
            // Told again, from within what was kept.
            let within = Start::At(offset(7, 1));
            mirror.keep_page(within, &page_of(within, next, "2", ",2"));
            assert_eq!(read(&mirror, within), Some((",2".into(), next)));
        }
    }
}

#[test]
fn whether_a_stream_has_expired_is_for_the_parent_to_tell() {
    let lifetime = Lifetime::Until(NOW + Duration::from_secs(5));
    let mirror = mirror_of_description(Description { lifetime, ..description("text/plain", offset(7, 0)) });
    let limit = ReadLimit { bytes_max: 1000 };
    let at = |seconds| Moment { wall: NOW + Duration::from_secs(seconds), ..AT };
    assert_eq!(mirror.read(Start::Tail, limit, at(4)).unwrap().lives_for, Some(Duration::from_secs(1)));
    assert!(mirror.read(Start::Tail, limit, at(5)).is_none());
}

#[test]
fn a_reader_gets_no_more_of_a_page_than_it_asked_for() {
    let start = Start::At(offset(7, 0));
    let text = page_of(start, offset(7, 13), "4,2*2,5", "äöabcdefghi");
    let all = text.batch(ReadLimit { bytes_max: 1000 }, None);
    assert_eq!((all.pieces.len(), all.next, all.up_to_date), (4, offset(7, 13), true));
    let some = text.batch(ReadLimit { bytes_max: 6 }, None);
    assert_eq!((some.pieces.len(), some.next, some.up_to_date), (2, offset(7, 6), false));
    let messages = |bytes_max, count_max| {
        let messages = text.messages(MessageLimit { bytes_max, count_max });
        (messages.messages.len(), messages.next, messages.up_to_date)
    };
    assert_eq!(messages(1000, 1000), (4, offset(7, 13), true));
    assert_eq!(messages(1000, 3), (3, offset(7, 8), false));
    assert_eq!(messages(1, 3), (1, offset(7, 4), false));
    // One append of many values is a part of the page, too.
    let values = response("application/json", offset(7, 3), None, "[10,20,30]");
    let json = page(&values, start, NOW).unwrap();
    let one = json.messages(MessageLimit { bytes_max: 1000, count_max: 1 });
    assert_eq!((&one.messages[0].bytes[..], one.next, one.up_to_date), (&b"10"[..], offset(7, 1), false));
}

#[test]
fn single_messages_are_appends_and_a_text_of_several_is_for_the_parent() {
    let limit = MessageLimit { bytes_max: 1000, count_max: 10 };
    let contents = |mirror: &Mirror, from: u64| {
        let messages = mirror.messages(Start::At(offset(7, from)), limit, AT)?.into_messages().messages;
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
    text.keep_page(start, &page_of(start, offset(7, 3), "1,2", "abc"));
    assert_eq!(contents(&text, 0).unwrap(), ["a", "bc"]);
}

#[test]
fn lengths_that_are_not_those_of_the_body_do_not_count() {
    for (lengths, appends) in
        [("1*2,0,3", 4), ("5", 1), ("4", 1), ("6", 1), ("x", 1), ("0*18446744073709551615,5", 1)]
    {
        let response = response("text/plain", offset(7, 5), Some(lengths), "abcde");
        let page = page(&response, Start::At(offset(7, 0)), NOW).unwrap();
        assert_eq!(page.records.len(), appends, "{lengths}");
    }
    let long: &'static str = Box::leak(format!("[{}1]", "123456789,".repeat(4000)).into_boxed_str());
    let json =
        page(&response("application/json", offset(7, 4001), None, long), Start::Earliest, NOW).unwrap();
    assert_eq!((json.records.len(), json.from, json.is_exact()), (3, Position(0), true));
}

/// Answers the requests of an edge in turn: waits for a request and for the permission to answer it.
async fn answer_when_told(listener: TcpListener, arrived: Arc<Semaphore>, told: Arc<Semaphore>) {
    for number in 0.. {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        arrived.add_permits(1);
        told.acquire().await.unwrap().forget();
        let next = offset(7, 1);
        let fields = format!(
            "content-type: text/plain\r\nstream-next-offset: {next}\r\nstream-lengths: 1\r\nstream-up-to-date: true"
        );
        let answer =
            format!("HTTP/1.1 200 OK\r\n{fields}\r\ncontent-length: 1\r\nconnection: close\r\n\r\n{number}");
        socket.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn readers_share_the_answer_to_a_request_that_was_sent_after_they_had_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let metrics = Metrics::default().upstream().clone();
    let destination = Destination::of_operator(&url, &Trust::nothing().unwrap()).unwrap();
    let parent = Parent::new(destination, UpstreamAccess::open_to_all(&url), 1000, metrics.clone());
    let room = MirrorRoom::new(1000, 1000);
    let shared = Arc::new(UpstreamShared::new(parent, 10, room, Budget::unlimited(), metrics));
    let (arrived, told) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    tokio::spawn(answer_when_told(listener, arrived.clone(), told.clone()));
    let name = StreamName::parse("s").unwrap();
    let read = || {
        let (shared, name) = (shared.clone(), name.clone());
        tokio::spawn(async move {
            let limit = ReadLimit { bytes_max: 1000 };
            let batch = shared.read(&name, Start::At(offset(7, 0)), limit, NOW).await.unwrap();
            String::from_utf8(batch.pieces.concat()).unwrap()
        })
    };
    let first = read();
    arrived.acquire().await.unwrap().forget();
    // What the parent appends from here on, these must see, though the first answer may lack it.
    let others = [read(), read()];
    let mirror = shared.mirror(&name).unwrap();
    while mirror.fetchers() < 3 {
        tokio::task::yield_now().await;
    }
    told.add_permits(10);
    assert_eq!(first.await.unwrap(), "0");
    for other in others {
        assert_eq!(other.await.unwrap(), "1");
    }
}
