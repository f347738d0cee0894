//! Stores with a weaker sync policy than always: only a close counts as a clean end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pollgate::store::{Disk, DiskOptions, Opened};
use pollgate::stream::SyncPolicy;
use pollgate::stream::{Gap, GapReason, ReadError, Start};

use crate::directory::directory;
use crate::suite::*;

const LAX: [SyncPolicy; 2] = [SyncPolicy::Never, SyncPolicy::Interval(Duration::from_secs(3600))];

fn open(directory: &Path, sync: SyncPolicy) -> (World, Opened) {
    let (store, opened) = Disk::open(directory, DiskOptions::new(sync), Arc::new(()), noon()).unwrap();
    (World::with(Box::new(store)), opened)
}

#[tokio::test]
async fn a_closed_store_continues_at_its_last_offset() {
    for sync in LAX {
        let directory = directory();
        let mut tail = None;
        for run in 0..3 {
            let (world, opened) = open(directory.path(), sync);
            assert!(!opened.may_lack_end, "{sync:?}, run {run}");
            match tail {
                None => drop(world.open("s").await),
                Some(tail) => {
                    let there = world.read("s", Start::At(tail)).await.unwrap();
                    assert_eq!((there.next, there.is_empty(), there.up_to_date), (tail, true, true));
                }
            }
            tail = Some(world.push("s", 2 * run..2 * run + 2).await);
            world.store.close().await;
        }
        let (world, _) = open(directory.path(), sync);
        assert_eq!(world.content("s").await, "0,1,2,3,4,5");
    }
}

#[tokio::test]
async fn a_store_that_was_dropped_without_sync_rejects_offsets_that_may_be_lost() {
    for sync in LAX {
        let directory = directory();
        let (world, _) = open(directory.path(), sync);
        world.open("s").await;
        world.push("s", 0..3).await;
        world.store.close().await;
        drop(world);
        let (world, opened) = open(directory.path(), sync);
        assert!(!opened.may_lack_end);
        let tail = world.push("s", 3..5).await;
        drop(world);
        let (world, opened) = open(directory.path(), sync);
        assert!(opened.may_lack_end, "{sync:?}");
        // Nothing is lost here, but the next messages get another epoch than messages that might have been lost.
        assert_eq!(world.content("s").await, "0,1,2,3,4");
        let there = world.read("s", Start::At(tail)).await.unwrap();
        assert_eq!((there.next, there.is_empty()), (tail, true));
        let next = world.push("s", [5]).await;
        assert_ne!(next.epoch, tail.epoch);
        let never_given = pollgate::stream::Offset { epoch: tail.epoch, ..next };
        let refused = world.read("s", Start::At(never_given)).await.unwrap_err();
        assert!(
            matches!(refused, ReadError::Gap(Gap { reason: GapReason::Epoch, .. })),
            "{sync:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_closed_store_refuses_appends() {
    for sync in LAX.into_iter().chain([SyncPolicy::Always]) {
        let directory = directory();
        let (world, _) = open(directory.path(), sync);
        world.open("s").await;
        world.store.close().await;
        assert!(world.append("s", append(json(), numbers([1]))).await.is_err(), "{sync:?}");
        assert_eq!(world.content("s").await, "");
    }
}
