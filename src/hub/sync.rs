//! The one lock that `signal.rs` is built on, so that its tests can put a model checker's lock in its place.

pub(super) use parking_lot::Mutex;
