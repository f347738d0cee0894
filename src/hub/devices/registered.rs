//! [`RegisteredDevices`]: the devices by id, and how many are in each state, so that a scrape of the metrics visits none of them.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use super::device::Device;
use crate::hub::ClientId;

/// The state of a device in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceState {
    Connected,
    Woken,
    Pending,
    Asleep,
}

/// All devices, counted by their states.
#[derive(Debug, Default)]
pub(super) struct RegisteredDevices {
    by_id: HashMap<ClientId, Device>,
    in_state: [usize; 4],
}

/// A device that may change. Its state is counted again when this is dropped.
pub(super) struct DeviceMut<'a> {
    device: &'a mut Device,
    before: DeviceState,
    in_state: &'a mut [usize; 4],
}

impl DeviceState {
    fn of(device: &Device) -> Self {
        match device {
            Device { connections: 1.., .. } => Self::Connected,
            Device { outstanding: Some(_), .. } => Self::Woken,
            device if device.is_pending() => Self::Pending,
            _ => Self::Asleep,
        }
    }

    fn leave(self, in_state: &mut [usize; 4]) {
        if let Some(count) = in_state.get_mut(self as usize) {
            *count = count.saturating_sub(1);
        }
    }

    fn enter(self, in_state: &mut [usize; 4]) {
        if let Some(count) = in_state.get_mut(self as usize) {
            *count += 1;
        }
    }
}

impl RegisteredDevices {
    pub(super) fn get(&self, id: &ClientId) -> Option<&Device> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &ClientId) -> Option<DeviceMut<'_>> {
        let device = self.by_id.get_mut(id)?;
        let before = DeviceState::of(device);
        Some(DeviceMut { device, before, in_state: &mut self.in_state })
    }

    pub(super) fn insert(&mut self, device: Device) {
        DeviceState::of(&device).enter(&mut self.in_state);
        if let Some(replaced) = self.by_id.insert(device.id.clone(), device) {
            DeviceState::of(&replaced).leave(&mut self.in_state);
        }
    }

    pub(super) fn remove(&mut self, id: &ClientId) -> Option<Device> {
        let device = self.by_id.remove(id)?;
        DeviceState::of(&device).leave(&mut self.in_state);
        Some(device)
    }

    pub(super) fn contains(&self, id: &ClientId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Device> {
        self.by_id.values()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Number of devices that are connected, woken, pending, and asleep.
    pub(super) fn in_state(&self) -> [usize; 4] {
        self.in_state
    }

    /// The same, from the devices themselves.
    #[cfg(test)]
    pub(super) fn counted_in_state(&self) -> [usize; 4] {
        let mut in_state = [0; 4];
        self.by_id.values().for_each(|device| DeviceState::of(device).enter(&mut in_state));
        in_state
    }
}

impl Deref for DeviceMut<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        self.device
    }
}

impl DerefMut for DeviceMut<'_> {
    fn deref_mut(&mut self) -> &mut Device {
        self.device
    }
}

impl Drop for DeviceMut<'_> {
    fn drop(&mut self) {
        let after = DeviceState::of(self.device);
        if after != self.before {
            self.before.leave(self.in_state);
            after.enter(self.in_state);
        }
    }
}
