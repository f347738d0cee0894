//! [`DeviceElsewhere`]: a device that another gateway owns.

use crate::stream::{Start, StreamName};

/// A device that another gateway owns.
#[derive(Debug, Default)]
pub(super) struct DeviceElsewhere {
    /// Number of its connections to this gateway.
    pub(super) connections: usize,
    /// While this gateway takes the device over: the positions of its last poll here, and whether it reads all streams of its filters.
    pub(super) polled: Option<(Vec<(StreamName, Start)>, bool)>,
}

impl DeviceElsewhere {
    /// Whether its client is not at this gateway.
    pub(super) fn is_idle(&self) -> bool {
        self.connections == 0 && self.polled.is_none()
    }
}
