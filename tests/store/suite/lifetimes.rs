//! Streams that expire or are deleted, and are created again.

use std::time::Duration;

use pollgate::stream::{
    Append, Create, GapReason, Lifetime, Missing, PAGE_STREAMS_MAX, ReadError, Retention, Start, WriterStates,
};

use super::messages::NO_LIMIT;
use super::world::*;

fn idle(seconds: u64) -> Create {
    Create { lifetime: Some(Lifetime::Idle(Duration::from_secs(seconds))), ..Create::open(json()) }
}

pub async fn a_new_life_of_a_stream_has_other_offsets(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    let old = world.push("s", [1]).await;
    world.store.delete(&name("s"), world.now).await.unwrap();
    assert_eq!(world.read("s", Start::At(old)).await.unwrap_err(), ReadError::Missing(Missing::NotFound));
    assert!(world.open("s").await.fresh);
    let new = world.push("s", [2]).await;
    assert_ne!(old, new);
    let error = world.read("s", Start::At(old)).await.unwrap_err();
    assert!(matches!(error, ReadError::Gap(gap) if gap.reason == GapReason::Epoch), "{error:?}");
}

pub async fn an_idle_stream_ends_unless_a_reader_is_attached(make: MakeStore<'_>) {
    let mut world = World::new(make);
    world.create("s", idle(10)).await.unwrap();
    world.later(9);
    assert!(world.read("s", Start::Earliest).await.is_ok());
    world.later(9);
    world.push("s", [1]).await;
    let epoch = world.store.attach(&name("s")).unwrap();
    world.later(100);
    assert!(world.sweep().await.is_empty());
    assert!(world.store.describe(&name("s"), world.now).await.is_ok());
    world.store.detach(&name("s"), epoch, world.now);
    world.later(9);
    assert!(world.store.describe(&name("s"), world.now).await.is_ok());
    world.later(1);
    assert_eq!(world.read("s", Start::Earliest).await.unwrap_err(), ReadError::Missing(Missing::NotFound));
}

/// A backup every day must not keep a stream that nobody uses.
pub async fn an_export_is_not_a_use_of_a_stream(make: MakeStore<'_>) {
    let mut world = World::new(make);
    world.create("s", idle(10)).await.unwrap();
    world.push("s", [1, 2]).await;
    world.later(6);
    let snapshot = world.store.snapshot(&name("s"), world.now).await.unwrap();
    let peeked = world.store.peek(&name("s"), Start::Earliest, NO_LIMIT, world.now).await.unwrap();
    assert_eq!((peeked.messages.len(), peeked.next), (2, snapshot.description.tail));
    world.later(4);
    let missing = ReadError::Missing(Missing::NotFound);
    assert_eq!(world.store.snapshot(&name("s"), world.now).await.unwrap_err(), missing);
    let peeked = world.store.peek(&name("s"), Start::Earliest, NO_LIMIT, world.now).await;
    assert_eq!(peeked.unwrap_err(), missing);
}

/// An import creates a stream with the producers of the exported one.
pub async fn a_created_stream_remembers_the_writers_that_it_is_told(make: MakeStore<'_>) {
    let world = World::new(make);
    let writers = WriterStates {
        producers: vec![(producer(3, 7).unwrap(), world.now)],
        sequence: Some("m".into()),
        closed_by: None,
    };
    let create = Create { writers: Some(Box::new(writers.clone())), ..Create::open(json()) };
    assert!(world.create("s", create).await.unwrap().fresh);
    assert_eq!(world.store.snapshot(&name("s"), world.now).await.unwrap().writers, writers);
    let append =
        |epoch, sequence| Append { producer: producer(epoch, sequence), ..append(json(), numbers([1])) };
    assert!(world.append("s", append(3, 7)).await.unwrap().duplicate);
    assert!(world.append("s", append(3, 9)).await.is_err());
    assert!(!world.append("s", append(3, 8)).await.unwrap().duplicate);
    assert_eq!(world.content("s").await, "1");
    // The same creation without them is the same stream.
    assert!(!world.create("s", Create::open(json())).await.unwrap().fresh);
}

