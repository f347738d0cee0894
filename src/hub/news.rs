//! [`Followed`]: wakes the readers of this gateway when another gateway has changed a stream of the store that they share.

use std::sync::{Arc, Weak};

use super::subscriber::Subscribers;
use super::waiters::WaiterRegistry;
use crate::stream::{Epoch, NewsListener, Position, StreamName};

/// Passes the news of a store on to waiters and subscribers.
pub(super) struct Followed {
    /// The waiters refer to the store, which refers to this.
    waiters: Weak<WaiterRegistry>,
    subscribers: Arc<Subscribers>,
}

impl Followed {
    pub(super) fn new(waiters: &Arc<WaiterRegistry>, subscribers: Arc<Subscribers>) -> Self {
        Self { waiters: Arc::downgrade(waiters), subscribers }
    }
}

impl NewsListener for Followed {
    fn moved(&self, name: &StreamName, epoch: Epoch, tail: Position, closed: bool) {
        if let Some(waiters) = self.waiters.upgrade() {
            // The store attaches names, so that a new epoch needs no other attachment.
            let _no_publisher_waits = waiters.advance(name, epoch, tail, closed, None);
        }
    }

    fn ended(&self, name: &StreamName) {
        if let Some(waiters) = self.waiters.upgrade() {
            waiters.end(name);
        }
    }

    fn missed(&self) {
        self.subscribers.missed();
    }
}
