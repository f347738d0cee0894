//! Devices of a store that several gateways use: a device belongs to the gateway at which it was last seen, which alone wakes it. The
//! others know its id, and take it over when it comes to them, with its stored record.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::elsewhere::DeviceElsewhere;
use super::readers::ReadTarget;
use super::record::{self, SESSIONS};
use super::table::{DeviceTable, Devices};
use crate::hub::{ClaimNews, ClientId, Hub, SessionWalk, UNCLAIMED_MAX, until_answered};
use crate::stream::{Failure, SessionNames, Start, StoredSession, StreamName};

/// The name of a device's session.
pub(super) fn session_of(id: &ClientId) -> Arc<str> {
    [SESSIONS, id.as_str()].concat().into()
}

fn id_of(session: &str) -> Option<ClientId> {
    session.strip_prefix(SESSIONS).map(ClientId::stored)
}

impl Devices {
    /// Notes what a poll has read. Returns whether the device has to be taken over.
    fn begin_fetch(&self, id: &ClientId, reads: Vec<(StreamName, Start)>, reads_all: bool) -> bool {
        let mut table = self.table.lock();
        table.elsewhere.get_mut(id).is_some_and(|device| device.polled.replace((reads, reads_all)).is_none())
    }

    /// A device that was elsewhere is here, or does not exist any more.
    fn has_come(&self, id: &ClientId, now: SystemTime) {
        let mut table = self.table.lock();
        let left = table.elsewhere.remove(id).unwrap_or_default();
        if let Some(mut device) = table.devices.get_mut(id) {
            device.connections += left.connections;
        }
        self.recount(&table);
        drop(table);
        if let Some((reads, reads_all)) = left.polled {
            self.polled(id, reads.iter().map(|(stream, start)| (stream, *start)), reads_all, now);
        }
    }

    pub(super) fn is_elsewhere(&self, id: &ClientId) -> bool {
        self.table.lock().elsewhere.contains_key(id)
    }

    fn is_here(&self, id: &ClientId) -> bool {
        self.table.lock().devices.contains(id)
    }

    /// Notes that another gateway may have a device.
    fn known(&self, id: ClientId) {
        let mut table = self.table.lock();
        if !table.devices.contains(&id) {
            table.elsewhere.entry(id).or_default();
        }
        self.recount(&table);
    }

    /// Forgets devices of other gateways that do not exist any more, unless their clients are here.
    fn gone<'a>(&self, ids: impl IntoIterator<Item = &'a ClientId>) {
        let mut table = self.table.lock();
        for id in ids {
            if table.elsewhere.get(id).is_some_and(DeviceElsewhere::is_idle) {
                table.elsewhere.remove(id);
            }
        }
        self.recount(&table);
    }

    fn all_elsewhere(&self) -> HashSet<ClientId> {
        self.table.lock().elsewhere.keys().cloned().collect()
    }
}

impl DeviceTable {
    /// Removes a device that another gateway has from now on.
    fn leave(&mut self, id: &ClientId) {
        let connections = self.devices.get(id).map(|device| device.connections);
        if let Some(connections) = connections {
            let ended = self.take(id);
            self.ended.extend(ended);
            self.unsaved.remove(id);
            self.elsewhere.insert(id.clone(), DeviceElsewhere { connections, polled: None });
        }
    }
}

impl Hub {
    /// Takes a device over if another gateway has it.
    pub async fn fetch_device(&self, id: &ClientId) -> Result<(), Failure> {
        if !self.devices.is_elsewhere(id) {
            return Ok(());
        }
        self.claim_device(id).await?;
        if !self.devices.is_here(id) {
            self.release(&session_of(id), None).await;
        }
        Ok(())
    }

    /// Makes this gateway the one that has a device, which need not exist.
    pub(super) async fn claim_device(&self, id: &ClientId) -> Result<(), Failure> {
        let _alone = self.devices.moves.of(id).await;
        if !self.shares_sessions() || self.devices.is_here(id) {
            return Ok(());
        }
        let session = session_of(id);
        match self.claim(&session).await {
            Ok((entries, _)) => self.adopt_device(session, entries, false).await,
            Err(failure) => {
                self.devices.table.lock().elsewhere.get_mut(id).map(|device| device.polled.take());
                return Err(failure);
            }
        }
        self.devices.has_come(id, self.clock.now());
        Ok(())
    }

    /// Releases the claim on a device that was not registered.
    pub(super) async fn release_unused(&self, id: &ClientId) {
        if self.shares_sessions() && !self.devices.is_here(id) {
            self.release(&session_of(id), None).await;
        }
    }

