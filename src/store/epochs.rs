//! Where epochs come from: a number that rises, from a random beginning, so that two stores never give the same ones.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stream::Epoch;

/// Hands out epochs.
#[derive(Debug)]
pub(super) struct Epochs(AtomicU64);

impl Epochs {
    /// Begins at random.
    pub(super) fn random() -> Self {
        Self(AtomicU64::new(fastrand::u64(1 << 32..1 << 62)))
    }

    /// Goes on with `next`.
    pub(super) fn from(next: Epoch) -> Self {
        Self(AtomicU64::new(next.0))
    }

    /// The one that comes next.
    pub(super) fn peek(&self) -> Epoch {
        Epoch(self.0.load(Ordering::Relaxed))
    }

    /// One that was never handed out before.
    pub(super) fn next(&self) -> Epoch {
        Epoch(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
