//! The lock of `signal.rs`, in a module of its own so that `tests/signal` can replace it with the lock of
//! loom.

pub(super) use parking_lot::Mutex;
