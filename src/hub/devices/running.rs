//! What goes on for devices while the gateway runs: they are loaded, hear of changes of their streams, are woken, stored and removed.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::yield_now;

use super::device::{Device, WakeOrder, WakeState};
use super::operations::{LIFE_MAX, stored_bytes};
use super::readers::ReadTarget;
use super::record::{self, SESSIONS};
use super::table::{DeviceTable, Devices, VISITED_AT_ONCE};
use crate::budget::{Account, Charge};
use crate::hub::subscriber::{Marks, StreamWalk};
use crate::hub::{ClientId, Hub, SessionWalk};
use crate::stream::{Description, Failure, SessionNames, StreamName};

/// Records that are stored at once.
const STORED_AT_ONCE: usize = 256;

impl Devices {
    /// Takes the devices whose stored record is outdated, at most `max`.
    pub(super) fn take_unsaved(&self, max: usize) -> Vec<ClientId> {
        let mut table = self.table.lock();
        let ids: Vec<_> = table.unsaved.iter().take(max).cloned().collect();
        ids.iter().for_each(|id| {
            table.unsaved.remove(id);
        });
        ids
    }

    /// Notes that the stored record of a device is outdated.
    pub(super) fn unsaved(&self, id: &ClientId) {
        self.table.lock().unsaved.insert(id.clone());
    }

    /// The record that restores a device. `None`: the device is gone.
    pub(super) fn stored_form(&self, id: &ClientId) -> Option<Bytes> {
        self.table.lock().devices.get(id).and_then(record::encoded)
    }
}

impl Hub {
    pub(super) fn watch_target(&self, target: &ReadTarget) {
        self.waiters.subscribe(&target.to_filter(), &self.devices.member);
    }

    pub(super) fn unwatch_target(&self, target: &ReadTarget) {
        self.waiters.unsubscribe(&target.to_filter(), &self.devices.member);
    }

    /// Unwatches what devices have read that are gone.
    pub(super) fn unwatch_ended(&self) {
        let mut table = self.devices.table.lock();
        for target in std::mem::take(&mut table.ended) {
            if !table.readers.has(&target) {
                self.unwatch_target(&target);
            }
        }
    }

    /// Loads the stored devices. Called once, before clients are served.
    pub async fn load_devices(&self) -> Result<(), Failure> {
        // Those of a shared store are found while the gateway runs.
        if self.shares_sessions() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut targets = HashSet::new();
        let mut walk = SessionWalk::over(SessionNames::Own(SESSIONS));
        while let Some(sessions) = self.next_sessions(&mut walk).await? {
            for session in sessions {
                let Some(mut device) = record::decoded(&session) else {
                    tracing::error!("a stored device is damaged; it is woken again once it registers again");
                    continue;
                };
                // The clock went back: what was appended since then has earlier times.
                let from_future =
                    device.filters.iter_mut().filter(|interest| interest.read_up_to > Some(now));
                from_future.for_each(|interest| interest.read_up_to = None);
                targets.extend(device.targets());
                self.load_device(device, now, true);
            }
        }
        targets.iter().for_each(|target| self.watch_target(target));
        self.find_news(&targets).await;
        for target in targets {
            if let ReadTarget::Stream(stream) = target {
                self.refresh_stream(&stream).await;
            }
        }
        Ok(())
    }

    /// Adds a stored device. `is_left`: the gateway that had it has ended, maybe before it sent a wake.
    pub(super) fn load_device(&self, device: Device, now: SystemTime, is_left: bool) {
        let mut table = self.devices.table.lock();
        let id = device.id.clone();
        if is_left {
            table.restore_counts(&device);
        }
        let owner = self.budget.owner_in(device.tenant(), device.principal);
        let charge = Charge::new(&owner, Account::Sessions, stored_bytes(&device));
        table.put(device, Some(charge));
        if is_left {
            table.again_if_ordered(&id, now);
        }
        self.devices.schedule(&mut table, &id, now);
        self.devices.recount(&table);
    }

    /// Finds when the streams of filters were last appended to.
    pub(super) async fn find_news(&self, targets: &HashSet<ReadTarget>) {
        let filters = targets.iter().filter_map(|target| match target {
            ReadTarget::Filter(filter) => Some(filter),
            ReadTarget::Stream(_) => None,
        });
        let mut walk = StreamWalk::over(filters);
        while let Some(page) = self.next_streams(&mut walk).await {
            for (stream, _) in page {
                let described = self.settled_description(&stream).await;
                if let Some(at) = described.and_then(|found| found.appended_at) {
                    self.devices.table.lock().readers.found(&stream, at);
                }
            }
        }
    }

    /// A stream has changed.
    async fn device_stream_changed(&self, stream: &StreamName) {
        let (tail, appended_at) = match self.settled_description(stream).await {
            Some(Description { tail, appended_at, .. }) => (Some(tail), appended_at),
            None => (None, None),
        };
        self.visit_readers(self.devices.moved(stream, tail, appended_at)).await;
    }

    /// Notes the tail of a stream, which may not have changed.
    pub(super) async fn refresh_stream(&self, stream: &StreamName) {
        let tail = self.settled_tail(stream).await;
        self.visit_readers(self.devices.moved(stream, tail, None)).await;
    }

