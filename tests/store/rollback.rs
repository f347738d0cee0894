//! A store that is replaced by an older copy or snapshot. Messages after that state are lost, and a reader with an offset among
//! them gets an error for ever.

use std::path::Path;

use pollgate::stream::{Gap, GapReason, Offset, ReadError, Start};

use crate::directory::{copy, directory, world};
use crate::suite::*;

/// The offset is reported as one of another epoch.
async fn is_of_another_epoch(world: &World, stream: &str, lost: Offset, when: &str) {
    let refused = world.read(stream, Start::At(lost)).await.unwrap_err();
    assert!(matches!(refused, ReadError::Gap(Gap { reason: GapReason::Epoch, .. })), "{when}: {refused:?}");
}

/// Appends to a store in `runs` runs and returns the offset after each append.
async fn grow(directory: &Path, runs: u64) -> Vec<Offset> {
    let mut offsets = Vec::new();
    for run in 0..runs {
        let (world, _) = world(directory);
        for n in 0..5 {
            offsets.push(world.push("s", [run * 5 + n]).await);
        }
        if run % 2 == 0 {
            world.store.close().await;
        }
    }
    offsets
}

#[tokio::test]
async fn an_offset_among_lost_messages_is_rejected_for_ever() {
    let (original, snapshot) = (directory(), directory());
    let (before, _) = world(original.path());
    before.open("s").await;
    let kept = before.push("s", 0..10).await;
    before.open("quiet").await;
    let quiet = before.push("quiet", [1]).await;
    drop(before);
    copy(original.path(), snapshot.path());
    // The lost future has as many runs as the one that replaces it.
    let lost = grow(original.path(), 3).await;
    for round in 0..3 {
        let (after, _) = world(snapshot.path());
        for (stream, tail) in [("s", kept), ("quiet", quiet)] {
            assert!(after.read(stream, Start::At(tail)).await.is_ok(), "round {round}, {stream}");
        }
        for lost in &lost {
            is_of_another_epoch(&after, "s", *lost, &format!("round {round}, before")).await;
        }
        // Now the tail passes the lost offsets.
        let behind = world_grows(&after, 20).await;
        for lost in &lost {
            is_of_another_epoch(&after, "s", *lost, &format!("round {round}, after")).await;
        }
        assert!(behind > kept, "offsets rise");
    }
}

async fn world_grows(world: &World, messages: u64) -> Offset {
    world.push("s", 0..messages).await
}

#[tokio::test]
async fn a_restart_invalidates_no_offset_up_to_the_tail() {
    let directory = directory();
    let (first, _) = world(directory.path());
    let mut offsets = vec![first.open("s").await.tail];
    drop(first);
    offsets.extend(grow(directory.path(), 8).await);
    assert!(offsets.is_sorted(), "offsets rise");
    let (last, _) = world(directory.path());
    last.create("fork", fork_of("s", Some(offsets[12]), 0)).await.unwrap();
    last.push("fork", [99]).await;
    drop(last);
    let (last, _) = world(directory.path());
    for (n, offset) in offsets.iter().enumerate() {
        let batch = last.read("s", Start::At(*offset)).await.unwrap();
        let expected: Vec<_> = (n as u64..40).map(|n| n.to_string()).collect();
        assert_eq!((content(&batch), batch.start), (expected.join(","), *offset));
    }
    let inherited = last.read("fork", Start::At(offsets[10])).await.unwrap();
    assert_eq!(content(&inherited), "10,11,99");
}
