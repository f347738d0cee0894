//! A store on disk that is closed or killed and reopened: its content is there, and offsets stay valid.

use std::sync::Arc;
use std::time::Duration;

use pollgate::budget::{Bounds, Budget};
use pollgate::store::{Disk, DiskOptions, OpenError};
use pollgate::stream::{
    Append, AppendRefusal, Create, CreateError, Lifetime, Missing, Offset, ProducerRefusal, ReadError,
    Retention, SessionChange, Start, Store, SyncPolicy,
};
use tokio::time::Instant;

use crate::directory::{SEGMENT_BYTES, directory, open, try_open, world};
use crate::suite::*;

#[tokio::test]
async fn all_of_a_stream_comes_back() {
    let directory = directory();
    let (before, _) = world(directory.path());
    before.open("plain").await;
    before.push("plain", 0..3).await;
    let cursor = before.push("plain", 3..5).await;
    let by = |sequence| Append { producer: producer(0, sequence), ..append(json(), numbers([sequence])) };
    before.open("written").await;
    before.append("written", by(0)).await.unwrap();
    let named = Append { sequence: Some("b".into()), ..append(json(), numbers([9])) };
    before.append("written", named.clone()).await.unwrap();
    let retention = Retention { messages_max: Some(2), ..Retention::default() };
    before.create("short", Create { retention: Some(retention), ..Create::open(json()) }).await.unwrap();
    before.push("short", 0..5).await;
    before
        .create("full", Create { payload: numbers(0..2), closed: true, ..Create::open(json()) })
        .await
        .unwrap();
    before.open("gone").await;
    before.store.delete(&name("gone"), before.now).await.unwrap();
    drop(before);

    let (after, opened) = world(directory.path());
    assert!(!opened.may_lack_end);
    assert_eq!((opened.streams, after.content("plain").await.as_str()), (4, "0,1,2,3,4"));
    let end = after.read("plain", Start::At(cursor)).await.unwrap();
    assert_eq!((end.next, end.up_to_date, end.is_empty()), (cursor, true, true));
    after.push("plain", [5]).await;
    assert_eq!(content(&after.read("plain", Start::At(cursor)).await.unwrap()), "5");

    assert!(after.append("written", by(0)).await.unwrap().duplicate);
    let gap = after.append("written", by(2)).await.unwrap_err();
    let expected = ProducerRefusal::SequenceGap { expected: 1, received: 2 };
    assert!(gap.to_string().contains(&format!("{:?}", AppendRefusal::Producer(expected))), "{gap}");
    assert!(after.append("written", named).await.is_err(), "the sequence is remembered");

    assert_eq!(after.content("short").await, "3,4");
    assert!(after.append("full", append(json(), numbers([7]))).await.is_err());
    assert!(after.read("full", Start::Earliest).await.unwrap().closed);
    assert_eq!(after.read("gone", Start::Earliest).await.unwrap_err(), ReadError::Missing(Missing::NotFound));
    let other = Create { closed: true, ..Create::open(json()) };
    assert_eq!(after.create("plain", other).await.unwrap_err(), CreateError::ExistsDifferently);
}

#[tokio::test]
async fn forks_share_the_past_over_restarts_and_keep_the_name_of_their_source() {
    let directory = directory();
    let (before, _) = world(directory.path());
    before.open("source").await;
    let point = before.push("source", 0..3).await;
    before.push("source", 3..5).await;
    before.create("fork", fork_of("source", Some(point), 1)).await.unwrap();
    before.push("fork", [10]).await;
    before.create("second", fork_of("fork", None, 0)).await.unwrap();
    before.push("second", [11]).await;
    before.store.delete(&name("source"), before.now).await.unwrap();
    drop(before);
    for _ in 0..2 {
        let (after, _) = world(directory.path());
        assert_eq!(after.content("fork").await, "0,1,2,3,10");
        assert_eq!(after.content("second").await, "0,1,2,3,10,11");
        assert_eq!(
            after.read("source", Start::Earliest).await.unwrap_err(),
            ReadError::Missing(Missing::Deleted)
        );
        assert_eq!(after.create("source", Create::open(json())).await.unwrap_err(), CreateError::NameTaken);
    }
    let (after, _) = world(directory.path());
    for fork in ["second", "fork"] {
        after.store.delete(&name(fork), after.now).await.unwrap();
    }
    drop(after);
    let (last, opened) = world(directory.path());
    assert_eq!(opened.streams, 0);
    last.open("source").await;
}

#[tokio::test]
async fn a_new_life_of_a_stream_is_told_apart_over_a_restart() {
    let directory = directory();
    let mut cursors: Vec<Offset> = Vec::new();
    for life in 0..4 {
        let (world, _) = world(directory.path());
        if life > 0 {
            world.store.delete(&name("s"), world.now).await.unwrap();
        }
        world.open("s").await;
        for earlier in &cursors {
            let error = world.read("s", Start::At(*earlier)).await.unwrap_err();
            assert!(matches!(error, ReadError::Gap(_)), "life {life}: {error}");
        }
        let cursor = world.push("s", 0..3).await;
        assert!(cursors.last().is_none_or(|last| *last < cursor), "offsets rise");
        cursors.push(cursor);
    }
}

