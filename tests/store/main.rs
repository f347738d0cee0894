//! One suite that every store must pass. A new store adds one line here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]
#![allow(unreachable_pub, reason = "the suite is one for all stores")]

mod accounting;
mod damage;
mod directory;
mod fixture;
mod flips;
mod index;
mod permissions;
mod reclaim;
mod restart;
mod rollback;
mod second_runs;
mod sessions;
#[macro_use]
mod suite;
mod syncs;

/// The allocator of the command, which counts allocations.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

store_suite!(memory, || crate::suite::Made { store: Box::new(pollgate::store::Memory::new()), needs: None });
store_suite!(disk, crate::directory::make);
