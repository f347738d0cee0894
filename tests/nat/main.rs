//! A real NAT between clients and the gateway: forgotten connections, and a client whose address changes.
//!
//! Requires root, iproute2, nftables and conntrack; if one is missing the scenarios fail and name it.

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

/// Runs `work` on this thread, and so in this thread's network namespace.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}
