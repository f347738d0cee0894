//! Acknowledged messages survive a kill of the process, a power cut, a full disk and a failed sync.
//!
//! Requires root, loop devices, e2fsprogs, mount, python3 and strace; if one is missing the scenario fails and names it.
//! Each prints a line with its figures:
//!
//! ```sh
//! cargo test --test durability -- --nocapture                                # the short form: 10 outages of a kind
//! DURABILITY_CYCLES=300 cargo test --test durability kill -- --nocapture     # the full one
//! DURABILITY_CYCLES=100 cargo test --test durability power -- --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod crew;
mod full_disk;
mod full_disk_mqtt;
mod home;
mod image;
mod kill;
mod landmark;
mod lax;
mod ledger;
mod loss;
mod message;
mod outage;
mod power_cut;
mod readers;
mod resources;
mod subscriptions;
mod sync_error;
mod verdict;

/// Number of outages per scenario.
fn cycles() -> usize {
    std::env::var("DURABILITY_CYCLES").map_or(10, |text| text.parse().expect("DURABILITY_CYCLES is a number"))
}

/// Returns the arguments of a gateway that stores in `folder` and syncs by `policy`.
fn stored<'a>(folder: &'a std::path::Path, policy: &'a str) -> [&'a str; 4] {
    ["--store", folder.to_str().expect("UTF-8"), "--sync", policy]
}