pub async fn a_sweep_ends_only_expired_streams(make: MakeStore<'_>) {
    let mut world = World::new(make);
    let until = Create {
        lifetime: Some(Lifetime::Until(world.now + Duration::from_secs(5))),
        ..Create::open(json())
    };
    world.create("until", until).await.unwrap();
    world.create("idle", idle(5)).await.unwrap();
    world.create("used", idle(5)).await.unwrap();
    world.open("for ever").await;
    world.later(3);
    world.push("used", [1]).await;
    world.push("until", [1]).await;
    assert!(world.sweep().await.is_empty());
    world.later(2);
    let mut ended = world.sweep().await;
    ended.sort();
    assert_eq!(ended, [name("idle"), name("until")]);
    assert_eq!(world.store.streams(), 2);
    world.later(60);
    assert_eq!(world.sweep().await, [name("used")]);
}

/// The wall clock is set back and forward by more than a year, while elapsed time continues as before.
pub async fn expiry_times_follow_the_wall_clock_and_ages_do_not(make: MakeStore<'_>) {
    const DAYS_400: Duration = Duration::from_secs(400 * 24 * 3600);
    let mut world = World::new(make);
    let until = Lifetime::Until(world.now + Duration::from_secs(100));
    world.create("until", Create { lifetime: Some(until), ..Create::open(json()) }).await.unwrap();
    world.create("deleted", Create { lifetime: Some(until), ..Create::open(json()) }).await.unwrap();
    world.create("idle", idle(1000)).await.unwrap();
    let retention = Retention { age_max: Some(Duration::from_secs(1000)), ..Retention::default() };
    world.create("aged", Create { retention: Some(retention), ..Create::open(json()) }).await.unwrap();
    world.push("aged", [1]).await;
    world.store.delete(&name("deleted"), world.now).await.unwrap();
    world.store.follow_wall(world.now, world.now - DAYS_400);
    world.later(500);
    assert!(world.sweep().await.is_empty());
    world.push("aged", [2]).await;
    let batch = world.read("until", Start::Earliest).await.unwrap();
    assert_eq!(batch.lives_for, Some(DAYS_400 - Duration::from_secs(400)));
    assert_eq!(world.content("aged").await, "1,2");
    world.later(400);
    world.store.follow_wall(world.now, world.now + DAYS_400);
    assert_eq!(world.content("aged").await, "1,2");
    assert!(world.store.describe(&name("idle"), world.now).await.is_ok());
    assert_eq!(world.sweep().await, [name("until")]);
    assert_eq!(
        world.read("until", Start::Earliest).await.unwrap_err(),
        ReadError::Missing(Missing::NotFound)
    );
    world.later(101);
    assert_eq!(world.content("aged").await, "2");
    assert_eq!(world.sweep().await, [name("idle")]);
    // Created again with an end that has already passed.
    world.create("until", Create { lifetime: Some(until), ..Create::open(json()) }).await.unwrap();
    assert!(world.store.describe(&name("until"), world.now).await.is_err());
}

pub async fn a_description_does_not_count_as_use(make: MakeStore<'_>) {
    let mut world = World::new(make);
    world.create("s", idle(10)).await.unwrap();
    world.later(9);
    assert!(world.store.describe(&name("s"), world.now).await.is_ok());
    world.later(1);
    assert_eq!(world.store.describe(&name("s"), world.now).await.unwrap_err(), Missing::NotFound.into());
}

/// A request before the sweep ends the stream; waiting readers must still be notified.
pub async fn a_sweep_reports_streams_that_a_request_has_found_expired(make: MakeStore<'_>) {
    let mut world = World::new(make);
    for stream in ["read", "made anew", "swept"] {
        world.create(stream, idle(5)).await.unwrap();
    }
    world.later(5);
    assert!(world.read("read", Start::Earliest).await.is_err());
    assert!(world.open("made anew").await.fresh);
    let mut ended = world.sweep().await;
    ended.sort();
    assert_eq!(ended, ["made anew", "read", "swept"].map(name));
    assert!(world.sweep().await.is_empty());
    assert!(world.store.describe(&name("made anew"), world.now).await.is_ok());
}

