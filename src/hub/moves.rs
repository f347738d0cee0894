//! [`Moves`]: what takes a session to another gateway, or changes it as a whole, one task at a time.

use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// Number of locks of [`Moves`]. What has the same lock moves one after the other.
const MOVES_MAX: usize = 64;

/// Lets one task at a time move a session between gateways, or change it.
#[derive(Debug)]
pub struct Moves {
    locks: [Mutex<()>; MOVES_MAX],
    hasher: RandomState,
}

impl Default for Moves {
    fn default() -> Self {
        Self { locks: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl Moves {
    /// Waits until no other task moves or changes the session with this id, or another one that shares its lock.
    pub async fn of(&self, id: &(impl Hash + ?Sized)) -> Option<MutexGuard<'_, ()>> {
        let index = self.hasher.hash_one(id) as usize % MOVES_MAX;
        Some(self.locks.get(index)?.lock().await)
    }
}
