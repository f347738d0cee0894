//! Power cuts: unsynced data is lost, unlike after a kill, which the page cache survives.

use std::time::Duration;

use tokio::time::sleep;

use crate::image::Image;
use crate::loss::lose;
use crate::outage::survive;
use crate::stored;
use crate::world::{Gateway, alone, get, post, put};

/// Larger than the data of the longest run.
pub(crate) const MEBIBYTES: u64 = 256;

const INTERVAL: Duration = Duration::from_millis(100);

/// Number of attempts of the control: one is enough unless the kernel writes everything back shortly before.
const CONTROLS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let _turn = alone().await;
    let image = Image::create(MEBIBYTES);
    let folder = image.path().join("store");
    survive("power cut", &stored(&folder, "always"), async |gateway| cut(&image, gateway).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_no_more_than_the_last_interval_between_syncs() {
    let _turn = alone().await;
    let image = Image::create(MEBIBYTES);
    let folder = image.path().join("store");
    let outage = async |gateway| {
        sleep(5 * INTERVAL).await;
        cut(&image, gateway).await;
    };
    let loss = lose(&stored(&folder, "interval:100ms"), || {}, outage).await;
    assert_eq!(loss.lost, 0, "{loss:?}");
}

/// What a disk that is away does not read is not damaged: a reader that were told so would leave it out for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_counts_as_damaged_while_the_disk_is_away() {
    let _turn = alone().await;
    let image = Image::create(MEBIBYTES);
    let folder = image.path().join("store");
    let arguments = [&stored(&folder, "always")[..], &["--limit", "store_cache_bytes=0"]].concat();
    let gateway = Gateway::start(&arguments).await;
    gateway.send(put("/v1/stream/s").json("[1,2]")).await.expect(201);
    gateway.send(post("/v1/stream/s").json("3")).await.expect(204);
    image.lose_power();
    let read = || get("/v1/stream/s?offset=-1");
    gateway.send(read()).await.expect(503);
    gateway.send(post("/v1/stream/s").json("4")).await.expect(500);
    gateway.send(read()).await.expect(503);
    assert_eq!(gateway.metric("pollgate_store_damaged_bytes").await as usize, 0);
    gateway.kill().await;
    image.mount_again().await;
    let gateway = Gateway::start(&arguments).await;
    assert_eq!(gateway.send(read()).await.expect(200).json(), serde_json::json!([1, 2, 3]));
}

/// Control: without sync the same outage loses messages; otherwise the test could not detect losses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_losses_of_a_power_cut_without_sync_are_detected() {
    let _turn = alone().await;
    let mut losses = Vec::new();
    for _ in 0..CONTROLS {
        let image = Image::create(MEBIBYTES);
        let folder = image.path().join("store");
        let outage = async |gateway| cut(&image, gateway).await;
        losses.push(lose(&stored(&folder, "never"), || image.sync(), outage).await);
    }
    println!("power cut with --sync never, readers told: {losses:?}");
    assert!(losses.iter().any(|loss| loss.lost > 0 && loss.left > 0), "{losses:?}");
}

pub(crate) async fn cut(image: &Image, gateway: Gateway) {
    image.lose_power();
    gateway.kill().await;
    image.mount_again().await;
}
