//! The lock and the thread-local storage of `signal.rs` and `in_place.rs`, in a module of its own so that `tests/signal` can replace them
//! with those of loom.

pub(super) use std::thread_local as per_thread;

pub(super) use parking_lot::Mutex;