pub async fn a_page_lists_only_existing_streams(make: MakeStore<'_>) {
    let mut world = World::new(make);
    for stream in ["a", "a/b", "b/b", "$own/b", "source/b", "deleted/b"] {
        world.open(stream).await;
    }
    world.create("ended/b", idle(5)).await.unwrap();
    world.create("fork", fork_of("source/b", None, 0)).await.unwrap();
    world.store.delete(&name("source/b"), world.now).await.unwrap();
    world.store.delete(&name("deleted/b"), world.now).await.unwrap();
    world.later(3);
    let names = async |world: &World, prefix: &str, after: Option<&str>| -> Vec<String> {
        let page = world.store.page(prefix, after.map(name).as_ref(), world.now).await.unwrap();
        assert_eq!(page.next, None);
        page.streams.iter().map(|(name, _)| name.to_string()).collect()
    };
    assert_eq!(names(&world, "", None).await, ["$own/b", "a", "a/b", "b/b", "ended/b", "fork"]);
    assert_eq!(names(&world, "ended/b", None).await, ["ended/b"]);
    world.later(2);
    assert_eq!(
        names(&world, "", None).await,
        ["$own/b", "a", "a/b", "b/b", "fork"],
        "naming a stream does not use it"
    );
    assert_eq!(names(&world, "a", None).await, ["a", "a/b"]);
    assert_eq!(names(&world, "a", Some("a")).await, ["a/b"]);
    assert_eq!(names(&world, "", Some("ended/b")).await, ["fork"], "what is no more is a place all the same");
    for nothing in ["none", "ended/b", "source/b", "deleted/b", "b/c"] {
        assert!(names(&world, nothing, None).await.is_empty(), "{nothing}");
    }
}

pub async fn many_streams_are_listed_page_by_page(make: MakeStore<'_>) {
    let world = World::new(make);
    let count = 2 * PAGE_STREAMS_MAX + 7;
    for number in 0..count {
        world.open(&format!("many/{number:04}")).await;
    }
    let tail = world.append("many/0003", append(json(), numbers([1]))).await.unwrap().tail;
    let (mut after, mut parts, mut streams) = (None, Vec::new(), Vec::new());
    loop {
        let page = world.store.page("many/", after.as_ref(), world.now).await.unwrap();
        parts.push(page.streams.len());
        streams.extend(page.streams);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(parts, [PAGE_STREAMS_MAX, PAGE_STREAMS_MAX, 7]);
    assert!(streams.is_sorted() && streams.len() == count);
    assert_eq!(streams[3], (name("many/0003"), tail));
}

pub async fn every_result_has_the_epoch_of_its_stream(make: MakeStore<'_>) {
    let world = World::new(make);
    let mut last = None;
    for _ in 0..3 {
        let epoch = world.open("s").await.epoch;
        assert!(last < Some(epoch));
        assert_eq!(world.open("s").await.epoch, epoch, "the same stream");
        assert_eq!(world.append("s", append(json(), numbers([1]))).await.unwrap().epoch, epoch);
        assert_eq!(world.read("s", Start::Earliest).await.unwrap().epoch, epoch);
        world.create("fork", fork_of("s", None, 0)).await.unwrap();
        let fork = world.append("fork", append(json(), numbers([2]))).await.unwrap();
        assert_eq!(world.read("fork", Start::Earliest).await.unwrap().epoch, fork.epoch);
        assert!(fork.epoch > epoch);
        for stream in ["s", "fork"] {
            world.store.delete(&name(stream), world.now).await.unwrap();
        }
        last = Some(fork.epoch);
    }
}