    /// A device that another gateway has polls here.
    pub(super) fn fetch_polled(
        self: &Arc<Self>,
        id: &ClientId,
        reads: Vec<(StreamName, Start)>,
        reads_all: bool,
    ) {
        if !self.devices.begin_fetch(id, reads, reads_all) {
            return;
        }
        let (hub, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            if let Err(error) = hub.fetch_device(&id).await {
                tracing::debug!(%error, "cannot take a device over; its next poll tries again");
            }
        });
    }

    /// Adds a device with its stored record. `is_orphan`: the gateway that had it has ended.
    async fn adopt_device(&self, session: Arc<str>, entries: Vec<(Bytes, Bytes)>, is_orphan: bool) {
        if entries.is_empty() {
            return;
        }
        let Some(device) = record::decoded(&StoredSession { client: session, entries }) else {
            tracing::error!("a stored device is damaged; it is woken again once it registers again");
            return;
        };
        let targets: HashSet<ReadTarget> = device.targets().collect();
        self.load_device(device, self.clock.now(), is_orphan);
        targets.iter().for_each(|target| self.watch_target(target));
        self.find_news(&targets).await;
        for target in targets {
            if let ReadTarget::Stream(stream) = target {
                self.refresh_stream(&stream).await;
            }
        }
    }

    /// Gives a device to another gateway, with what this one knows of it.
    async fn give_device(&self, session: &Arc<str>) {
        let Some(id) = id_of(session) else { return };
        let _alone = self.devices.moves.of(&id).await;
        let record = {
            let mut table = self.devices.table.lock();
            let record = table.devices.get(&id).and_then(record::encoded);
            table.leave(&id);
            self.devices.recount(&table);
            record
        };
        self.unwatch_ended();
        // If another gateway has taken it already, that one goes on with the stored record.
        if record.is_some()
            && let Err(error) = self.change_session(record::change(&id, record)).await
        {
            tracing::debug!(%error, "cannot store a device that another gateway wants");
        }
        self.release(session, Some(self.clock.now() + UNCLAIMED_MAX)).await;
    }

    /// Another gateway has become the owner of a device without asking.
    pub(super) fn lose_device(&self, id: &ClientId) {
        {
            let mut table = self.devices.table.lock();
            table.leave(id);
            self.devices.recount(&table);
        }
        self.unwatch_ended();
    }

    async fn take_orphan(&self, session: Arc<str>) {
        let Some(id) = id_of(&session) else { return };
        let _alone = self.devices.moves.of(&id).await;
        if self.devices.is_here(&id) {
            return;
        }
        let Ok(Some(entries)) = self.claim_orphan(&session).await else { return };
        if entries.is_empty() {
            return self.release(&session, None).await;
        }
        self.adopt_device(session, entries, true).await;
        self.devices.has_come(&id, self.clock.now());
    }

    /// Keeps the list of the devices of other gateways up to date, takes over devices whose gateway has stopped, and hands devices over to
    /// gateways that ask for them. Never returns.
    pub async fn follow_device_claims(&self) {
        let mut news = self.follow_claims(SessionNames::Own(SESSIONS));
        if !self.shares_sessions() {
            return std::future::pending().await;
        }
        self.find_devices().await;
        loop {
            match next_of(&mut news).await {
                ClaimNews::Wanted(session) => self.give_device(&session).await,
                ClaimNews::Orphaned(session) => self.take_orphan(session).await,
                ClaimNews::Known(session) => {
                    id_of(&session).into_iter().for_each(|id| self.devices.known(id))
                }
                ClaimNews::Gone(session) => self.devices.gone(&id_of(&session)),
                ClaimNews::Missed => self.find_devices().await,
                ClaimNews::Told(..) => {}
            }
        }
    }

    /// Brings the list of the stored devices that this gateway does not own up to date.
    async fn find_devices(&self) {
        let mut gone = self.devices.all_elsewhere();
        let walked = || async {
            let (mut walk, mut found) = (SessionWalk::over(SessionNames::Own(SESSIONS)), Vec::new());
            while let Some(sessions) = self.next_sessions(&mut walk).await? {
                found.extend(sessions.iter().filter_map(|stored| id_of(&stored.client)));
            }
            Ok(found)
        };
        for id in until_answered(walked).await {
            gone.remove(&id);
            self.devices.known(id);
        }
        self.devices.gone(&gone);
    }
}

async fn next_of(news: &mut mpsc::Receiver<ClaimNews>) -> ClaimNews {
    match news.recv().await {
        Some(news) => news,
        // The hub, which has the sender, has ended.
        None => std::future::pending().await,
    }
}
