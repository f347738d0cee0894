//! What is known of devices that other gateways have: [`DeviceElsewhere`], and [`Moves`], the order in which they come and go.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

use crate::hub::ClientId;
use crate::stream::{Start, StreamName};

/// Devices that move at the same time, at most.
const MOVES_MAX: usize = 64;

/// A device that another gateway has.
#[derive(Debug, Default)]
pub(super) struct DeviceElsewhere {
    /// Its connections to this gateway.
    pub(super) connections: usize,
    /// What its last poll here has read, and whether that is everything, while it is being taken over.
    pub(super) polled: Option<(Vec<(StreamName, Start)>, bool)>,
}

/// Lets one task at a time move a device.
#[derive(Debug)]
pub(super) struct Moves {
    locks: [Mutex<()>; MOVES_MAX],
    hasher: RandomState,
}

impl Default for Moves {
    fn default() -> Self {
        Self { locks: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl Moves {
    /// Waits until no other task moves a device that shares its lock.
    pub(super) async fn of(&self, id: &ClientId) -> Option<MutexGuard<'_, ()>> {
        let index = self.hasher.hash_one(id) as usize % MOVES_MAX;
        Some(self.locks.get(index)?.lock().await)
    }
}
