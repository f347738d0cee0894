//! [`PolledOrigins`]: the streams that the gateway fills from a URL, which it polls once for all their readers.
//!
//! The hub knows which streams these are, refuses appends by others, and notices their readers. What it does not know is HTTP: the
//! poller in `outbound` sends the requests.
//!
//! An origin belongs to one stream, from its creation to its end; a later stream of the same name does not have it. If several gateways use
//! the store, all of them know all origins, and one at a time polls each (`moving`).

mod moving;
mod operations;
mod origin;
mod settings;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::moves::Moves;
use crate::stream::{Filter, StreamName, Tenant};

pub use origin::{OriginPlace, PolledOrigin, SeenEntry};
pub use settings::{ElementKey, OriginInterval, OriginSettings};
pub use status::{OriginState, OriginStatus};

/// The origins of all streams that have one.
#[derive(Debug)]
pub(in crate::hub) struct PolledOrigins {
    by_stream: DashMap<StreamName, Arc<PolledOrigin>>,
    /// Number of origins. Appends and reads look no further while it is 0.
    count: AtomicUsize,
    /// Locked while a stream with an origin is created, so that their number stays within its limits.
    pub(super) creating: Arc<AsyncMutex<()>>,
    /// Locks for claims on origins, by their streams.
    moves: Moves,
    /// Hands each origin to the poller.
    added: mpsc::UnboundedSender<Arc<PolledOrigin>>,
    poller: Mutex<Option<mpsc::UnboundedReceiver<Arc<PolledOrigin>>>>,
}

impl Default for PolledOrigins {
    fn default() -> Self {
        let (added, poller) = mpsc::unbounded_channel();
        let (by_stream, count, creating, moves) = Default::default();
        Self { by_stream, count, creating, moves, added, poller: Mutex::new(Some(poller)) }
    }
}

impl PolledOrigins {
    /// Returns the origin of a stream, if it has one.
    pub(in crate::hub) fn of(&self, stream: &StreamName) -> Option<Arc<PolledOrigin>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.by_stream.get(stream).map(|origin| origin.clone())
    }

    /// Notes that somebody begins to read a stream.
    pub(in crate::hub) fn note_reader(&self, stream: &StreamName) {
        if let Some(origin) = self.of(stream) {
            origin.note_reader();
        }
    }

    /// Notes that somebody begins to read the streams that `filter` matches.
    pub(in crate::hub) fn note_readers(&self, filter: &Filter) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let matching = self.by_stream.iter().filter(|origin| filter.matches(origin.key()));
            matching.for_each(|origin| origin.note_reader());
        }
    }

    pub(super) fn add(&self, origin: Arc<PolledOrigin>) {
        match self.by_stream.insert(origin.stream().clone(), origin.clone()) {
            Some(former) => former.ends(),
            None => drop(self.count.fetch_add(1, Ordering::Relaxed)),
        }
        // Fails if there is no poller any more.
        let _ended = self.added.send(origin);
    }

    pub(super) fn remove(&self, origin: &Arc<PolledOrigin>) {
        if self.by_stream.remove_if(origin.stream(), |_, known| Arc::ptr_eq(known, origin)).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        origin.ends();
    }

    /// All origins.
    fn all(&self) -> Vec<Arc<PolledOrigin>> {
        self.by_stream.iter().map(|origin| origin.clone()).collect()
    }

    /// Number of origins.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Number of origins of one tenant.
    pub(super) fn count_of(&self, tenant: &Tenant) -> usize {
        self.by_stream.iter().filter(|origin| origin.key().tenant() == *tenant).count()
    }

    /// Takes the receiver of all origins, once.
    pub(super) fn take_poller(&self) -> Option<mpsc::UnboundedReceiver<Arc<PolledOrigin>>> {
        self.poller.lock().take()
    }
}