    async fn visit_readers(&self, targets: Vec<ReadTarget>) {
        for target in targets {
            let mut after = None;
            loop {
                after = self.devices.visit(&target, after.as_ref(), self.clock.now());
                if after.is_none() {
                    break;
                }
                yield_now().await;
            }
        }
    }

    /// Notes the tails of the streams of a device.
    pub(super) async fn refresh_tails(&self, id: &ClientId) {
        let view = self.device(id);
        for (stream, _) in view.into_iter().flat_map(|view| view.streams) {
            self.refresh_stream(&stream).await;
        }
    }

    /// Waits until streams of devices have changed, and notes their tails. Runs until it is dropped.
    pub async fn follow_device_streams(&self) {
        let marks = &self.devices.member.marks;
        loop {
            marks.wait_until(|marks: &Marks| (!marks.is_empty()).then_some(())).await;
            let mut taken = Vec::new();
            marks.update(|marks| taken = marks.take(STORED_AT_ONCE));
            for stream in taken {
                self.device_stream_changed(&stream).await;
            }
        }
    }

    /// Waits until there is a device, or something to store of one that has gone. Returns at once if other gateways use the store, whose
    /// devices may come here.
    ///
    /// Cancel safe.
    pub async fn until_devices(&self) {
        loop {
            let changes = self.devices.earlier.note(|changes| *changes);
            if self.shares_sessions() || self.devices.has_work() {
                return;
            }
            self.devices.earlier.wait_until(|now| (*now != changes).then_some(())).await;
        }
    }

    /// Waits until a wake may be due.
    pub async fn wake_due(&self) {
        loop {
            self.until_devices().await;
            for some in self.devices.time_was_set(self.clock.wall_offset()).chunks(VISITED_AT_ONCE) {
                self.devices.look_now(some, self.clock.now());
                yield_now().await;
            }
            let changes = self.devices.earlier.note(|changes| *changes);
            let wait = match self.devices.next_due() {
                Some(at) => at.duration_since(self.clock.now()).unwrap_or_default(),
                None => LIFE_MAX,
            };
            if wait.is_zero() {
                return;
            }
            // Timers do not notice when the machine was suspended, and when the time of day was set.
            let wait = wait.min(Duration::from_secs(5));
            let earlier = self.devices.earlier.wait_until(|now| (*now != changes).then_some(()));
            let _elapsed = tokio::time::timeout(wait, earlier).await;
        }
    }

    /// Takes at most `max` wakes that are due, each once its order is stored.
    pub async fn take_wakes(&self, max: usize) -> Vec<WakeOrder> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let last_seen = |id: &ClientId| self.clients.last_seen(id);
        let mut orders = self.devices.take_due(now, wall, max, &last_seen);
        self.unwatch_ended();
        if !orders.is_empty() {
            self.save_devices().await;
        }
        if self.shares_sessions() {
            // Another gateway may have the device by now, and wakes it.
            let table = self.devices.table.lock();
            orders.retain(|order| {
                table.devices.contains(&order.device) && !table.unsaved.contains(&order.device)
            });
        }
        orders
    }

    /// Stores the records that are outdated.
    pub async fn save_devices(&self) {
        loop {
            let unsaved = self.devices.take_unsaved(STORED_AT_ONCE);
            if unsaved.is_empty() {
                return;
            }
            let changes = unsaved.into_iter().map(|id| async move {
                // A registration that is stored meanwhile is newer than a record that was made before.
                let _alone = self.devices.moves.of(&id).await;
                let record = self.devices.stored_form(&id);
                let has_ended = record.is_none();
                let outcome = self.change_session(record::change(&id, record)).await;
                match outcome {
                    Ok(()) if has_ended => self.release_unused(&id).await,
                    Err(Failure::Superseded) => {
                        self.lose_device(&id);
                        return true;
                    }
                    _ => {}
                }
                if let Err(error) = outcome {
                    tracing::error!(%error, "cannot store a device");
                    self.devices.unsaved(&id);
                    return false;
                }
                true
            });
            let stored = futures_util::future::join_all(changes).await;
            // The next call tries again.
            if stored.contains(&false) {
                return;
            }
        }
    }

    /// Removes the devices whose credentials `are_revoked`.
    pub async fn remove_devices(&self, are_revoked: impl Fn(&[u8]) -> bool) {
        let ids = self.devices.with_credentials();
        let mut count = 0;
        for some in ids.chunks(VISITED_AT_ONCE) {
            count += self.devices.remove_revoked(some, &are_revoked);
            self.unwatch_ended();
            yield_now().await;
        }
        if count > 0 {
            tracing::info!(count, "removed devices whose credentials were revoked");
            self.save_devices().await;
        }
    }
}

impl DeviceTable {
    /// Counts the wakes that were sent before a restart.
    fn restore_counts(&mut self, device: &Device) {
        let tenant = device.tenant();
        for channel in &device.channels {
            if let (Some(begin), count) = channel.day
                && let Some(app) = self.apps.get_mut(&channel.app)
            {
                app.restore_count(&tenant, begin, count);
            }
        }
    }

    /// A wake that was ordered before a restart may not have been sent: it is sent again.
    fn again_if_ordered(&mut self, id: &ClientId, now: SystemTime) {
        if let Some(mut device) = self.devices.get_mut(id)
            && let Some(outstanding) = &mut device.outstanding
            && outstanding.state == WakeState::Ordered
        {
            outstanding.state = WakeState::Again(now);
        }
    }
}
