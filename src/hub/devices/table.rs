//! [`Devices`]: the table of all devices, which devices read a stream, and when to look at which device next.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::app::{AppPolicy, CONFIG_PAUSE, Suppressed, Verdict};
use super::apps::Apps;
use super::channel::{Channel, Removed};
use super::device::{Device, DeviceStep, GRACE, Silence, WakeOrder};
use super::elsewhere::DeviceElsewhere;
use super::interest::ReadUpTo;
use super::readers::{ReadTarget, Readers};
use super::registered::RegisteredDevices;
use crate::budget::Charge;
use crate::clock::WallOffset;
use crate::hub::ClientId;
use crate::hub::moves::Moves;
use crate::hub::signal::Signal;
use crate::hub::subscriber::Member;
use crate::metrics::WakeMetrics;
use crate::stream::{Offset, Principal, Start, StreamName};

/// While a poll of a device is held, the device is looked at this often.
const RECHECK: Duration = Duration::from_secs(5);

/// Devices that one call visits while it has the lock.
pub(super) const VISITED_AT_ONCE: usize = 256;
const LOOKS_AT_ONCE: usize = 1024;

/// All devices. See the documentation of the module.
pub struct Devices {
    pub(super) table: Mutex<DeviceTable>,
    /// Number of devices, which polls read without a lock.
    count: AtomicUsize,
    /// Is marked when a stream changes that a device reads.
    pub(super) member: Arc<Member>,
    /// Changes when something is due earlier than before.
    pub(super) earlier: Signal<u64>,
    pub(super) metrics: WakeMetrics,
    /// Wakes under way to one provider.
    wakes_at_once_max: usize,
    pub(super) moves: Moves,
}

#[derive(Default)]
pub(super) struct DeviceTable {
    pub(super) apps: Apps,
    pub(super) devices: RegisteredDevices,
    /// Devices that other gateways have.
    pub(super) elsewhere: HashMap<ClientId, DeviceElsewhere>,
    pub(super) readers: Readers,
    due: BTreeSet<(SystemTime, ClientId)>,
    due_at: HashMap<ClientId, SystemTime>,
    /// What the devices take of the memory budget.
    charges: HashMap<ClientId, Charge>,
    /// Devices by the telephone numbers of their channels, for receipts.
    pub(super) by_phone: HashMap<Box<str>, BTreeSet<ClientId>>,
    /// What nobody may read any more, because its last reader has expired or was removed.
    pub(super) ended: Vec<ReadTarget>,
    /// How the time of day differed from the clock at the last look.
    pub(super) wall_offset: Option<WallOffset>,
    /// Devices whose stored record is outdated.
    pub(super) unsaved: HashSet<ClientId>,
    pub(super) bytes: usize,
    pub(super) of_principal: HashMap<Principal, (usize, usize)>,
    pub(super) removed: Vec<Removed>,
}

/// When a device has last been seen, as the wait queues know.
pub(super) type LastSeen<'a> = &'a dyn Fn(&ClientId) -> Option<Duration>;

impl Devices {
    /// A table without devices.
    pub(in crate::hub) fn new(metrics: WakeMetrics, member: Arc<Member>, wakes_at_once_max: usize) -> Self {
        let (table, count, earlier, moves) = Default::default();
        Self { table, count, member, earlier, metrics, wakes_at_once_max, moves }
    }

    /// Sets the apps of the settings.
    pub fn offer(&self, apps: Vec<AppPolicy>) {
        self.table.lock().apps.set(apps, self.wakes_at_once_max);
    }

    /// The apps of the settings, by name.
    pub fn apps(&self) -> Vec<AppPolicy> {
        self.table.lock().apps.policies()
    }

    /// Whether there is any device.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether there is any device here, or something to store of one that has gone.
    pub(super) fn has_work(&self) -> bool {
        let table = self.table.lock();
        table.devices.len() + table.unsaved.len() + table.removed.len() > 0
    }

    pub(super) fn recount(&self, table: &DeviceTable) {
        self.count.store(table.devices.len() + table.elsewhere.len(), Ordering::Relaxed);
    }

    /// Looks at a device at `at`, or earlier.
    pub(super) fn schedule(&self, table: &mut DeviceTable, id: &ClientId, at: SystemTime) {
        if table.schedule(id, at) {
            self.earlier.update(|changes| *changes += 1);
        }
    }

    /// The device has polled these streams. `reads_all`: it reads those of its filters, too.
    pub(super) fn polled<'a>(
        &self,
        id: &ClientId,
        reads: impl Iterator<Item = (&'a StreamName, Start)>,
        reads_all: bool,
        now: SystemTime,
    ) {
        self.seen(id, now, |device, _| device.has_read(reads) | (reads_all && device.has_read_filters()));
    }

