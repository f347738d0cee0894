//! Devices that sleep, and when to wake them.
//!
//! A device registers the streams that it reads, and channels over which a provider can wake it. A wake says nothing but "poll".
//! It is due if something lies behind the offset of the device's last poll, unless the device is connected, or a wake is
//! outstanding. The poll that follows confirms the wake. [`device::Device`] decides without a clock and without IO; [`Devices`]
//! is the table of all devices. Sending is left to `outbound`, which takes [`WakeOrder`]s and reports a [`Verdict`] for each.
//!
//! What is pending follows from the offsets, so it is not stored: a start computes it again. Stored are the registration, the
//! offsets (up to some seconds late, which costs a wake without need at most), and an outstanding wake before it is sent.

mod app;
mod device;
mod operations;
mod record;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use app::{AppPolicy, Credential, CredentialKind, Verdict};
pub use device::{DeviceSpec, QuietHours, WakeOrder};
pub use operations::{DeviceError, Presence};
pub use table::{Devices, Removed};
pub use view::{ChannelView, DeviceView};
