//! Where a subscription starts in its streams.

use crate::offset::Offset;
use crate::resume_token::ResumeToken;

/// Where a subscription starts.
#[derive(Debug, Clone)]
pub struct Start {
    pub(crate) token: Option<ResumeToken>,
    pub(crate) unknown: Begin,
    /// Id of the device that reads.
    pub(crate) device: Option<String>,
}

/// Where streams start that the resume token does not contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At their tails.
    Now,
    /// With their earliest message.
    Earliest,
    /// With this many last messages.
    Last(u64),
    /// With the message after this offset.
    At(Offset),
}

impl Start {
    /// Starts at the tails of the streams, as they are when the gateway answers first.
    pub fn now() -> Self {
        Self { token: None, unknown: Begin::Now, device: None }
    }

    /// Starts with the earliest message of each stream that is kept.
    pub fn earliest() -> Self {
        Self { token: None, unknown: Begin::Earliest, device: None }
    }

    /// Starts with the last messages of each stream, this many or all that are kept. In streams that are not JSON, appends
    /// that lie within the last 64 KiB count.
    pub fn history(messages: u64) -> Self {
        Self { token: None, unknown: Begin::Last(messages), device: None }
    }

    /// Starts with the message after an offset, of one stream. A subscription of several streams is refused with it.
    pub fn at(offset: Offset) -> Self {
        Self { token: None, unknown: Begin::At(offset), device: None }
    }

    /// Starts behind what was read before. Streams that the resume token does not contain start at their tails.
    pub fn after(token: ResumeToken) -> Self {
        Self { token: Some(token), unknown: Begin::Now, device: None }
    }

    /// Starts streams that the resume token does not contain with their earliest message.
    pub fn unknown_from_earliest(self) -> Self {
        Self { unknown: Begin::Earliest, ..self }
    }

    /// Starts streams that the resume token does not contain with their last messages, as [`history`](Self::history) does.
    pub fn unknown_from_history(self, messages: u64) -> Self {
        Self { unknown: Begin::Last(messages), ..self }
    }

    /// Reads as a registered device, so that the gateway knows what the device has read and does not wake it meanwhile. One
    /// subscription at a time may read as a device.
    pub fn as_device(self, id: &str) -> Self {
        Self { device: Some(id.to_owned()), ..self }
    }
}