    /// The session of the device has ended, see [`Device::session_ended`].
    pub(super) fn session_ended(&self, id: &ClientId, read_up_to: ReadUpTo<'_>, now: SystemTime) {
        self.seen(id, now, |device, readers| device.session_ended(readers, read_up_to));
    }

    /// The device is awake. `note` notes what it has read, and returns whether that is another state than before.
    fn seen(&self, id: &ClientId, now: SystemTime, note: impl FnOnce(&mut Device, &Readers) -> bool) {
        let mut table = self.table.lock();
        let table = &mut *table;
        let Some(mut device) = table.devices.get_mut(id) else { return };
        device.refresh(&table.readers);
        // A poll that says nothing new is not stored.
        let mut is_changed = device.outstanding.is_some() || device.silence != Silence::default();
        is_changed |= note(&mut device, &table.readers);
        device.targets().for_each(|target| table.readers.wait(&target, id));
        let confirmed = device.seen(now);
        if let Some((channel, took)) = confirmed
            && let Some(app) = device.channels.get(channel).and_then(|channel| table.apps.get(&channel.app))
        {
            self.metrics.confirmed(app.policy.provider, took);
        }
        let is_pending = device.is_pending();
        drop(device);
        if is_changed {
            table.unsaved.insert(id.clone());
        }
        if is_pending {
            self.schedule(table, id, now + GRACE);
        }
    }

    /// A connection in a live delivery form begins. Returns whether the client is a device.
    pub(super) fn connected(&self, id: &ClientId) -> bool {
        let mut table = self.table.lock();
        if let Some(device) = table.elsewhere.get_mut(id) {
            device.connections += 1;
            return true;
        }
        let device = table.devices.get_mut(id);
        device.map(|mut device| device.connections += 1).is_some()
    }

    /// A connection in a live delivery form has ended.
    pub(super) fn disconnected(&self, id: &ClientId, now: SystemTime) {
        let mut table = self.table.lock();
        if let Some(device) = table.elsewhere.get_mut(id) {
            device.connections = device.connections.saturating_sub(1);
        }
        let Some(mut device) = table.devices.get_mut(id) else { return };
        device.connections = device.connections.saturating_sub(1);
        device.seen_at = Some(now);
        drop(device);
        self.schedule(&mut table, id, now + GRACE);
    }

    /// A stream may have another tail, see [`Readers::moved`]. What it returns is for [`visit`](Self::visit).
    pub(super) fn moved(
        &self,
        stream: &StreamName,
        tail: Option<Offset>,
        appended_at: Option<SystemTime>,
    ) -> Vec<ReadTarget> {
        self.table.lock().readers.moved(stream, tail, appended_at)
    }

    /// Visits some of the devices that wait for a change of what they read, those with ids behind `after`, and returns the last one;
    /// `None`: no others wait.
    pub(super) fn visit(
        &self,
        target: &ReadTarget,
        after: Option<&ClientId>,
        now: SystemTime,
    ) -> Option<ClientId> {
        let mut table = self.table.lock();
        let table = &mut *table;
        let waiting = table.readers.waiting(target, after, VISITED_AT_ONCE);
        let mut has_earlier = false;
        for id in &waiting {
            let Some(mut device) = table.devices.get_mut(id) else { continue };
            if device.moved(target, &table.readers) {
                drop(device);
                table.readers.stop_waiting(target, id);
                has_earlier |= table.schedule(id, now);
            }
        }
        if has_earlier {
            self.earlier.update(|changes| *changes += 1);
        }
        waiting.into_iter().nth(VISITED_AT_ONCE - 1)
    }

    /// The ids of the devices whose quiet hours may have ended because the time of day was set since the last call.
    pub(super) fn time_was_set(&self, offset: WallOffset) -> Vec<ClientId> {
        let mut table = self.table.lock();
        let before = table.wall_offset.replace(offset);
        if before.is_none_or(|before| before == offset) {
            return Vec::new();
        }
        let devices = table.devices.values().filter(|device| device.quiet.is_some() && device.is_pending());
        devices.map(|device| device.id.clone()).collect()
    }

    /// Looks at some devices now.
    pub(super) fn look_now(&self, ids: &[ClientId], now: SystemTime) {
        let mut table = self.table.lock();
        for id in ids.iter().filter(|id| table.devices.contains(id)).collect::<Vec<_>>() {
            self.schedule(&mut table, id, now);
        }
    }

