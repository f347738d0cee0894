//! Numbers that are equal in two lives, of a producer or of a stream, and what comes between two numbers.

use std::time::Duration;

use pollgate::stream::{
    Append, AppendError, AppendRefusal, Create, Lifetime, Producer, ProducerRefusal, Start,
};

use super::world::*;

/// An append of its sequence by a producer.
pub fn by(id: &str, epoch: u64, sequence: u64) -> Append {
    let producer = Some(Producer { id: id.into(), epoch, sequence });
    Append { producer, ..append(json(), numbers([sequence])) }
}

/// One with a `Stream-Seq`, or without.
pub fn in_sequence(sequence: Option<&str>) -> Append {
    Append { sequence: sequence.map(Into::into), ..append(json(), numbers([1])) }
}

/// Why an append is refused.
pub async fn refusal(world: &World, stream: &str, append: Append) -> AppendRefusal {
    match world.append(stream, append).await {
        Err(AppendError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

pub async fn only_the_append_that_closed_a_stream_is_its_retry(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    world.append("s", by("p", 4, 0)).await.unwrap();
    let closing = |id, epoch, sequence| Append { close: true, ..by(id, epoch, sequence) };
    assert!(!world.append("s", closing("p", 4, 1)).await.unwrap().duplicate);
    is_closed_by_the_second_of_the_fourth(&world).await;
}

/// The stream `s` was closed by the producer `p` in its epoch 4 with the sequence 1.
pub async fn is_closed_by_the_second_of_the_fourth(world: &World) {
    let closing = |id, epoch, sequence| Append { close: true, ..by(id, epoch, sequence) };
    let again = world.append("s", closing("p", 4, 1)).await.unwrap();
    assert!(again.duplicate && again.closed);
    assert_eq!(again.highest, Some(1));
    for (id, epoch, sequence) in
        [("p", 5, 1), ("p", 3, 1), ("p", 4, 0), ("p", 4, 2), ("q", 4, 1), ("p", 5, 0)]
    {
        let refused = refusal(world, "s", closing(id, epoch, sequence)).await;
        assert_eq!(refused, AppendRefusal::Closed, "{id} {epoch} {sequence}");
    }
    assert_eq!(world.content("s").await, "0,1");
}

pub async fn a_number_of_an_earlier_start_is_neither_a_retry_nor_taken(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    for sequence in 0..3 {
        world.append("s", by("p", 0, sequence)).await.unwrap();
    }
    world.append("s", by("p", 7, 0)).await.unwrap();
    knows_the_seventh_start(&world).await;
}

/// Of the producer `p` in the stream `s` there were three appends in its epoch 0 and one in its epoch 7.
pub async fn knows_the_seventh_start(world: &World) {
    let stale = AppendRefusal::Producer(ProducerRefusal::StaleEpoch { current: 7 });
    for sequence in 0..4 {
        assert_eq!(refusal(world, "s", by("p", 0, sequence)).await, stale, "{sequence}");
    }
    let again = world.append("s", by("p", 7, 0)).await.unwrap();
    assert_eq!((again.duplicate, again.highest), (true, Some(0)));
    let gap = AppendRefusal::Producer(ProducerRefusal::SequenceGap { expected: 1, received: 2 });
    assert_eq!(refusal(world, "s", by("p", 7, 2)).await, gap);
    assert_eq!(world.content("s").await, "0,1,2,0");
}

pub async fn an_append_without_a_sequence_leaves_the_last_one_as_it_was(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    world.append("s", in_sequence(Some("b"))).await.unwrap();
    world.append("s", in_sequence(None)).await.unwrap();
    has_the_last_sequence_b(&world).await;
}

/// The stream `s` has seen nothing above `b`.
pub async fn has_the_last_sequence_b(world: &World) {
    for sequence in ["a", "b"] {
        assert_eq!(refusal(world, "s", in_sequence(Some(sequence))).await, AppendRefusal::SequenceRegression);
    }
    world.append("s", in_sequence(None)).await.unwrap();
    assert_eq!(refusal(world, "s", in_sequence(Some("b"))).await, AppendRefusal::SequenceRegression);
    world.append("s", in_sequence(Some("c"))).await.unwrap();
}

/// A reader of an earlier life leaves late, when somebody waits for the present one.
pub async fn leaving_an_earlier_life_lets_the_present_one_stand_still(make: MakeStore<'_>) {
    let mut world = World::new(make);
    let idle = || Create { lifetime: Some(Lifetime::Idle(Duration::from_secs(10))), ..Create::open(json()) };
    world.create("s", idle()).await.unwrap();
    let earlier = world.store.attach(&name("s")).unwrap();
    world.store.delete(&name("s"), world.now).await.unwrap();
    world.create("s", idle()).await.unwrap();
    let present = world.store.attach(&name("s")).unwrap();
    assert_ne!(earlier, present);
    world.store.detach(&name("s"), earlier, world.now);
    world.later(100);
    assert!(world.store.sweep(world.now).is_empty());
    assert!(world.read("s", Start::Earliest).await.is_ok());
    world.store.detach(&name("s"), present, world.now);
    world.later(10);
    assert_eq!(world.store.sweep(world.now), [name("s")]);
}

/// What was to be looked at in an earlier life says nothing about the present one.
pub async fn the_end_of_an_earlier_life_is_not_that_of_the_present_one(make: MakeStore<'_>) {
    let mut world = World::new(make);
    let until = |seconds| Create {
        lifetime: Some(Lifetime::Until(noon() + Duration::from_secs(seconds))),
        ..Create::open(json())
    };
    world.create("s", until(10)).await.unwrap();
    world.store.delete(&name("s"), world.now).await.unwrap();
    world.create("s", until(100)).await.unwrap();
    world.later(50);
    assert!(world.store.sweep(world.now).is_empty());
    world.later(50);
    assert_eq!(world.store.sweep(world.now), [name("s")]);
}
