//! Receipts of SMS: what a message centre tells of an SMS that it has accepted.
//!
//! A receipt names the telephone number, which finds the devices, also after a restart. It does not prove that the device is awake; only
//! a poll does. A receipt that the SMS has not arrived saves the wait until the device counts as silent.

use std::time::SystemTime;

use super::app::CredentialKind;
use super::channel::{Channel, ReceiptState};
use super::table::{DeviceTable, Devices, VISITED_AT_ONCE};
use crate::hub::ClientId;

/// A number counts as gone after so many SMS in a row that could not be delivered, since message centres do not tell in the same way
/// why: a number that is not assigned any more, and a fault of the network.
const UNDELIVERED_MAX: u32 = 2;

impl Devices {
    /// Applies a receipt for an SMS of `app` to a number such as `+31600000001`. `wall` is the time of day.
    pub fn note_receipt(
        &self,
        app: &str,
        number: &str,
        state: ReceiptState,
        now: SystemTime,
        wall: SystemTime,
    ) {
        let mut table = self.table.lock();
        let table = &mut *table;
        let Some(app) = table.apps.get_mut(app).filter(|app| app.policy.credential == CredentialKind::Phone)
        else {
            return;
        };
        self.metrics.receipt(app.policy.provider, state.as_str());
        let name = app.policy.name.clone();
        let believed = (state == ReceiptState::Delivered).then(|| app.succeeded());
        // Few devices share a number.
        let devices = table.by_phone.get(number).into_iter().flatten().take(VISITED_AT_ONCE);
        for id in devices.cloned().collect::<Vec<_>>() {
            let Some(mut device) = table.devices.get_mut(&id) else { continue };
            let is_meant =
                |channel: &Channel| channel.app == name && channel.credential.token() == Some(number);
            let Some(index) = device.channels.iter().position(is_meant) else { continue };
            if device.has_ordered(index)
                && let Some(channel) = device.channels.get_mut(index)
            {
                // The receipt has overtaken the response that accepts the SMS.
                channel.early_receipt = Some(state);
            } else {
                drop(device);
                self.apply_receipt(table, &id, index, state, (now, wall));
            }
        }
        if let Some(believed) = believed {
            self.settle(table, &name, believed, now);
        }
    }

    /// Applies a receipt to the channel of a device with this index.
    pub(super) fn apply_receipt(
        &self,
        table: &mut DeviceTable,
        id: &ClientId,
        index: usize,
        state: ReceiptState,
        (now, wall): (SystemTime, SystemTime),
    ) {
        let Some(mut device) = table.devices.get_mut(id) else { return };
        let Some(channel) = device.channels.get_mut(index) else { return };
        let mut gone = None;
        channel.last_error = Some(state.as_str().into());
        match state {
            ReceiptState::Delivered => {
                (channel.last_ok, channel.last_error) = (Some(wall), None);
                (channel.undelivered, channel.is_gone) = (0, false);
            }
            ReceiptState::Expired => device.expired(index, now),
            ReceiptState::Rejected => device.undelivered(index),
            ReceiptState::Undeliverable => {
                channel.undelivered += 1;
                channel.is_gone = channel.undelivered >= UNDELIVERED_MAX;
                gone = channel.is_gone.then(|| channel.app.clone());
                device.undelivered(index);
            }
            ReceiptState::Other => channel.last_error = None,
        }
        drop(device);
        if let Some(app) = gone.and_then(|app| table.apps.get_mut(&app)) {
            self.note_gone(app, id);
        }
        table.unsaved.insert(id.clone());
        self.schedule(table, id, now);
    }
}
