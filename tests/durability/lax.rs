//! Stores that never or seldom sync by themselves: data that has reached the disk stays there even if it is moved, and a drain
//! writes everything to the disk.

use std::path::Path;

use crate::image::Image;
use crate::stored;
use crate::world::{Gateway, PATIENCE, alone, delete, get, post, put};

const MEBIBYTES: u64 = 128;

/// Sync policies that sync nothing during a test.
const LAX: [&str; 2] = ["never", "interval:1h"];

/// Size of a message that fills a part of a file of the store.
const LARGE: usize = 1 << 20;

fn arguments<'a>(folder: &'a Path, sync: &'a str) -> Vec<&'a str> {
    [&stored(folder, sync)[..], &["--limit", "drain_spread=100ms"]].concat()
}

async fn numbers(gateway: &Gateway) -> Vec<u64> {
    let answer = gateway.send(get("/v1/stream/kept")).await.expect(200);
    serde_json::from_slice(&answer.body).expect("numbers")
}

async fn publish(gateway: &Gateway, numbers: std::ops::Range<u64>) {
    for number in numbers {
        gateway.send(post("/v1/stream/kept").json(number)).await.expect(204);
    }
}

/// 1. The first file of the store is on the disk, with messages of a stream that stays.
/// 2. Everything else in it is deleted, so that these messages are moved to another file and the first file is removed.
/// 3. The power is cut at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_removed_only_after_its_moved_messages_are_on_the_disk() {
    let _turn = alone().await;
    for sync in LAX {
        let image = Image::create(MEBIBYTES);
        let folder = image.path().join("store");
        let gateway = Gateway::start(&arguments(&folder, sync)).await;
        gateway.send(put("/v1/stream/kept").json("")).await.expect(201);
        publish(&gateway, 0..100).await;
        let first = folder.join("0000000001.log");
        assert!(first.exists());
        image.sync();
        for round in 0.. {
            assert!(round < 200, "--sync {sync}: the first file is never removed");
            let garbage = format!("/v1/stream/garbage/{round}");
            gateway.send(put(&garbage).text("x".repeat(LARGE))).await.expect(201);
            gateway.send(delete(&garbage)).await.expect(204);
            if !first.exists() {
                break;
            }
        }
        image.lose_power();
        gateway.kill().await;
        image.mount_again().await;
        let gateway = Gateway::start(&arguments(&folder, sync)).await;
        assert_eq!(numbers(&gateway).await, (0..100).collect::<Vec<_>>(), "--sync {sync}");
        gateway.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_writes_unsynced_messages_to_the_disk() {
    let _turn = alone().await;
    for sync in LAX {
        let image = Image::create(MEBIBYTES);
        let folder = image.path().join("store");
        let mut gateway = Gateway::start(&arguments(&folder, sync)).await;
        gateway.send(put("/v1/stream/kept").json("")).await.expect(201);
        image.sync();
        publish(&gateway, 0..100).await;
        let tail = gateway.send(get("/v1/stream/kept")).await.next_offset();
        gateway.signal("TERM");
        assert!(gateway.ended(PATIENCE).await.success());
        drop(gateway);
        image.lose_power();
        image.mount_again().await;
        let gateway = Gateway::start(&arguments(&folder, sync)).await;
        assert_eq!(numbers(&gateway).await, (0..100).collect::<Vec<_>>(), "--sync {sync}");
        let there = gateway.send(get(format!("/v1/stream/kept?offset={tail}"))).await.expect(200);
        assert_eq!(there.text(), "[]", "--sync {sync}");
        gateway.kill().await;
    }
}
