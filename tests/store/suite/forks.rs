//! Forks (protocol, section 4.2).

use std::time::Duration;

use pollgate::stream::{
    Append, Branch, ChangeError, Create, CreateError, FORK_DEPTH_MAX, Lifetime, Missing, ReadError,
    Retention, Start,
};

use super::world::*;

pub async fn a_fork_shares_the_past_and_not_the_future(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("source").await;
    let point = world.push("source", 0..3).await;
    let behind = world.push("source", 3..5).await;
    let fork = world.create("fork", fork_of("source", Some(point), 0)).await.unwrap();
    assert_eq!(fork.tail, point);
    world.push("source", [5]).await;
    let own = world.push("fork", [100, 101]).await;
    assert_eq!(world.content("fork").await, "0,1,2,100,101");
    assert_eq!(world.content("source").await, "0,1,2,3,4,5");
    assert_eq!(content(&world.read("fork", Start::At(point)).await.unwrap()), "100,101");
    for (stream, offset) in [("fork", behind), ("source", own)] {
        let error = world.read(stream, Start::At(offset)).await.unwrap_err();
        assert!(
            matches!(error, ReadError::Gap(_)),
            "an offset of the other branch means nothing on {stream}"
        );
    }
    let second = world.create("second", fork_of("fork", Some(own), 0)).await.unwrap();
    assert_eq!((second.tail, world.content("second").await.as_str()), (own, "0,1,2,100,101"));
}

pub async fn a_sub_offset_refines_the_point_of_a_fork(make: MakeStore<'_>) {
    let world = World::new(make);
    let start = world.open("source").await.tail;
    world.push("source", 0..4).await;
    for count in 0..=4 {
        let stream = format!("fork {count}");
        world.create(&stream, fork_of("source", Some(start), count)).await.unwrap();
        let expected: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        assert_eq!(world.content(&stream).await, expected.join(","));
    }
    let beyond = world.create("beyond", fork_of("source", Some(start), 5)).await.unwrap_err();
    assert_eq!(beyond, CreateError::ForkOffset);
    let overflow = world.create("beyond", fork_of("source", Some(start), u64::MAX)).await.unwrap_err();
    assert_eq!(overflow, CreateError::ForkOffset);
}

pub async fn a_deleted_source_lives_on_for_its_forks_only(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("a").await;
    world.push("a", [1]).await;
    world.create("b", fork_of("a", None, 0)).await.unwrap();
    world.create("c", fork_of("b", None, 0)).await.unwrap();
    for stream in ["a", "b"] {
        world.store.delete(&name(stream), world.now).await.unwrap();
        assert_eq!(
            world.read(stream, Start::Earliest).await.unwrap_err(),
            ReadError::Missing(Missing::Deleted)
        );
        let deleted = ChangeError::Missing(Missing::Deleted);
        assert_eq!(world.store.delete(&name(stream), world.now).await.unwrap_err(), deleted);
        assert_eq!(world.create(stream, Create::open(json())).await.unwrap_err(), CreateError::NameTaken);
        assert_eq!(
            world.create("d", fork_of(stream, None, 0)).await.unwrap_err(),
            CreateError::SourceDeleted
        );
    }
    assert_eq!(world.content("c").await, "1");
    world.store.delete(&name("c"), world.now).await.unwrap();
    for stream in ["a", "b", "c"] {
        assert!(world.create(stream, Create::open(json())).await.unwrap().fresh, "{stream} is free again");
    }
}

pub async fn a_fork_does_not_inherit_the_producers_of_its_source(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("source").await;
    let first =
        Append { producer: producer(3, 0), sequence: Some("b".into()), ..append(json(), numbers([1])) };
    world.append("source", Append { close: true, ..first.clone() }).await.unwrap();
    world.create("fork", fork_of("source", None, 0)).await.unwrap();
    let again = Append { producer: producer(0, 0), sequence: Some("a".into()), ..first };
    assert!(!world.append("fork", again).await.unwrap().duplicate);
    assert_eq!(world.content("fork").await, "1,1");
}

