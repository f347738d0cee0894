//! Parts of a connection that it has only for a time, or that only some connections have: [`PendingWork`] and [`Extras`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU16;

use tokio::time::Instant;

use super::audit::Auditor;
use super::walks::{CatchUp, RetainedWalk};
use crate::auth::EndOfRights;
use crate::clock::ReusableSleep;
use crate::hub::DeviceConnection;
use crate::stream::StreamName;

/// What only some connections have.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) aliases: TopicAliases,
    /// `None`: there is no audit log.
    pub(super) auditor: Option<Box<Auditor>>,
    /// Completes when the rights of the client end. `None`: they never do.
    pub(super) rights_end: Option<EndOfRights>,
    /// Keeps a device from being woken.
    pub(super) _device: Option<Box<DeviceConnection>>,
}

/// What a connection is about to do, apart from handling packets.
#[derive(Default)]
pub(super) struct PendingWork {
    /// Streams that may have messages to send.
    pub(super) ready: VecDeque<StreamName>,
    /// Streams that could not be read. `None`: there are none.
    pub(super) failed: Option<FailedReads>,
    /// The walk that sends retained messages to a new subscription.
    pub(super) retained: Option<RetainedWalk>,
    /// The walk over streams that may have changed without a mark.
    pub(super) catch_up: Option<CatchUp>,
    /// When to end the connection during a drain.
    pub(super) leave_at: Option<Instant>,
    /// When to store changes that need not be stored at once.
    pub(super) save_at: Option<Instant>,
    pub(super) timer: ReusableSleep,
}

impl PendingWork {
    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        let Self { ready, failed, retained, catch_up, leave_at, save_at, timer: _ } = self;
        let sends = !ready.is_empty() || failed.is_some() || retained.is_some() || catch_up.is_some();
        !sends && leave_at.is_none() && save_at.is_none()
    }
}

/// The topic aliases of a connection.
#[derive(Default)]
pub(super) struct TopicAliases {
    /// Topics by the alias that the client has assigned.
    pub(super) received: Vec<Option<StreamName>>,
    /// Aliases that the gateway has assigned.
    pub(super) sent: HashMap<StreamName, NonZeroU16>,
}

/// Streams of a connection that could not be read.
pub(super) struct FailedReads {
    pub(super) streams: BTreeSet<StreamName>,
    /// When they are read again.
    pub(super) retry_at: Instant,
}
