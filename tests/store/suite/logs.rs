//! Appends and reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use pollgate::stream::{
    Append, AppendError, AppendRefusal, Create, CreateError, Epoch, Gap, GapReason, Offset, Position,
    ReadError, ReadLimit, Retention, Start,
};

use super::world::*;

pub async fn messages_come_back_in_order_from_any_offset(make: MakeStore<'_>) {
    let world = World::new(make);
    let mut offsets = vec![world.open("s").await.tail];
    for n in 0..600 {
        offsets.push(world.push("s", [2 * n, 2 * n + 1]).await);
    }
    for (index, offset) in offsets.iter().enumerate() {
        let batch = world.read("s", Start::At(*offset)).await.unwrap();
        let expected: Vec<_> = (2 * index..1200).map(|n| n.to_string()).collect();
        assert_eq!(content(&batch), expected.join(","));
        assert_eq!((batch.start, batch.next), (*offset, *offsets.last().unwrap()));
    }
}

pub async fn offsets_rise_and_sort_as_text(make: MakeStore<'_>) {
    let world = World::new(make);
    let mut last = world.open("s").await.tail.to_string();
    for n in 0..300 {
        let next = world.push("s", [n]).await.to_string();
        assert!(next > last);
        last = next;
    }
}

pub async fn a_read_at_the_tail_is_empty_and_up_to_date(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    let tail = world.push("s", 0..3).await;
    for start in [Start::Tail, Start::At(tail)] {
        let batch = world.read("s", start).await.unwrap();
        assert!(batch.is_empty() && batch.up_to_date && !batch.closed);
        assert_eq!((batch.next, batch.tail), (tail, tail.position));
    }
}

pub async fn offsets_that_were_never_given_are_refused(make: MakeStore<'_>) {
    let world = World::new(make);
    let tail = world.open("s").await.tail;
    let behind = Offset { position: Position(tail.position.0 + 1), ..tail };
    assert_eq!(world.read("s", Start::At(behind)).await.unwrap_err(), ReadError::BehindTail);
    let elsewhere = Offset { epoch: Epoch(tail.epoch.0 ^ 1), ..tail };
    let elsewhere = Offset { position: Position(5), ..elsewhere };
    let gap = Gap { reason: GapReason::Epoch, earliest: tail };
    assert_eq!(world.read("s", Start::At(elsewhere)).await.unwrap_err(), ReadError::Gap(gap));
}

pub async fn a_closed_stream_refuses_appends_and_reports_its_close_at_the_tail(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    let before = world.push("s", [1]).await;
    let last = Append { close: true, ..append(json(), numbers([2])) };
    assert!(world.append("s", last.clone()).await.unwrap().closed);
    let tail = world.read("s", Start::Tail).await.unwrap();
    assert!(tail.closed && tail.is_empty());
    let refused = AppendError::Refused { refusal: AppendRefusal::Closed, tail: tail.next };
    assert_eq!(world.append("s", last).await.unwrap_err(), refused);
    let limit = ReadLimit { bytes_max: 1 };
    let short = world.store.read(&name("s"), Start::Earliest, limit, world.now).await.unwrap();
    let rest = world.read("s", Start::At(before)).await.unwrap();
    assert_eq!((content(&rest).as_str(), rest.closed), ("2", true));
    assert!(short.next == tail.next || !short.closed);
}

pub async fn a_producers_retry_is_stored_once(make: MakeStore<'_>) {
    let world = World::new(make);
    world.open("s").await;
    for sequence in [0, 0, 1, 0, 1, 2] {
        let append = Append { producer: producer(0, sequence), ..append(json(), numbers([sequence])) };
        world.append("s", append).await.unwrap();
    }
    assert_eq!(world.content("s").await, "0,1,2");
    let gap = Append { producer: producer(0, 9), ..append(json(), numbers([9])) };
    assert!(matches!(world.append("s", gap).await, Err(AppendError::Refused { .. })));
}