pub async fn a_fork_outlives_the_retention_of_its_source(make: MakeStore<'_>) {
    let world = World::new(make);
    let retention = Some(Retention { messages_max: Some(2), ..Retention::default() });
    world.create("source", Create { retention, ..Create::open(json()) }).await.unwrap();
    world.push("source", 0..2).await;
    let all = Some(Retention { messages_max: Some(100), ..Retention::default() });
    world.create("keeper", Create { retention: all, ..fork_of("source", None, 0) }).await.unwrap();
    let before = world.push("source", 2..4).await;
    assert_eq!(world.content("source").await, "2,3");
    assert_eq!(world.content("keeper").await, "0,1");
    world.push("source", 4..8).await;
    let error = world.create("late", fork_of("source", Some(before), 0)).await.unwrap_err();
    assert!(matches!(error, CreateError::ForkTrimmed(_)), "{error:?}");
}

pub async fn a_source_stays_until_it_and_its_last_fork_are_deleted(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("source").await;
    world.push("source", [1]).await;
    for stream in ["first", "second", "third"] {
        world.create(stream, fork_of("source", None, 0)).await.unwrap();
    }
    let delete = async |stream| world.store.delete(&name(stream), world.now).await.unwrap();
    delete("first").await;
    assert_eq!(world.content("source").await, "1");
    delete("source").await;
    delete("second").await;
    assert_eq!(world.create("source", Create::open(json())).await.unwrap_err(), CreateError::NameTaken);
    delete("third").await;
    assert!(world.open("source").await.fresh);
    world.create("fork", fork_of("source", None, 0)).await.unwrap();
    delete("fork").await;
    assert_eq!(world.content("source").await, "", "it has no forks, and nobody has deleted it");
}

pub async fn a_snapshot_tells_where_a_stream_branches_off_and_whether_it_has_forks(make: MakeStore<'_>) {
    let world = World::new(make);
    let snapshot = async |stream: &str| world.store.snapshot(&name(stream), world.now).await.unwrap();
    world.open("source").await;
    let point = world.push("source", [1, 2]).await;
    let source = snapshot("source").await;
    assert_eq!((source.branch, source.depth, source.has_forks), (None, 0, false));
    world.create("fork", fork_of("source", None, 0)).await.unwrap();
    let at = world.push("fork", [3]).await;
    world.create("second", fork_of("fork", None, 0)).await.unwrap();
    assert!(snapshot("source").await.has_forks);
    for (stream, source, at, depth, has_forks) in
        [("fork", "source", point, 1, true), ("second", "fork", at, 2, false)]
    {
        let fork = snapshot(stream).await;
        let branch = Branch { source: name(source), at };
        assert_eq!((fork.branch, fork.depth, fork.has_forks), (Some(branch), depth, has_forks), "{stream}");
    }
    world.store.delete(&name("second"), world.now).await.unwrap();
    assert!(!snapshot("fork").await.has_forks);
}

pub async fn a_fork_begins_at_an_offset_of_a_source_that_has_not_ended_and_is_not_too_deep(
    make: MakeStore<'_>,
) {
    let mut world = World::new(make);
    world.open("other").await;
    let elsewhere = world.push("other", 0..3).await;
    world.open("source").await;
    world.push("source", 0..5).await;
    let refused = world.create("fork", fork_of("source", Some(elsewhere), 0)).await.unwrap_err();
    assert_eq!(refused, CreateError::ForkOffset, "an offset of another stream");
    let mut source = "source".to_owned();
    for depth in 1..=FORK_DEPTH_MAX {
        let fork = format!("fork {depth}");
        world.create(&fork, fork_of(&source, None, 0)).await.unwrap();
        source = fork;
    }
    let refused = world.create("too deep", fork_of(&source, None, 0)).await.unwrap_err();
    assert_eq!(refused, CreateError::ForkTooDeep);
    let idle = Some(Lifetime::Idle(Duration::from_secs(5)));
    world.create("idle", Create { lifetime: idle, ..Create::open(json()) }).await.unwrap();
    world.later(5);
    let refused = world.create("late", fork_of("idle", None, 0)).await.unwrap_err();
    assert_eq!(refused, CreateError::SourceNotFound, "the source has ended");
}