#[tokio::test]
async fn annotations_and_retained_messages_survive_a_restart() {
    let directory = directory();
    let (before, _) = world(directory.path());
    before.open("s").await;
    before.append("s", annotated(numbers([1]), "ada", true)).await.unwrap();
    before.push("s", [2]).await;
    before.open("cleared").await;
    before.append("cleared", annotated(numbers([1]), "ada", true)).await.unwrap();
    before.store.clear_retained(&name("cleared"), before.now).await.unwrap();
    for body in ["kept", "", ""] {
        let append = Append::of_any_type(body.into(), text(), 8).or_create();
        let said = annotated(numbers([]), "ada", true).annotation;
        before.append("emptied", Append { annotation: said, ..append }).await.unwrap();
    }
    let told = before.messages("s", Start::Earliest, NO_LIMIT).await.unwrap();
    let emptied = before.messages("emptied", Start::Earliest, NO_LIMIT).await.unwrap();
    drop(before);
    let (after, _) = world(directory.path());
    assert_eq!(after.messages("s", Start::Earliest, NO_LIMIT).await.unwrap().messages, told.messages);
    let emptied_after = after.messages("emptied", Start::Earliest, NO_LIMIT).await.unwrap();
    assert_eq!((emptied_after.messages, emptied.messages.len()), (emptied.messages, 3));
    assert_eq!(after.retained("emptied").await, None);
    assert_eq!(after.retained("s").await.as_deref(), Some("1 ada"));
    assert_eq!(after.retained("cleared").await, None);
}

/// A stream is created by an append, each time with other parameters.
#[tokio::test]
async fn a_stream_that_an_append_has_created_survives_a_restart() {
    let directory = directory();
    let (before, _) = world(directory.path());
    let first = || append(json(), numbers([1, 2])).or_create();
    let session =
        SessionChange { client: "ada".into(), anew: false, entries: vec![("k".into(), Some("v".into()))] };
    for (stream, append) in [
        ("plain", first()),
        ("said", Append { annotation: annotated(numbers([]), "ada", true).annotation, ..first() }),
        ("by", Append { producer: producer(3, 0), sequence: Some("b".into()), ..first() }),
        ("session", Append { session: Some(session), ..first() }),
        ("closed", Append { close: true, ..first() }),
    ] {
        assert!(before.append(stream, append).await.unwrap().created, "{stream}");
    }
    let told = before.messages("said", Start::Earliest, NO_LIMIT).await.unwrap();
    let sessions = before.sessions().await;
    drop(before);
    let (after, opened) = world(directory.path());
    assert_eq!((opened.streams, opened.may_lack_end), (5, false));
    for stream in ["plain", "said", "by", "session", "closed"] {
        assert_eq!(after.content(stream).await, "1,2", "{stream}");
        let closed = after.read(stream, Start::Earliest).await.unwrap().closed;
        assert_eq!(closed, stream == "closed", "{stream}");
    }
    assert_eq!(after.messages("said", Start::Earliest, NO_LIMIT).await.unwrap().messages, told.messages);
    assert_eq!(after.retained("said").await.as_deref(), Some("2 ada"));
    assert_eq!(after.sessions().await, sessions);
    assert!(!sessions.is_empty());
    let again = Append { producer: producer(3, 0), ..first() };
    assert!(after.append("by", again).await.unwrap().duplicate, "its producer is remembered");
    let lower = Append { sequence: Some("a".into()), ..first() };
    assert!(after.append("by", lower).await.is_err(), "its sequence is remembered");
}

#[tokio::test]
async fn an_expiry_time_survives_a_restart_and_an_idle_time_begins_anew() {
    let directory = directory();
    let (mut before, _) = world(directory.path());
    let until = Lifetime::Until(before.now + Duration::from_secs(50));
    before.create("until", Create { lifetime: Some(until), ..Create::open(json()) }).await.unwrap();
    let idle = Lifetime::Idle(Duration::from_secs(60));
    before.create("idle", Create { lifetime: Some(idle), ..Create::open(json()) }).await.unwrap();
    let short = Lifetime::Idle(Duration::from_secs(10));
    before.create("short", Create { lifetime: Some(short), ..Create::open(json()) }).await.unwrap();
    before.later(20);
    assert_eq!(before.sweep().await, [name("short")]);
    drop(before);
    let (mut after, opened) = world(directory.path());
    assert_eq!(opened.streams, 2);
    after.later(55);
    assert_eq!(
        after.read("until", Start::Earliest).await.unwrap_err(),
        ReadError::Missing(Missing::NotFound)
    );
    assert!(after.read("idle", Start::Earliest).await.is_ok());
}

