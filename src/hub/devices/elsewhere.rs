//! [`DeviceElsewhere`]: a device that another gateway owns. [`Moves`]: locks, so that one task at a time moves a device between gateways.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

use crate::hub::ClientId;
use crate::stream::{Start, StreamName};

/// Number of locks. Devices with the same lock move one after the other.
const MOVES_MAX: usize = 64;

/// A device that another gateway owns.
#[derive(Debug, Default)]
pub(super) struct DeviceElsewhere {
    /// Number of its connections to this gateway.
    pub(super) connections: usize,
    /// While this gateway takes the device over: the positions of its last poll here, and whether it reads all streams of its filters.
    pub(super) polled: Option<(Vec<(StreamName, Start)>, bool)>,
}

impl DeviceElsewhere {
    /// Whether its client is not at this gateway.
    pub(super) fn is_idle(&self) -> bool {
        self.connections == 0 && self.polled.is_none()
    }
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
