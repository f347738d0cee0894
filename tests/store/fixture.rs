//! Stores of each format so far, written by the versions that introduced it: every later version must read them.
//!
//! `WRITE_FIXTURE=1` writes that of the present format. A fixture may be written again only until a version with its format is
//! released. What a gateway keeps in such a store is in `tests/gateway/upgrades.rs`.

use std::path::{Path, PathBuf};

use pollgate::stream::{
    Append, AppendRefusal, Create, Lifetime, MessageLimit, Payload, ProducerRefusal, ReadError, Retention,
    SessionChange, Start,
};

use crate::directory::{copy, directory, world_of};
use crate::suite::*;

/// Size of the only file of a fixture, in bytes.
const FILE_BYTES: u32 = 16 * 1024;

/// The directory with the store of a format.
fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/store/fixtures/format-{format}"))
}

/// The format that this version writes, from the header of a new store.
fn present_format() -> u32 {
    let directory = directory();
    drop(world_of(directory.path(), FILE_BYTES));
    let file = std::fs::read(directory.path().join(FILE)).unwrap();
    u32::from_le_bytes(file[8..12].try_into().unwrap())
}

/// Name of the only file of a fixture.
const FILE: &str = "0000000001.log";

/// Writes every kind of record.
async fn write() {
    let directory = directory();
    let (world, _) = world_of(directory.path(), FILE_BYTES);
    world.open("source").await;
    let point = world.push("source", 0..3).await;
    world.push("source", 3..5).await;
    world.create("fork", fork_of("source", Some(point), 1)).await.unwrap();
    world.push("fork", [9]).await;
    world.store.delete(&name("source"), world.now).await.unwrap();
    let by = Append { producer: producer(2, 0), sequence: Some("b".into()), ..append(json(), numbers([1])) };
    world.open("written").await;
    world.append("written", by).await.unwrap();
    let retention = Retention { messages_max: Some(2), ..Retention::default() };
    let until = Some(Lifetime::Until(world.now + std::time::Duration::from_secs(60)));
    let short = Create { retention: Some(retention), lifetime: until, ..Create::open(text()) };
    world.create("short", short).await.unwrap();
    for word in [&b"one"[..], b"two", b"three"] {
        world.append("short", append(text(), raw(word))).await.unwrap();
    }
    world
        .create("full", Create { payload: numbers(0..2), closed: true, ..Create::open(json()) })
        .await
        .unwrap();
    world.open("said").await;
    world.append("said", annotated(numbers([7]), "ada", true)).await.unwrap();
    world.open("cleared").await;
    world.append("cleared", annotated(numbers([7]), "ada", true)).await.unwrap();
    world.store.clear_retained(&name("cleared"), world.now).await.unwrap();
    world.change("ada", "a=1 b=2 -a c=3").await;
    let session =
        SessionChange { client: "ada".into(), anew: false, entries: vec![("d".into(), Some("4".into()))] };
    let both = Append { session: Some(session), ..append(json(), numbers([2])) };
    world.append("written", both).await.unwrap();
    world.change("bob", "a=1").await;
    world.store.change_session(SessionChange::end("bob".into())).await.unwrap();
    // Format 3: a message without bytes.
    world.create("notes", Create::open(text())).await.unwrap();
    world.append("notes", append(text(), Payload::message(Default::default()))).await.unwrap();
    world.append("notes", append(text(), raw(b"end"))).await.unwrap();
    world.store.close().await;
    drop(world);
    let to = fixture(present_format());
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(directory.path().join(FILE), to.join(FILE)).unwrap();
}

#[tokio::test]
async fn a_store_of_each_format_is_read() {
    if std::env::var_os("WRITE_FIXTURE").is_some() {
        write().await;
    }
    for format in 1..=present_format() {
        read(format).await;
    }
}

async fn read(format: u32) {
    let directory = directory();
    copy(&fixture(format), directory.path());
    let (world, opened) = world_of(directory.path(), FILE_BYTES);
    assert!(!opened.may_lack_end, "format {format}");
    assert_eq!(opened.streams, if format < 3 { 7 } else { 8 }, "format {format}");
    assert_eq!(world.content("fork").await, "0,1,2,3,9");
    assert!(matches!(world.read("source", Start::Earliest).await.unwrap_err(), ReadError::Missing(_)));
    let next = Append { producer: producer(2, 2), ..append(json(), numbers([1])) };
    let gap = ProducerRefusal::SequenceGap { expected: 1, received: 2 };
    let refused = world.append("written", next).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("{:?}", AppendRefusal::Producer(gap))), "{refused}");
    assert_eq!(world.content("short").await, "twothree");
    let described = world.store.describe(&name("short"), world.now).await.unwrap();
    assert!(matches!(described.lifetime, Lifetime::Until(_)));
    assert!(world.read("full", Start::Earliest).await.unwrap().closed);
    assert_eq!(world.retained("said").await.as_deref(), Some("7 ada"));
    assert_eq!(world.retained("cleared").await, None);
    assert_eq!(world.content("cleared").await, "7");
    assert_eq!(world.content("written").await, "1,2");
    assert_eq!((&*world.session("ada").await, world.sessions().await.len()), ("b=2 c=3 d=4", 1));
    if format >= 3 {
        let limit = MessageLimit { bytes_max: usize::MAX, count_max: 10 };
        let notes = world.store.messages(&name("notes"), Start::Earliest, limit, world.now).await.unwrap();
        let notes: Vec<_> = notes.messages.iter().map(|message| &*message.bytes).collect();
        assert_eq!(notes, [&b""[..], b"end"]);
    }
}
