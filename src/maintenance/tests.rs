//! Exports of a store in memory, imported into another one.

use std::io::Cursor;

use super::*;
use crate::budget::{Bounds, Budget};
use crate::store::Memory;
use crate::stream::{
    Append, ContentType, Create, Fork, MessageLimit, Payload, Producer, Retention, Start, StreamName,
};

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

/// A store in memory with short helpers.
struct World {
    store: Arc<dyn Store>,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        Self::with(Memory::new())
    }

    fn with(store: Memory) -> Self {
        Self { store: Arc::new(store), clock: Clock::start() }
    }

    async fn create(&self, stream: &str, messages_max: Option<u64>, fork: Option<(&str, u64)>) {
        let retention = messages_max.map(|max| Retention { messages_max: Some(max), ..Retention::default() });
        let fork = fork.map(|(source, sub_offset)| Fork {
            source: name(source),
            offset: Some(Start::Earliest),
            sub_offset,
        });
        let create = Create { retention, fork, ..Create::open(text()) };
        self.store.create(&name(stream), create, self.clock.now()).await.unwrap();
    }

    async fn push(&self, stream: &str, messages: &[&'static str]) {
        for message in messages {
            let append = Append::of(text(), Payload::raw((*message).into()));
            self.store.append(&name(stream), append.into(), self.clock.now()).await.unwrap();
        }
    }

    async fn content(&self, stream: &str) -> String {
        let limit = MessageLimit { bytes_max: 1 << 20, count_max: 10_000 };
        let read = self.store.peek(&name(stream), Start::Earliest, limit, self.clock.now()).await.unwrap();
        let texts: Vec<_> =
            read.messages.iter().map(|message| String::from_utf8(message.bytes.to_vec()).unwrap()).collect();
        texts.join(" ")
    }

    async fn export(&self) -> String {
        let mut exporter = Exporter::new(self.store.clone(), self.clock);
        let mut export = Vec::new();
        while let Some(piece) = exporter.next().await {
            export.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(export).unwrap()
    }

    async fn import(&self, export: &str) -> Result<TransferCount, MaintenanceError> {
        let mut checked = check_export(Cursor::new(export.as_bytes().to_vec()))?;
        import::import(&*self.store, self.clock, &mut checked).await
    }
}

#[tokio::test]
async fn forks_of_trimmed_streams_come_back_with_what_they_keep() {
    let world = World::new();
    // The source keeps less than this fork shares with it, so the fork is exported with all of its messages.
    world.create("source", Some(2), None).await;
    world.push("source", &["a", "b"]).await;
    world.create("all", Some(100), Some(("source", 2))).await;
    world.push("all", &["c"]).await;
    world.push("source", &["d", "e"]).await;
    // This one shares what the source still keeps.
    world.create("late", Some(100), Some(("source", 1))).await;
    world.push("late", &["f"]).await;
    // This one has lost the first messages of its own, and has a fork itself.
    world.create("trimmed", Some(2), Some(("source", 2))).await;
    world.push("trimmed", &["g", "h", "i"]).await;
    world.create("of trimmed", Some(100), Some(("trimmed", 1))).await;
    world.push("of trimmed", &["j"]).await;
    let streams = ["source", "all", "late", "trimmed", "of trimmed"];
    let expected = ["d e", "a b c", "d f", "h i", "h j"];
    let export = world.export().await;
    let other = World::new();
    assert_eq!(other.import(&export).await.unwrap(), TransferCount { streams: 5, messages: 9 }, "{export}");
    for (stream, expected) in streams.into_iter().zip(expected) {
        assert_eq!(world.content(stream).await, expected, "{stream}");
        assert_eq!(other.content(stream).await, expected, "{stream}: {export}");
    }
    let snapshot = other.store.snapshot(&name("late"), other.clock.now()).await.unwrap();
    assert_eq!(snapshot.branch.map(|branch| branch.source), Some(name("source")));
    assert!(other.store.snapshot(&name("all"), other.clock.now()).await.unwrap().branch.is_none());
}

#[tokio::test]
async fn a_stream_is_exported_as_it_is_at_one_moment() {
    let world = World::new();
    world.create("s", None, None).await;
    let produced = async |sequence| {
        let producer = Some(Producer { id: "p".into(), epoch: 0, sequence });
        let append = Append { producer, ..Append::of(text(), Payload::raw("x".repeat(1000).into())) };
        world.store.append(&name("s"), append.into(), world.clock.now()).await
    };
    for sequence in 0..500 {
        produced(sequence).await.unwrap();
    }
    let mut exporter = Exporter::new(world.store.clone(), world.clock);
    let mut export = exporter.next().await.unwrap().unwrap().to_vec();
    produced(500).await.unwrap();
    while let Some(piece) = exporter.next().await {
        assert!(export.len() < 10 << 20);
        export.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(exporter.count(), TransferCount { streams: 1, messages: 500 });
    let other = World::new();
    other.import(std::str::from_utf8(&export).unwrap()).await.unwrap();
    let snapshot = other.store.snapshot(&name("s"), other.clock.now()).await.unwrap();
    // Its producer may send the append again that came too late for the export.
    assert_eq!(snapshot.writers.producers[0].0.sequence, 499);
}

#[tokio::test]
async fn streams_with_a_lifetime_are_imported_if_it_is_not_over() {
    let lines = [
        r#"{"stream":"expired","contentType":"text/plain","expiresAt":"2025-03-01T00:00:00Z","closed":true}"#,
        r#"{"at":"2025-02-01T00:00:00Z","text":"a"}"#,
        // Readers kept it alive for the hour between its two messages.
        r#"{"stream":"idle","contentType":"text/plain","idleSeconds":60,"closed":true}"#,
        r#"{"at":"2025-02-01T00:00:00Z","text":"b"}"#,
        r#"{"at":"2025-02-01T01:00:00Z","text":""}"#,
        r#"{"at":"2025-02-01T02:00:00Z","text":"c"}"#,
        r#"{"stream":"fork","contentType":"text/plain","fork":{"source":"expired","at":1}}"#,
        r#"{"at":"2025-02-01T02:00:00Z","text":"d"}"#,
        r#"{"end":true,"streams":3,"messages":5}"#,
    ];
    let world = World::new();
    let imported = world.import(&lines.join("\n")).await.unwrap();
    assert_eq!(imported, TransferCount { streams: 2, messages: 4 });
    assert_eq!((world.content("idle").await.as_str(), world.content("fork").await.as_str()), ("b  c", "d"));
    assert!(world.store.snapshot(&name("idle"), world.clock.now()).await.unwrap().description.closed);
    assert!(world.store.snapshot(&name("expired"), world.clock.now()).await.is_err());
}

#[tokio::test]
async fn an_import_that_fails_in_the_middle_leaves_nothing() {
    let world = World::new();
    for stream in ["a", "b", "c"] {
        world.create(stream, None, None).await;
        world.push(stream, &["1"]).await;
    }
    let export = world.export().await;
    let bounds = Bounds { memory_max: u64::MAX, streams_max: 2, share_percent: 100 };
    let full = World::with(Memory::within(Budget::new(bounds)));
    let failed = full.import(&export).await.unwrap_err();
    assert!(matches!(failed, MaintenanceError::Import { line: 5, .. }), "{failed}");
    assert_eq!(full.store.streams(), 0);
}

#[tokio::test]
async fn an_export_that_was_broken_off_is_refused() {
    let world = World::new();
    world.create("a", None, None).await;
    let mut exporter = Exporter::new(world.store.clone(), world.clock);
    let mut export = exporter.broken_off("the disk is on fire".into());
    assert!(World::new().import(std::str::from_utf8(&export).unwrap()).await.is_err_and(|refused| {
        refused.to_string().contains("line 1: the export was broken off: the disk is on fire")
    }));
    export = exporter.next().await.unwrap().unwrap();
    let fork = r#"{"stream":"f","contentType":"text/plain","fork":{"source":"elsewhere","at":1}}"#;
    let alien = format!("{fork}\n{}", std::str::from_utf8(&export).unwrap());
    let refused = World::new().import(&alien).await.unwrap_err().to_string();
    assert!(refused.contains("line 1: the source of the fork does not come before it"), "{refused}");
}
