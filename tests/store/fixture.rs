//! A store of format 1, written when the format was introduced: every later version must read it.
//!
//! `WRITE_FIXTURE=1` writes it again, which is allowed only until a version with format 1 is released.

use std::path::{Path, PathBuf};

use pollgate::stream::{
    Append, AppendRefusal, Create, Lifetime, ProducerRefusal, ReadError, Retention, SessionChange, Start,
};

use crate::directory::{directory, world_of};
use crate::suite::*;

/// The only file of the store.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/format-1.log")
}

/// Writes every kind of record.
async fn write() {
    let directory = directory();
    let (world, _) = world_of(directory.path(), 16 * 1024);
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
    world.store.close().await;
    drop(world);
    std::fs::copy(directory.path().join("0000000001.log"), fixture()).unwrap();
}

#[tokio::test]
async fn a_store_of_format_1_is_read() {
    if std::env::var_os("WRITE_FIXTURE").is_some() {
        write().await;
    }
    let directory = directory();
    std::fs::copy(fixture(), directory.path().join("0000000001.log")).unwrap();
    let (world, opened) = world_of(directory.path(), 16 * 1024);
    assert!(!opened.may_lack_end);
    assert_eq!(opened.streams, 7);
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
}
