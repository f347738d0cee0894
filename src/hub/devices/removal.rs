//! What ends for devices: channels that a provider calls gone, registrations that have expired, and those of credentials that were
//! revoked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::app::App;
use super::channel::{Channel, RemovalReason, Removed};
use super::device::{Device, Outstanding};
use super::table::{DeviceTable, Devices, VISITED_AT_ONCE};
use crate::hub::ClientId;

impl Devices {
    /// Takes the channels that were removed since the last call.
    pub fn take_removed(&self) -> Vec<Removed> {
        std::mem::take(&mut self.table.lock().removed)
    }

    /// A provider calls a device gone. If it has called too many gone, an alarm is raised.
    pub(super) fn note_gone(&self, app: &mut App, device: &ClientId) {
        if app.gone(device) {
            self.metrics.alarm(app.policy.provider);
            tracing::error!(
                app = &*app.policy.name,
                "ALARM: a provider calls all devices gone, so none is removed; check project, environment and topic"
            );
        }
    }

    /// The provider is known to be right, or wrong, about devices that it has called gone.
    pub(super) fn settle(
        &self,
        table: &mut DeviceTable,
        app: &Arc<str>,
        (suspects, is_believable): (BTreeSet<ClientId>, bool),
        now: SystemTime,
    ) {
        for id in suspects {
            table.settle(&id, app, is_believable);
            self.schedule(table, &id, now);
        }
    }

    /// The ids of the devices that were registered with credentials.
    pub(super) fn with_credentials(&self) -> Vec<ClientId> {
        let table = self.table.lock();
        let devices = table.devices.values().filter(|device| device.credentials.is_some());
        devices.map(|device| device.id.clone()).collect()
    }

    /// Removes those of some devices whose credentials `are_revoked`, at most [`VISITED_AT_ONCE`] of them. Returns how many.
    pub(super) fn remove_revoked(&self, ids: &[ClientId], are_revoked: impl Fn(&[u8]) -> bool) -> usize {
        let mut table = self.table.lock();
        let mut count = 0;
        for id in ids.iter().take(VISITED_AT_ONCE) {
            let credentials = table.devices.get(id).and_then(|device| device.credentials.as_deref());
            if credentials.is_some_and(&are_revoked) {
                table.tell_removed(id, RemovalReason::Revoked, |_| true);
                table.forget(id);
                count += 1;
            }
        }
        self.recount(&table);
        count
    }
}

impl DeviceTable {
    /// Removes a device, and its record with the next save.
    pub(super) fn forget(&mut self, id: &ClientId) {
        let ended = self.take(id);
        self.ended.extend(ended);
        self.unsaved.insert(id.clone());
    }

    /// The telephone numbers over which a device is woken by SMS.
    pub(super) fn phones(&self, device: &Device) -> Vec<Box<str>> {
        let by_sms = device
            .channels
            .iter()
            .filter(|channel| self.apps.get(&channel.app).is_some_and(|app| app.policy.has_receipts()));
        by_sms.filter_map(|channel| channel.credential.token().map(Box::from)).collect()
    }

    pub(super) fn forget_phone(&mut self, number: &str, id: &ClientId) {
        if let Some(ids) = self.by_phone.get_mut(number) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_phone.remove(number);
            }
        }
    }

    fn tell_removed(&mut self, id: &ClientId, reason: RemovalReason, is_removed: impl Fn(&Channel) -> bool) {
        let Some(device) = self.devices.get(id) else { return };
        let tenant = device.tenant();
        for channel in device.channels.iter().filter(|channel| is_removed(channel)) {
            self.removed.push(Removed {
                device: id.clone(),
                tenant: tenant.clone(),
                app: channel.app.clone(),
                credential: channel.credential.hint(),
                reason,
            });
        }
    }

    /// The provider is known to be right, or wrong, about a device that it has called gone.
    fn settle(&mut self, id: &ClientId, app: &Arc<str>, is_gone: bool) {
        if is_gone {
            self.tell_removed(id, RemovalReason::Gone, |channel| channel.is_gone && channel.app == *app);
        }
        let Some(mut device) = self.devices.get_mut(id) else { return };
        let of_app = |channel: &Channel| channel.is_gone && channel.app == *app;
        if !is_gone {
            device
                .channels
                .iter_mut()
                .filter(|channel| of_app(channel))
                .for_each(|channel| (channel.is_gone, channel.undelivered) = (false, 0));
            return;
        }
        let of_outstanding = device.outstanding.as_ref().map(|outstanding| outstanding.channel);
        let (kept, removed): (Vec<_>, Vec<_>) =
            std::mem::take(&mut device.channels).into_iter().enumerate().partition(|(_, one)| !of_app(one));
        // A wake over a channel that is removed has not arrived.
        let index_after = kept.iter().position(|(index, _)| of_outstanding == Some(*index));
        device.outstanding =
            index_after.and_then(|channel| Some(Outstanding { channel, ..device.outstanding.take()? }));
        device.channels = kept.into_iter().map(|(_, channel)| channel).collect();
        drop(device);
        let left = self.devices.get(id).map(|device| self.phones(device)).unwrap_or_default();
        for number in removed.iter().filter_map(|(_, channel)| channel.credential.token()) {
            if !left.iter().any(|kept| **kept == *number) {
                self.forget_phone(number, id);
            }
        }
        self.unsaved.insert(id.clone());
    }
}
