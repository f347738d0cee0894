//! Sequence numbers and epochs that occur again in another epoch of a producer or another life of a stream.

use std::time::Duration;

use pollgate::stream::{
    Append, AppendError, AppendRefusal, Create, Lifetime, Producer, ProducerRefusal, Start,
};

use super::world::*;

/// Returns an append with a producer's epoch and sequence.
pub fn by(id: &str, epoch: u64, sequence: u64) -> Append {
    let producer = Some(Producer { id: id.into(), epoch, sequence });
    Append { producer, ..append(json(), numbers([sequence])) }
}

/// Returns an append with or without a `Stream-Seq`.
pub fn in_sequence(sequence: Option<&str>) -> Append {
    Append { sequence: sequence.map(Into::into), ..append(json(), numbers([1])) }
}

/// Returns why an append is refused.
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
    is_closed_by_sequence_1_of_epoch_4(&world).await;
}

/// Checks that the stream `s` was closed by the producer `p` in its epoch 4 with the sequence 1.
pub async fn is_closed_by_sequence_1_of_epoch_4(world: &World) {
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

pub async fn a_sequence_of_an_earlier_epoch_is_neither_a_retry_nor_accepted(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    for sequence in 0..3 {
        world.append("s", by("p", 0, sequence)).await.unwrap();
    }
    world.append("s", by("p", 7, 0)).await.unwrap();
    knows_epoch_7_of_the_producer(&world).await;
}

/// Checks that the producer `p` has made three appends to the stream `s` in its epoch 0 and one in its epoch 7.
pub async fn knows_epoch_7_of_the_producer(world: &World) {
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

pub async fn an_append_without_a_sequence_keeps_the_last_one(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    world.append("s", in_sequence(Some("b"))).await.unwrap();
    world.append("s", in_sequence(None)).await.unwrap();
    has_the_last_sequence_b(&world).await;
}

/// Checks that `b` is the last sequence of the stream `s`.
pub async fn has_the_last_sequence_b(world: &World) {
    for sequence in ["a", "b"] {
        assert_eq!(refusal(world, "s", in_sequence(Some(sequence))).await, AppendRefusal::SequenceRegression);
    }
    world.append("s", in_sequence(None)).await.unwrap();
    assert_eq!(refusal(world, "s", in_sequence(Some("b"))).await, AppendRefusal::SequenceRegression);
    world.append("s", in_sequence(Some("c"))).await.unwrap();
}

/// A reader of an earlier life detaches late, while another one is attached to the present life.
pub async fn detaching_from_an_earlier_life_does_not_detach_from_the_present_one(make: MakeStore<'_>) {
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
    assert!(world.sweep().await.is_empty());
    assert!(world.read("s", Start::Earliest).await.is_ok());
    world.store.detach(&name("s"), present, world.now);
    world.later(10);
    assert_eq!(world.sweep().await, [name("s")]);
}

/// A scheduled end of an earlier life does not end the present one.
pub async fn the_expiry_of_an_earlier_life_does_not_end_the_present_one(make: MakeStore<'_>) {
    let mut world = World::new(make);
    let until = |seconds| Create {
        lifetime: Some(Lifetime::Until(noon() + Duration::from_secs(seconds))),
        ..Create::open(json())
    };
    world.create("s", until(10)).await.unwrap();
    world.store.delete(&name("s"), world.now).await.unwrap();
    world.create("s", until(100)).await.unwrap();
    world.later(50);
    assert!(world.sweep().await.is_empty());
    world.later(50);
    assert_eq!(world.sweep().await, [name("s")]);
}