    /// When the next device is due.
    pub fn next_due(&self) -> Option<SystemTime> {
        self.table.lock().due.first().map(|(at, _)| *at)
    }

    /// Looks at devices that are due, and returns the wakes to send, at most `max`.
    pub(super) fn take_due(
        &self,
        now: SystemTime,
        wall: SystemTime,
        max: usize,
        last_seen: LastSeen<'_>,
    ) -> Vec<WakeOrder> {
        let mut table = self.table.lock();
        let mut orders = Vec::new();
        for _ in 0..LOOKS_AT_ONCE {
            if orders.len() >= max {
                break;
            }
            let Some((at, id)) = table.due.first().cloned().filter(|(at, _)| *at <= now) else { break };
            table.due.remove(&(at, id.clone()));
            table.due_at.remove(&id);
            orders.extend(self.look_at(&mut table, &id, (now, wall), last_seen));
        }
        orders
    }

    fn look_at(
        &self,
        table: &mut DeviceTable,
        id: &ClientId,
        (now, wall): (SystemTime, SystemTime),
        last_seen: LastSeen<'_>,
    ) -> Option<WakeOrder> {
        let mut device = table.devices.get_mut(id)?;
        if device.expires_at <= now {
            drop(device);
            table.forget(id);
            self.recount(table);
            return None;
        }
        match last_seen(id) {
            Some(Duration::ZERO) => {
                device.seen_at = Some(now);
                drop(device);
                self.metrics.suppressed(Suppressed::Connected.as_str());
                self.schedule(table, id, now + RECHECK);
                return None;
            }
            Some(ago) => device.seen_at = device.seen_at.max(now.checked_sub(ago)),
            None => {}
        }
        device.refresh(&table.readers);
        let before = device.outstanding.clone();
        let step = device.step(now, wall, fastrand::u64(..), &mut table.apps);
        if device.outstanding != before {
            table.unsaved.insert(id.clone());
        }
        drop(device);
        let device = table.devices.get(id)?;
        match step {
            DeviceStep::Order => {
                let order = device.order()?;
                if let Some(app) = table.apps.get_mut(&order.app) {
                    app.ordered(now);
                }
                Some(order)
            }
            DeviceStep::Wait(why, until) => {
                if why != Suppressed::NothingNew {
                    self.metrics.suppressed(why.as_str());
                }
                // What was pending may be gone, as a stream was deleted: the device waits for appends again.
                if device.silence.awaits_append || why == Suppressed::NothingNew {
                    device.targets().for_each(|target| table.readers.wait(&target, id));
                }
                let end = device.expires_at;
                table.schedule(id, until.unwrap_or(end).min(end));
                None
            }
        }
    }

    /// Applies the answer of a provider to a wake. `wall` is the time of day.
    pub fn report(&self, order: &WakeOrder, verdict: &Verdict, now: SystemTime, wall: SystemTime) {
        let mut table = self.table.lock();
        let table = &mut *table;
        let Some(app) = table.apps.get_mut(&order.app) else { return };
        self.metrics.answered(app.policy.provider, verdict.as_str());
        app.reported(matches!(verdict, Verdict::Retry { .. }), now);
        let (mut believed, mut error) = (None, None);
        match verdict {
            Verdict::Ok { .. } => {
                app.failing_until = None;
                believed = (!app.policy.has_receipts()).then(|| app.succeeded());
            }
            Verdict::Slow { until } => {
                let pause = until.duration_since(wall).unwrap_or_default();
                app.paused_until = Some(now + pause);
            }
            Verdict::Config(reason) => {
                tracing::error!(
                    app = &*order.app,
                    reason = &**reason,
                    "the settings of a wake provider are wrong"
                );
                app.failing_until = Some(now + CONFIG_PAUSE);
                error = Some(reason.clone());
            }
            Verdict::Bad(reason) => error = Some(reason.clone()),
            Verdict::Retry { .. } | Verdict::Gone { .. } => error = Some(verdict.as_str().into()),
        }
        self.tell_device(table, order, verdict, error, (now, wall));
        if let Some(believed) = believed {
            self.settle(table, &order.app, believed, now);
        }
    }

