//! State of a stream's writers over restarts: from the records of appends, and from the state records that reclaiming writes in
//! their place.

use std::path::Path;

use pollgate::stream::{Append, Payload};

use crate::directory::{directory, world_of};
use crate::suite::*;

/// Small files, so that one is reclaimed soon.
const SEGMENT_BYTES: u32 = 16 * 1024;

/// Writes to other streams and deletes them, until the first file is removed and its remaining content is written again.
async fn until_the_first_file_is_gone(directory: &Path, world: &World) {
    let first = directory.join("0000000001.log");
    for round in 0.. {
        assert!(round < 10_000, "the first file is never given up");
        if !first.exists() {
            return;
        }
        let stream = format!("garbage/{round}");
        world.create(&stream, pollgate::stream::Create::open(text())).await.unwrap();
        world.append(&stream, append(text(), Payload::raw(vec![b'x'; 4000].into()))).await.unwrap();
        world.store.delete(&name(&stream), world.now).await.unwrap();
    }
}

/// Runs `before` on a stream; `after` must hold at once, after a restart, and after a second restart before which everything
/// was written again.
async fn through_restarts(before: impl AsyncFnOnce(&World), after: impl AsyncFn(&World)) {
    let directory = directory();
    let (world, _) = world_of(directory.path(), SEGMENT_BYTES);
    world.open("s").await;
    before(&world).await;
    drop(world);
    let (world, _) = world_of(directory.path(), SEGMENT_BYTES);
    after(&world).await;
    until_the_first_file_is_gone(directory.path(), &world).await;
    after(&world).await;
    drop(world);
    let (world, _) = world_of(directory.path(), SEGMENT_BYTES);
    after(&world).await;
}

#[tokio::test]
async fn the_producer_that_closed_a_stream_is_known_with_its_epoch() {
    let before = async |world: &World| {
        world.append("s", by("p", 4, 0)).await.unwrap();
        world.append("s", Append { close: true, ..by("p", 4, 1) }).await.unwrap();
    };
    through_restarts(before, async |world| is_closed_by_sequence_1_of_epoch_4(world).await).await;
}

#[tokio::test]
async fn the_latest_epoch_of_a_producer_is_known() {
    let before = async |world: &World| {
        for sequence in 0..3 {
            world.append("s", by("p", 0, sequence)).await.unwrap();
        }
        world.append("s", by("p", 7, 0)).await.unwrap();
    };
    through_restarts(before, async |world| knows_epoch_7_of_the_producer(world).await).await;
}

#[tokio::test]
async fn the_last_sequence_is_known_after_appends_without_one() {
    let before = async |world: &World| {
        for sequence in [Some("a"), Some("b"), None, None] {
            world.append("s", in_sequence(sequence)).await.unwrap();
        }
    };
    let after = async |world: &World| {
        let refused = refusal(world, "s", in_sequence(Some("b"))).await;
        assert_eq!(refused, pollgate::stream::AppendRefusal::SequenceRegression);
    };
    through_restarts(before, after).await;
}
