//! Operations of the [`Hub`] on devices: for the fronts, and for the sender of wakes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::DeviceView;
use super::app::Credential;
use super::channel::Channel;
use super::device::{Device, DeviceSpec, Outstanding};
use super::interest::{FilterInterest, Interest};
use super::record;
use super::table::{DeviceTable, Devices};
use crate::budget::{Account, Charge};
use crate::clock::Clock;
use crate::hub::{ClientId, Hub};
use crate::stream::{Failure, Filter, Offset, Principal, Start, StreamName};

/// Streams with filters, filters, and channels of a device at most.
const STREAMS_MAX: usize = 64;
const FILTERS_MAX: usize = 16;
const CHANNELS_MAX: usize = 8;

/// The longest credential and the longest filter, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 2048;
const FILTER_BYTES_MAX: usize = 512;

/// The longest life of a registration.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why a device cannot be registered or woken.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The registration is invalid.
    #[error("{0}")]
    Invalid(String),
    /// An app does not exist.
    #[error("there is no app {0:?} for wakes; GET /v1/devices lists those of this gateway")]
    UnknownApp(String),
    /// A credential is malformed, or of another kind than the app needs.
    #[error("the credential for the app {0:?} is malformed, too long, or not allowed")]
    Credential(String),
    /// A limit is reached.
    #[error("{0}")]
    TooMany(&'static str),
    /// The device does not exist.
    #[error("there is no such device")]
    Missing,
    /// The store could not keep it.
    #[error(transparent)]
    Store(#[from] Failure),
}

/// A connection of a device, which is not woken while it lasts. Boxed where it is kept, as few connections have one.
pub struct DeviceConnection {
    devices: Arc<Devices>,
    device: ClientId,
    clock: Clock,
}

impl Drop for DeviceConnection {
    fn drop(&mut self) {
        self.devices.disconnected(&self.device, self.clock.now());
    }
}

impl Hub {
    /// The devices.
    pub fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// Registers a device, or replaces its registration. Streams and channels that were registered before keep their state.
    pub async fn put_device(&self, spec: DeviceSpec) -> Result<(DeviceView, bool), DeviceError> {
        self.check_device(&spec)?;
        let id = spec.id.clone();
        self.claim_device(&id).await?;
        let _alone = self.devices.moves.of(&id).await;
        self.register_or_release(spec).await
    }

    /// Registers a device; the caller is alone with it.
    async fn register_or_release(&self, spec: DeviceSpec) -> Result<(DeviceView, bool), DeviceError> {
        let id = spec.id.clone();
        let registered = self.register(spec).await;
        if registered.is_err() {
            self.release_unused(&id).await;
        }
        registered
    }

    async fn register(&self, spec: DeviceSpec) -> Result<(DeviceView, bool), DeviceError> {
        let mut interests = Vec::new();
        for (stream, start) in &spec.streams {
            let tail = self.tail_of(stream).await?;
            let offset = match start {
                Some(Start::At(offset)) => Some(*offset),
                Some(Start::Earliest) => None,
                Some(Start::Tail) => tail,
                None => self.known_offset(&spec.id, stream).unwrap_or(tail),
            };
            interests.push(Interest { stream: stream.clone(), offset, tail });
        }
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let id = spec.id.clone();
        let (record, is_new) = {
            let mut table = self.devices.table.lock();
            let table = &mut *table;
            let device = table.registered(spec, interests, now, wall);
            self.check_room(table, &device)?;
            let owner = self.budget.owner_in(device.tenant(), device.principal);
            // What its last registration holds is given back.
            let held = table.devices.get(&id).filter(|before| before.principal == device.principal);
            let more = stored_bytes(&device).saturating_sub(held.map_or(0, stored_bytes));
            if more > 0 {
                owner.admit(more).map_err(Failure::from)?;
            }
            let charge = Charge::new(&owner, Account::Sessions, stored_bytes(&device));
            let record = record::encoded(&device);
            let is_new = !table.devices.contains(&id);
            let (begun, ended) = table.put(device, Some(charge));
            self.devices.recount(table);
            begun.iter().for_each(|target| self.watch_target(target));
            ended.iter().for_each(|target| self.unwatch_target(target));
            self.devices.schedule(table, &id, now);
            (record::change(&id, record), is_new)
        };
        // An append between the description of the stream and now has marked nothing yet.
        self.refresh_tails(&id).await;
        self.change_session(record).await?;
        self.device(&id).map(|view| (view, is_new)).ok_or(DeviceError::Missing)
    }

    fn check_device(&self, spec: &DeviceSpec) -> Result<(), DeviceError> {
        let between = |what: &str, count: usize, max: usize| match count {
            0 => Err(DeviceError::Invalid(format!("a device needs at least one of {what}"))),
            count if count > max => Err(DeviceError::Invalid(format!("a device has at most {max} {what}"))),
            _ => Ok(()),
        };
        between("streams", spec.streams.len() + spec.filters.len(), STREAMS_MAX)?;
        let fits = |filter: &Filter| filter.has_wildcard() && filter.as_str().len() <= FILTER_BYTES_MAX;
        if spec.filters.len() > FILTERS_MAX || !spec.filters.iter().all(fits) {
            let text = format!(
                "a device has at most {FILTERS_MAX} filters, each with a wildcard and at most {FILTER_BYTES_MAX} bytes; a filter without one is a stream"
            );
            return Err(DeviceError::Invalid(text));
        }
        between("channels", spec.channels.len(), CHANNELS_MAX)?;
        if spec.life > LIFE_MAX || spec.life.is_zero() {
            return Err(DeviceError::Invalid("expires_in must be 1 to 7776000 seconds".to_owned()));
        }
        let table = self.devices.table.lock();
        for (name, credential) in &spec.channels {
            let app = table.apps.get(name).ok_or_else(|| DeviceError::UnknownApp(name.to_string()))?;
            let is_allowed = |number: &str| {
                app.policy.prefixes.is_empty()
                    || app.policy.prefixes.iter().any(|prefix| number.starts_with(prefix))
            };
            let is_allowed = match credential {
                Credential::Token(number) => is_allowed(number),
                Credential::WebPush { .. } => true,
            };
            let fits = credential.bytes() <= CREDENTIAL_BYTES_MAX;
            if !fits || !is_allowed || !credential.is_of(app.policy.credential) {
                return Err(DeviceError::Credential(name.to_string()));
            }
        }
        Ok(())
    }

    fn check_room(&self, table: &DeviceTable, device: &Device) -> Result<(), DeviceError> {
        let (limits, bytes) = (&self.limits, device.bytes());
        let before = table.devices.get(&device.id);
        let (count_before, bytes_before) =
            (usize::from(before.is_some()), before.map_or(0, |before| before.charged));
        if table.devices.len() + table.elsewhere.len() - count_before >= limits.devices_max
            || table.bytes - bytes_before + bytes > limits.device_bytes_max
        {
            return Err(DeviceError::TooMany(
                "the gateway has its maximum of devices (devices_max, device_bytes_max)",
            ));
        }
        let is_own = |principal: Principal| before.is_some_and(|before| before.principal == principal);
        let own = table.of_principal.get(&device.principal).copied().unwrap_or_default();
        let (count, own_bytes) =
            if is_own(device.principal) { (own.0 - 1, own.1 - bytes_before) } else { own };
        let share = |max: usize| max / 100 * usize::try_from(limits.principal_share_percent).unwrap_or(100);
        if device.principal != Principal::GATEWAY
            && (count >= share(limits.devices_max).max(1)
                || own_bytes + bytes > share(limits.device_bytes_max))
        {
            return Err(DeviceError::TooMany(
                "this client has used up its share of the devices (principal_share_percent of devices_max and device_bytes_max)",
            ));
        }
        Ok(())
    }

    /// Adds streams to a device, each with the offset up to which the device has read it, and removes one. A device that is left
    /// without any is deleted. Returns whether the device exists.
    pub async fn change_device_streams(
        &self,
        id: &ClientId,
        added: Vec<(StreamName, Start)>,
        removed: Option<&StreamName>,
    ) -> Result<bool, DeviceError> {
        self.fetch_device(id).await?;
        // Another change would read the same streams, and one of both would be lost.
        let _alone = self.devices.moves.of(id).await;
        let spec = self.devices.table.lock().devices.get(id).map(|device| device.to_spec(self.clock.now()));
        let Some(mut spec) = spec else { return Ok(false) };
        let is_kept =
            |stream: &StreamName| removed != Some(stream) && !added.iter().any(|(added, _)| added == stream);
        let count = spec.streams.len();
        spec.streams.retain(|(stream, _)| is_kept(stream));
        if added.is_empty() && spec.streams.len() == count {
            return Ok(true);
        }
        spec.streams.extend(added.into_iter().map(|(stream, start)| (stream, Some(start))));
        if spec.streams.is_empty() && spec.filters.is_empty() {
            self.delete_registered(id).await?;
            return Ok(false);
        }
        self.check_device(&spec)?;
        self.register_or_release(spec).await.map(|_| true)
    }

    /// What the gateway knows of a device.
    pub fn device(&self, id: &ClientId) -> Option<DeviceView> {
        let table = self.devices.table.lock();
        table.devices.get(id).map(|device| DeviceView::of(device, self.clock.wall_offset()))
    }

    /// Removes a device. Returns whether it existed.
    pub async fn delete_device(&self, id: &ClientId) -> Result<bool, Failure> {
        self.fetch_device(id).await?;
        let _alone = self.devices.moves.of(id).await;
        self.delete_registered(id).await
    }

    /// Removes a device; the caller is alone with it. Returns whether it existed.
    async fn delete_registered(&self, id: &ClientId) -> Result<bool, Failure> {
        {
            let mut table = self.devices.table.lock();
            if !table.devices.contains(id) {
                return Ok(false);
            }
            let ended = table.take(id);
            self.devices.recount(&table);
            ended.iter().for_each(|target| self.unwatch_target(target));
        }
        self.change_session(record::change(id, None)).await?;
        self.release_unused(id).await;
        Ok(true)
    }

    /// Wakes a device although nothing lies behind its offset, if its budget allows that.
    pub fn wake_device(&self, id: &ClientId) -> Result<(), DeviceError> {
        let mut table = self.devices.table.lock();
        let mut device = table.devices.get_mut(id).ok_or(DeviceError::Missing)?;
        device.asked_for = true;
        drop(device);
        self.devices.schedule(&mut table, id, self.clock.now());
        Ok(())
    }

    fn known_offset(&self, id: &ClientId, stream: &StreamName) -> Option<Option<Offset>> {
        let table = self.devices.table.lock();
        let device = table.devices.get(id)?;
        device.interests.iter().find(|interest| interest.stream == *stream).map(|interest| interest.offset)
    }

    /// A client has polled. If it is a device, that confirms a wake, and says what it has.
    pub fn device_polled<'a>(
        self: &Arc<Self>,
        client: &ClientId,
        reads: impl Iterator<Item = (&'a StreamName, Start)>,
    ) {
        self.polled(client, reads, false);
    }

    fn polled<'a>(
        self: &Arc<Self>,
        client: &ClientId,
        reads: impl Iterator<Item = (&'a StreamName, Start)>,
        reads_all: bool,
    ) {
        if self.devices.is_empty() {
            return;
        }
        if self.devices.is_elsewhere(client) {
            let reads = reads.map(|(stream, start)| (stream.clone(), start)).collect();
            self.fetch_polled(client, reads, reads_all);
        } else {
            self.devices.polled(client, reads, reads_all, self.clock.now());
        }
    }

    /// A client has begun a live delivery form, which confirms a wake as a poll does. `None`: it is no device.
    pub fn device_connected<'a>(
        self: &Arc<Self>,
        client: &ClientId,
        reads: impl Iterator<Item = (&'a StreamName, Start)>,
    ) -> Option<Box<DeviceConnection>> {
        self.device_polled(client, reads);
        self.device_connection(client)
    }

    fn device_connection(&self, client: &ClientId) -> Option<Box<DeviceConnection>> {
        let is_device = !self.devices.is_empty() && self.devices.connected(client);
        let (devices, clock) = (self.devices.clone(), self.clock);
        is_device.then(|| Box::new(DeviceConnection { devices, device: client.clone(), clock }))
    }

    /// The client of a session has connected, such as an MQTT client, whose id and that of a device are one. Its session has all streams
    /// of its filters. `None`: it is no device.
    pub fn session_connected(self: &Arc<Self>, client: &str) -> Option<Box<DeviceConnection>> {
        if self.devices.is_empty() {
            return None;
        }
        let client = ClientId::stored(client);
        self.polled(&client, std::iter::empty(), true);
        self.device_connection(&client)
    }

    /// The client of a session leaves. `read_up_to` tells up to where it has been sent a stream and has acknowledged that; `None`: it
    /// has not subscribed to it.
    pub fn session_ended(&self, client: &str, read_up_to: impl Fn(&StreamName) -> Option<Start>) {
        if !self.devices.is_empty() {
            self.devices.session_ended(&ClientId::stored(client), &read_up_to, self.clock.now());
        }
    }
}

/// What a device takes of the memory budget: in the table, and as a record in the store.
pub(super) fn stored_bytes(device: &Device) -> u64 {
    2 * device.bytes() as u64
}

impl DeviceTable {
    /// Makes a device from a registration. Channels that were registered before keep their state.
    fn registered(
        &self,
        spec: DeviceSpec,
        interests: Vec<Interest>,
        now: SystemTime,
        wall: SystemTime,
    ) -> Device {
        let before = self.devices.get(&spec.id);
        let channel = |(app, credential): (Arc<str>, Credential)| {
            let known = before.and_then(|before| {
                before.channels.iter().find(|channel| channel.app == app && channel.credential == credential)
            });
            let fresh = Channel::new(app, credential, wall);
            match known {
                // Registered again: what a provider knows is older now.
                Some(known) => Channel { added_at: wall, is_gone: false, undelivered: 0, ..known.clone() },
                None => fresh,
            }
        };
        let channels: Vec<_> = spec.channels.into_iter().map(channel).collect();
        let filter = |filter: Filter| {
            let news = self.readers.news(&filter);
            let mut known = before.into_iter().flat_map(|before| &before.filters);
            match known.find(|interest| interest.filter == filter) {
                Some(known) => FilterInterest { news, ..known.clone() },
                None => FilterInterest { filter, read_up_to: Some(now).max(news), news },
            }
        };
        let filters = spec.filters.into_iter().map(filter).collect();
        let outstanding = before.and_then(|before| {
            let outstanding = before.outstanding.clone()?;
            let old = before.channels.get(outstanding.channel)?;
            let is_same = |channel: &Channel| channel.app == old.app && channel.credential == old.credential;
            let channel = channels.iter().position(is_same)?;
            Some(Outstanding { channel, ..outstanding })
        });
        Device {
            interests,
            filters,
            credentials: spec.credentials,
            channels,
            outstanding,
            quiet: spec.quiet,
            escalate_after: spec.escalate_after,
            expires_at: now + spec.life,
            silence: before.map(|before| before.silence).unwrap_or_default(),
            connections: before.map_or(0, |before| before.connections),
            seen_at: Some(now),
            charged: 0,
            asked_for: false,
            id: spec.id,
            principal: spec.principal,
        }
    }
}
