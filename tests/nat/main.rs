//! A real NAT between clients and the gateway: connections that it forgets, and a client whose address changes.
//!
//! Needs root, iproute2, nftables and conntrack; where one is missing the scenarios fail and say so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod behind_a_nat;
mod network;
mod reader;

/// Runs `work` on this thread, whose network namespace everything in it has.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}