#[tokio::test]
async fn a_log_goes_on_over_many_files_and_larger_records_than_a_file() {
    let directory = directory();
    let large = || pollgate::stream::Payload::raw(vec![b'x'; 3 * SEGMENT_BYTES as usize].into());
    let (before, _) = world(directory.path());
    before.create("large", Create::open(text())).await.unwrap();
    before.open("small").await;
    for round in 0..3 {
        before.append("large", append(text(), large())).await.unwrap();
        for n in 0..500 {
            before.push("small", [round * 500 + n]).await;
        }
    }
    drop(before);
    let (after, _) = world(directory.path());
    let numbers: Vec<_> = (0..1500).map(|n| n.to_string()).collect();
    assert_eq!(after.content("small").await, numbers.join(","));
    assert_eq!(after.read_all("large").await.len(), 9 * SEGMENT_BYTES as usize);
}

#[test]
fn a_directory_in_use_or_of_a_later_format_is_refused_with_one_line() {
    let directory = directory();
    let (store, _) = open(directory.path());
    let Err(in_use) = try_open(directory.path()) else { panic!("opened twice") };
    assert!(matches!(in_use, OpenError::InUse) && in_use.to_string().contains("in use"), "{in_use}");
    drop(store);
    let file = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[8] += 1;
    let sum = crc32c::crc32c(&bytes[..16]).to_le_bytes();
    bytes[16..20].copy_from_slice(&sum);
    std::fs::write(&file, bytes).unwrap();
    let Err(newer) = try_open(directory.path()) else { panic!("a later format was opened") };
    assert!(newer.to_string().contains("format 4"), "{newer}");
    assert_eq!(newer.to_string().lines().count(), 1);
}

/// With `READY_MESSAGES` set to a number of messages, in a hundredth as many streams, the limit is two seconds; the goal is
/// 10^6. Without it the opening must take less processor time than the writing took in all: it makes a system call per message,
/// the opening does not. A busy machine only lengthens the writing.
#[tokio::test]
async fn many_messages_are_ready_soon_after_a_restart() {
    let asked: Option<usize> = std::env::var("READY_MESSAGES").ok().map(|count| count.parse().unwrap());
    let messages = asked.unwrap_or(20_000);
    let directory = directory();
    let since = Instant::now();
    {
        let options = pollgate::store::DiskOptions::new(pollgate::stream::SyncPolicy::Never);
        let (store, _) =
            pollgate::store::Disk::open(directory.path(), options, std::sync::Arc::new(()), noon()).unwrap();
        let world = World::with(Box::new(store));
        for stream in 0..messages / 100 {
            let name = format!("room/{stream}");
            world.open(&name).await;
            for n in 0..100 {
                world.push(&name, [n]).await;
            }
        }
        world.store.close().await;
    }
    let bar = if asked.is_some() { Duration::from_secs(2) } else { since.elapsed() };
    let since = thread_processor_time();
    let (after, opened) = world(directory.path());
    let took = thread_processor_time() - since;
    println!("{messages} messages in {} streams: ready after {took:?} of {bar:?}", opened.streams);
    assert_eq!(opened.streams, messages / 100);
    assert_eq!(after.content("room/0").await.split(',').count(), 100);
    assert!(took < bar, "{took:?}");
}

fn thread_processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().expect("it is not negative")
}

/// A message with a future time was written with a wrong clock. It is kept as long as one that is appended now, not until its
/// time is reached.
#[tokio::test]
async fn the_age_of_a_message_from_the_future_begins_with_the_restart() {
    let directory = directory();
    let (mut before, _) = world(directory.path());
    let retention = Retention { age_max: Some(Duration::from_secs(60)), ..Retention::default() };
    before.create("s", Create { retention: Some(retention), ..Create::open(json()) }).await.unwrap();
    before.push("s", [1]).await;
    before.later(400 * 24 * 3600);
    let producer = Append { producer: producer(0, 0), ..append(json(), numbers([2])) };
    before.append("s", producer.clone()).await.unwrap();
    drop(before);
    let (mut after, _) = world(directory.path());
    after.push("s", [3]).await;
    after.later(60);
    assert_eq!(after.content("s").await, "2,3");
    assert!(after.append("s", producer.clone()).await.unwrap().duplicate);
    after.later(1);
    after.sweep().await;
    assert_eq!(after.content("s").await, "");
    after.later(7 * 24 * 3600);
    assert!(!after.append("s", producer).await.unwrap().duplicate, "its producer is forgotten in time");
}

#[tokio::test]
async fn a_store_that_does_not_fit_into_the_budget_is_refused_with_the_reason() {
    let directory = directory();
    let (world, _) = world(directory.path());
    for n in 0..100 {
        world.open(&n.to_string()).await;
    }
    drop(world);
    let open = |memory_max: u64| {
        let bounds = Bounds { memory_max, streams_max: 1000, share_percent: 100 };
        let options = DiskOptions::new(SyncPolicy::Never);
        Disk::open_within(directory.path(), options, Arc::new(()), &Budget::new(bounds), noon())
    };
    // Every process uses more memory than this.
    let refused = open(1 << 20).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::Memory { max: 0x10_0000, .. }), "{refused}");
    assert!(refused.to_string().contains("--memory-max allows 1 MiB"), "{refused}");
    let (again, opened) = open(1 << 40).unwrap();
    assert_eq!((again.streams(), opened.streams), (100, 100));
}
