//! Subscriptions through power cuts: what workers were told was synced before.

use super::survive;
use crate::image::Image;
use crate::power_cut::{MEBIBYTES, cut};
use crate::stored;
use crate::world::alone;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_power_cut_loses_a_wake_or_makes_a_second_holder() {
    let _turn = alone().await;
    let image = Image::create(MEBIBYTES);
    let folder = image.path().join("store");
    survive("power cut", &stored(&folder, "always"), async |gateway| cut(&image, gateway).await).await;
}
