//! Appends that create their stream, and appends without a content type.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::Duration;

use pollgate::stream::{
    Append, AppendError, AppendRefusal, ContentType, Create, CreateError, CreateIfMissing, InvalidMessages,
    Lifetime, MessageLimit, Missing, ReadError, Retention, Start,
};

use super::world::*;

/// Returns an append that takes the content type of its stream.
fn of_any_type(body: &'static str, or: ContentType) -> Append {
    Append::of_any_type(body.into(), or, 8)
}

pub async fn an_append_creates_its_stream_once(make: MakeStore<'_>) {
    let world = World::new(make);
    let create = Some(CreateIfMissing {
        retention: Retention { messages_max: Some(2), ..Retention::default() },
        ..CreateIfMissing::default()
    });
    let append = |number| Append { create, ..append(json(), numbers([number])) };
    let first = world.append("s", append(0)).await.unwrap();
    assert_eq!((first.created, first.messages, first.bytes), (true, 1, 1));
    let second = world.append("s", append(1)).await.unwrap();
    assert!(!second.created && second.tail > first.tail && second.epoch == first.epoch);
    world.push("s", [2]).await;
    assert_eq!(world.content("s").await, "1,2", "what it keeps is what the first append said");
    let other = Append { create, ..Append::of(text(), raw(b"x")) };
    assert!(matches!(
        world.append("s", other).await,
        Err(AppendError::Refused { refusal: AppendRefusal::ContentType, .. })
    ));
    assert!(!world.create("s", Create::open(json())).await.unwrap().fresh);
    assert_eq!(world.create("s", Create::open(text())).await.unwrap_err(), CreateError::ExistsDifferently);
}

pub async fn a_close_alone_creates_a_closed_stream(make: MakeStore<'_>) {
    let world = World::new(make);
    let closed = world.append("s", Append::closing().or_create()).await.unwrap();
    assert!(closed.created && closed.closed);
    let read = world.read("s", Start::Earliest).await.unwrap();
    assert!(read.closed && read.is_empty());
    assert_eq!(read.content_type, ContentType::octet_stream());
}

pub async fn a_refused_append_creates_nothing(make: MakeStore<'_>) {
    let world = World::new(make);
    let gap = Append { producer: producer(0, 7), ..append(json(), numbers([7])) }.or_create();
    assert!(matches!(world.append("s", gap).await, Err(AppendError::Refused { .. })));
    let not_json = of_any_type("{", json()).or_create();
    assert!(matches!(
        world.append("s", not_json).await,
        Err(AppendError::Messages(InvalidMessages::NotJson(_)))
    ));
    assert_eq!(world.read("s", Start::Earliest).await.unwrap_err(), ReadError::Missing(Missing::NotFound));
    assert_eq!(world.store.streams(), 0);
    let first = Append { producer: producer(0, 0), ..append(json(), numbers([0])) }.or_create();
    assert!(world.append("s", first.clone()).await.unwrap().created);
    let again = world.append("s", first).await.unwrap();
    assert!(again.duplicate && !again.created && again.messages == 0);
}

pub async fn an_append_begins_another_life_of_a_stream_that_has_ended(make: MakeStore<'_>) {
    let mut world = World::new(make);
    let idle = Some(Lifetime::Idle(Duration::from_secs(5)));
    let created = world.create("s", Create { lifetime: idle, ..Create::open(json()) }).await.unwrap();
    world.push("s", [1]).await;
    world.later(5);
    let appended = world.append("s", append(text(), raw(b"x")).or_create()).await.unwrap();
    assert!(appended.created && appended.epoch > created.epoch);
    assert_eq!(world.content("s").await, "x");
    assert_eq!(world.sweep().await, [name("s")], "the end of the former one is told");
    // A deleted source that a fork still needs: its name is not free.
    world.open("source").await;
    world.create("fork", fork_of("source", None, 0)).await.unwrap();
    world.store.delete(&name("source"), world.now).await.unwrap();
    let deleted = world.append("source", append(json(), numbers([1])).or_create()).await;
    assert_eq!(deleted, Err(AppendError::Missing(Missing::Deleted)));
}

pub async fn an_append_of_any_type_is_split_by_the_type_of_its_stream(make: MakeStore<'_>) {
    let world = World::new(make);
    let body = "[1, {\"a\":2}]";
    world.open("json").await;
    let appended = world.append("json", of_any_type(body, text()).or_create()).await.unwrap();
    assert_eq!((appended.messages, appended.created), (2, false));
    assert_eq!(world.content("json").await, "1,{\"a\":2}");
    world.create("text", Create::open(text())).await.unwrap();
    assert_eq!(world.append("text", of_any_type(body, json())).await.unwrap().messages, 1);
    assert_eq!(world.content("text").await, body);
    let missing = world.append("new", of_any_type(body, json())).await;
    assert_eq!(missing, Err(AppendError::Missing(Missing::NotFound)));
    let appended = world.append("new", of_any_type(body, json()).or_create()).await.unwrap();
    assert_eq!((appended.messages, appended.created), (2, true));
    for (body, error) in [
        ("[[[[[[[[[1]]]]]]]]]", AppendError::Messages(InvalidMessages::TooDeep(8))),
        ("[]", AppendError::Empty),
    ] {
        assert_eq!(world.append("json", of_any_type(body, text())).await, Err(error), "{body}");
    }
    assert_eq!(world.content("json").await, "1,{\"a\":2}");
}

/// Number of concurrent appends.
const APPENDS: usize = 8;

/// Each of many concurrent appends may create the stream, half of them with another content type.
pub async fn one_of_many_concurrent_appends_creates_the_stream(make: MakeStore<'_>) {
    let Made { store, needs: _needs } = make();
    let start = Barrier::new(APPENDS);
    for round in 0..20 {
        let stream = name(&format!("race/{round}"));
        let append = |number: usize| {
            let or = if number.is_multiple_of(2) { json() } else { text() };
            let append = of_any_type("1", or).or_create();
            start.wait();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(store.append(&stream, append.into(), noon())).unwrap()
        };
        let appended: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..APPENDS)
                .map(|number| {
                    scope.spawn({
                        let append = &append;
                        move || append(number)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let created = appended.iter().filter(|appended| appended.created).count();
        let tails: BTreeSet<_> = appended.iter().map(|appended| appended.tail).collect();
        assert_eq!((created, tails.len()), (1, APPENDS), "round {round}");
        let limit = MessageLimit { bytes_max: 1 << 20, count_max: 100 };
        let kept = store.messages(&stream, Start::Earliest, limit, noon()).await.unwrap();
        assert_eq!(kept.messages.len(), APPENDS, "round {round}: all are kept");
    }
}
