//! What a connection shares with its requests and with the server.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};

/// How far the server's shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are accepted and served.
    Serving,
    /// No connection is accepted; open ones end behind their current response.
    Closing,
    /// Connections are dropped as they are.
    Stopped,
}

/// State of one connection. It counts as open until the last holder drops this, so a WebSocket that outlives the HTTP
/// connection still counts.
pub struct ConnectionState {
    stalled: AtomicBool,
    unsent: AtomicBool,
    _open: Box<dyn Any + Send + Sync>,
}

impl ConnectionState {
    /// State of a new connection; `open` is dropped with the last holder.
    pub fn new(open: impl Any + Send + Sync) -> Self {
        Self { stalled: AtomicBool::new(false), unsent: AtomicBool::new(false), _open: Box::new(open) }
    }

    /// Records that the client stopped reading and is being cut.
    pub(super) fn set_stalled(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Whether the connection was cut because the client stopped reading.
    pub(in crate::http) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Records whether the kernel has refused a part of the last write.
    pub(super) fn set_unsent(&self, unsent: bool) {
        self.unsent.store(unsent, Ordering::Relaxed);
    }

    /// Whether a part of the last write still has to be written.
    pub(super) fn is_unsent(&self) -> bool {
        self.unsent.load(Ordering::Relaxed)
    }
}
