//! Devices that sleep, and when to wake them.
//!
//! A device registers the streams that it reads, or filters of them, and channels over which a provider can wake it. A wake says
//! nothing but "poll". It is due if something lies behind the offset of the device's last poll, unless the device is connected, or a wake is
//! outstanding. The poll that follows confirms the wake. [`device::Device`] decides without a clock and without IO; [`Devices`]
//! is the table of all devices. Sending is left to `outbound`, which takes [`WakeOrder`]s and reports a [`Verdict`] for each.
//!
//! What is pending follows from the offsets, so it is not stored: a start computes it again. For a filter the time of the newest
//! message that the device has read stands for all offsets. Stored are the registration, the offsets and times (up to some seconds late,
//! which costs a wake without need at most), and an outstanding wake before it is sent.

mod app;
mod apps;
mod channel;
mod device;
mod elsewhere;
mod interest;
mod moving;
mod operations;
mod readers;
mod receipts;
mod record;
mod registered;
mod removal;
mod running;
mod table;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

pub use app::{AppPolicy, Credential, CredentialKind, Verdict};
pub use channel::{QuietHours, ReceiptState, RemovalReason, Removed};
pub use device::{DeviceSpec, WakeOrder};
pub use operations::{DeviceConnection, DeviceError};
pub use table::Devices;

use crate::clock::WallOffset;
use crate::stream::{Filter, Offset, StreamName};
use channel::Channel;
use device::Device;

/// A device.
#[derive(Debug, Clone)]
pub struct DeviceView {
    /// The streams with the offset of the last poll; `None`: the beginning.
    pub streams: Vec<(StreamName, Option<Offset>)>,
    /// The filters with wildcards.
    pub filters: Vec<Filter>,
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
    fn of(device: &Device, offset: WallOffset) -> Self {
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
            filters: device.filters.iter().map(|interest| interest.filter.clone()).collect(),
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
