//! One suite that every store has to pass. A new store adds one line here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]
#![allow(unreachable_pub, reason = "the suite is one for all stores")]

#[macro_use]
mod suite;

store_suite!(memory, || Box::new(pollgate::store::Memory::new()));