    /// Notes at a device what a provider has answered to its wake.
    fn tell_device(
        &self,
        table: &mut DeviceTable,
        order: &WakeOrder,
        verdict: &Verdict,
        error: Option<Box<str>>,
        (now, wall): (SystemTime, SystemTime),
    ) {
        let Some(mut device) = table.devices.get_mut(&order.device) else { return };
        let is_used = |channel: &Channel| channel.app == order.app && channel.credential == order.credential;
        let index = device.channels.iter().position(is_used);
        let mut is_gone = false;
        if let Some(index) = index
            && let Some(channel) = device.channels.get_mut(index)
        {
            match verdict {
                Verdict::Ok { .. } => (channel.last_ok, channel.last_error) = (Some(wall), None),
                // The device was registered again after the provider had found it gone.
                Verdict::Gone { since: Some(since) } if *since < channel.added_at => {}
                Verdict::Gone { .. } => (channel.is_gone, is_gone) = (true, true),
                _ => {}
            }
            if error.is_some() {
                channel.last_error = error;
            }
        }
        if is_gone && let Some(app) = table.apps.get_mut(&order.app) {
            self.note_gone(app, &order.device);
        }
        match verdict {
            Verdict::Ok { .. } => device.accepted(order.wake, now),
            Verdict::Slow { until } => {
                let pause = until.duration_since(wall).unwrap_or_default();
                device.try_again(order.wake, pause, now, fastrand::f64());
            }
            Verdict::Retry { after } => device.try_again(order.wake, *after, now, fastrand::f64()),
            Verdict::Gone { .. } | Verdict::Config(_) | Verdict::Bad(_) => device.failed(order.wake),
        }
        let early =
            index.and_then(|index| Some((index, device.channels.get_mut(index)?.early_receipt.take()?)));
        drop(device);
        table.unsaved.insert(order.device.clone());
        self.schedule(table, &order.device, now);
        if let Some((index, state)) = early {
            self.apply_receipt(table, &order.device, index, state, (now, wall));
        }
    }

    /// Number of devices that are connected, woken, pending, and asleep.
    pub(in crate::hub) fn states(&self) -> [usize; 4] {
        self.table.lock().devices.in_state()
    }
}

impl DeviceTable {
    /// Schedules a look at a device at `at`, unless an earlier one is scheduled. Returns whether it is now the first look of all.
    fn schedule(&mut self, id: &ClientId, at: SystemTime) -> bool {
        if let Some(before) = self.due_at.get(id).copied() {
            if before <= at {
                return false;
            }
            self.due.remove(&(before, id.clone()));
        }
        self.due_at.insert(id.clone(), at);
        let is_first = self.due.first().is_none_or(|(first, _)| at < *first);
        self.due.insert((at, id.clone()));
        is_first
    }

    /// Adds or replaces a device. Returns what nobody has read before, and what nobody reads any more.
    pub(super) fn put(
        &mut self,
        mut device: Device,
        charge: Option<Charge>,
    ) -> (Vec<ReadTarget>, Vec<ReadTarget>) {
        let id = device.id.clone();
        let before = self.take(&id);
        let mut begun = Vec::new();
        for interest in &device.interests {
            if self.readers.add_to_stream(&interest.stream, &id, interest.tail) {
                begun.push(ReadTarget::Stream(interest.stream.clone()));
            }
        }
        for interest in &device.filters {
            if self.readers.add_to_filter(&interest.filter, &id, interest.news) {
                begun.push(ReadTarget::Filter(interest.filter.clone()));
            }
        }
        begun.retain(|target| !before.contains(target));
        let ended = before.into_iter().filter(|target| !self.readers.has(target)).collect();
        let (bytes, principal) = (device.bytes(), device.principal);
        device.charged = bytes;
        self.bytes += bytes;
        let own = self.of_principal.entry(principal).or_default();
        *own = (own.0 + 1, own.1 + bytes);
        for number in self.phones(&device) {
            self.by_phone.entry(number).or_default().insert(id.clone());
        }
        self.charges.extend(charge.map(|charge| (id.clone(), charge)));
        self.devices.insert(device);
        (begun, ended)
    }

    /// Removes a device. Returns what nobody reads any more.
    pub(super) fn take(&mut self, id: &ClientId) -> Vec<ReadTarget> {
        let Some(device) = self.devices.remove(id) else { return Vec::new() };
        self.charges.remove(id);
        if let Some(at) = self.due_at.remove(id) {
            self.due.remove(&(at, id.clone()));
        }
        for channel in &device.channels {
            if let Some(app) = self.apps.get_mut(&channel.app) {
                app.forget(id);
            }
        }
        for number in self.phones(&device) {
            self.forget_phone(&number, id);
        }
        let bytes = device.charged;
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(own) = self.of_principal.get_mut(&device.principal) {
            *own = (own.0.saturating_sub(1), own.1.saturating_sub(bytes));
            if own.0 == 0 {
                self.of_principal.remove(&device.principal);
            }
        }
        device.targets().filter(|target| self.readers.remove(target, id)).collect()
    }
}