pub async fn text_is_read_in_whole_characters(make: MakeStore<'_>) {
    let world = World::new(make);
    world.create("s", Create::open(text())).await.unwrap();
    let limit = ReadLimit { bytes_max: 1 << 20 };
    let read = async |start| world.store.read(&name("s"), start, limit, world.now).await.unwrap();
    let mut start = Start::Earliest;
    let mut seen = String::new();
    for (bytes, so_far) in
        [(&b"a\xf0"[..], "a"), (b"\x9f", "a"), (b"\x98\x80b\xe2\x82", "a😀b"), (b"\xac", "a😀b€")]
    {
        world.append("s", append(text(), raw(bytes))).await.unwrap();
        let batch = read(start).await;
        seen.push_str(&content(&batch));
        assert_eq!(seen, so_far);
        start = Start::At(batch.next);
    }
    assert!(read(start).await.is_empty());
}

pub async fn retention_trims_the_front_and_reports_how_much_is_missed(make: MakeStore<'_>) {
    let mut world = World::new(make);
    let keep = |messages_max, bytes_max, age_max: Option<u64>| Create {
        retention: Some(Retention {
            messages_max,
            bytes_max,
            age_max: age_max.map(std::time::Duration::from_secs),
        }),
        ..Create::open(json())
    };
    let streams = [
        ("count", keep(Some(3), None, None)),
        ("bytes", keep(None, Some(3), None)),
        ("age", keep(None, None, Some(10))),
    ];
    for (stream, create) in streams {
        let start = world.create(stream, create).await.unwrap().tail;
        for n in 0..3 {
            world.push(stream, [n]).await;
        }
        world.later(20);
        for n in 3..6 {
            world.push(stream, [n]).await;
        }
        assert_eq!(world.content(stream).await, "3,4,5", "{stream}");
        let earliest = world.store.describe(&name(stream), world.now).await.unwrap().earliest;
        assert_eq!(earliest.position, Position(3), "{stream}");
        let gap = Gap { reason: GapReason::Trimmed { missed: 3 }, earliest };
        assert_eq!(world.read(stream, Start::At(start)).await.unwrap_err(), ReadError::Gap(gap), "{stream}");
        assert_eq!(content(&world.read(stream, Start::At(earliest)).await.unwrap()), "3,4,5", "{stream}");
    }
}

pub async fn a_repeated_creation_is_the_same_stream_and_a_different_one_a_conflict(make: MakeStore<'_>) {
    let world = World::new(make);
    assert!(world.open("s").await.fresh);
    let tail = world.push("s", [1]).await;
    let again = world.open("s").await;
    assert!(!again.fresh && again.tail == tail);
    let different = [
        Create::open(text()),
        Create { closed: true, ..Create::open(json()) },
        Create {
            retention: Some(Retention { messages_max: Some(1), ..Retention::default() }),
            ..Create::open(json())
        },
        fork_of("s", None, 0),
    ];
    for create in different {
        assert_eq!(world.create("s", create).await.unwrap_err(), CreateError::ExistsDifferently);
    }
}

pub async fn concurrent_appends_are_each_stored_once(make: MakeStore<'_>) {
    let world = Arc::new(World::new(make));
    world.open("s").await;
    let writers: Vec<_> = (0..8u64)
        .map(|writer| {
            let world = world.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let appends = async {
                    for n in 0..250 {
                        world.push("s", [writer * 1000 + n]).await;
                    }
                };
                runtime.block_on(appends);
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let read: Vec<u64> = world.content("s").await.split(',').map(|n| n.parse().unwrap()).collect();
    let distinct: BTreeSet<_> = read.iter().copied().collect();
    let expected: BTreeSet<_> = (0..8).flat_map(|writer| (0..250).map(move |n| writer * 1000 + n)).collect();
    assert_eq!((read.len(), distinct), (2000, expected));
    for writer in 0..8 {
        let own: Vec<_> = read.iter().filter(|n| *n / 1000 == writer).collect();
        assert!(own.is_sorted(), "a writer's own appends keep their order");
    }
}
