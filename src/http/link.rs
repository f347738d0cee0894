//! What a front and the connection below it know of each other.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};

/// A connection, as its requests see it. It counts as open as long as somebody holds its link, so a WebSocket
/// that has left HTTP behind still does.
pub struct Link {
    stalled: AtomicBool,
    unsent: AtomicBool,
    _open: Box<dyn Any + Send + Sync>,
}

impl Link {
    /// A link of a connection; `open` is dropped when the last holder is gone.
    pub fn new(open: impl Any + Send + Sync) -> Self {
        Self { stalled: AtomicBool::new(false), unsent: AtomicBool::new(false), _open: Box::new(open) }
    }

    /// The client does not take what it is sent, and is being cut.
    pub fn set_stalled(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Whether the client was cut for that.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Whether the kernel has not taken all of what was written last.
    pub fn set_unsent(&self, unsent: bool) {
        self.unsent.store(unsent, Ordering::Relaxed);
    }

    /// Whether something waits to be written again.
    pub fn is_unsent(&self) -> bool {
        self.unsent.load(Ordering::Relaxed)
    }
}
