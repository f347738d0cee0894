//! Devices as clients see them.

use std::time::SystemTime;

use super::device::{Channel, Device};
use crate::clock::WallOffset;
use crate::stream::{Offset, StreamName};

/// A device.
#[derive(Debug, Clone)]
pub struct DeviceView {
    /// The streams with the offset of the last poll; `None`: the beginning.
    pub streams: Vec<(StreamName, Option<Offset>)>,
    /// The channels in the order in which they are tried.
    pub channels: Vec<ChannelView>,
    /// Something lies behind an offset.
    pub is_pending: bool,
    /// The app over which a wake is outstanding, and since when, by the time of day.
    pub outstanding: Option<(String, SystemTime)>,
    /// The time of day at which the registration ends.
    pub expires_at: SystemTime,
}

/// A channel of a device. Times are times of day.
#[derive(Debug, Clone)]
pub struct ChannelView {
    /// The name of the app.
    pub app: String,
    /// Identifies the credential without giving it away.
    pub credential: String,
    /// When it was registered.
    pub added_at: SystemTime,
    /// When the provider last accepted a wake.
    pub last_ok: Option<SystemTime>,
    /// Why the provider did not accept the last one.
    pub last_error: Option<String>,
    /// The provider calls the device gone.
    pub is_gone: bool,
}

impl DeviceView {
    pub(super) fn of(device: &Device, offset: WallOffset) -> Self {
        let outstanding = device.outstanding.as_ref().and_then(|outstanding| {
            let channel = device.channels.get(outstanding.channel)?;
            Some((channel.app.to_string(), offset.to_wall(outstanding.since)))
        });
        Self {
            streams: device
                .interests
                .iter()
                .map(|interest| (interest.stream.clone(), interest.offset))
                .collect(),
            channels: device.channels.iter().map(ChannelView::of).collect(),
            is_pending: device.is_pending(),
            outstanding,
            expires_at: offset.to_wall(device.expires_at),
        }
    }
}

impl ChannelView {
    fn of(channel: &Channel) -> Self {
        Self {
            app: channel.app.to_string(),
            credential: channel.credential.hint(),
            added_at: channel.added_at,
            last_ok: channel.last_ok,
            last_error: channel.last_error.as_deref().map(str::to_owned),
            is_gone: channel.is_gone,
        }
    }
}
