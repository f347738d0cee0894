//! Changes other than appends, the changes of sessions, and the errors that any operation on a stream or a store may return.

use std::sync::Arc;

use bytes::Bytes;

use std::time::Duration;

use super::Shortage;

/// Why a stream could not be changed or described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The stream does not exist.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The store could not keep the change.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why the store itself failed, whatever the operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The storage is full. Nothing has changed, and the operation may succeed once there is room.
    #[error("the storage is full")]
    Full,
    /// The system has no memory or no descriptor left. Nothing has changed, and the operation may succeed soon.
    #[error("the system is short of memory or descriptors")]
    Short,
    /// The memory budget, or the client's share of it, is used up. Nothing has changed, and the operation may succeed later.
    #[error("{0}")]
    OverBudget(Shortage),
    /// The client appends faster than it may. Nothing has changed, and the operation may succeed after this time.
    #[error(
        "this client appends faster than it may (appends_per_second_max, append_bytes_per_second_max); retry after the seconds in Retry-After"
    )]
    TooFast(Duration),
    /// A write could not be made durable, so the store accepts nothing more until it is opened again. Whether it has this
    /// change then is unknown.
    #[error("the store failed to write and accepts nothing more until the gateway restarts")]
    Broken,
    /// The engine or the upstream gateway that keeps the streams does not answer. Whether it has made the change is unknown.
    #[error("the engine or gateway that stores the streams does not answer")]
    Unreachable,
    /// The upstream gateway refuses what this gateway asks, with this status. A retry would be refused, too.
    #[error("the upstream gateway refuses this request of the gateway with status {0}")]
    UpstreamRefused(u16),
    /// Another gateway has become the owner of the session that was to be changed. Nothing has changed.
    #[error("another gateway serves this client now")]
    Superseded,
    /// Stored content has been damaged since it was written. It is never served.
    #[error("the stored messages are damaged and cannot be read")]
    Unreadable,
}

impl From<Shortage> for Failure {
    fn from(shortage: Shortage) -> Self {
        Self::OverBudget(shortage)
    }
}

/// Why a stream does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The stream never existed, or it has ended.
    #[error("the stream does not exist")]
    NotFound,
    /// The stream was deleted. Its name stays taken while forks of it exist.
    #[error("the stream was deleted")]
    Deleted,
}

/// A change of one client's session, such as an MQTT session. The entries are opaque to the store; the front gives them
/// meaning. The change is made as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionChange {
    /// The name of the client.
    pub client: Arc<str>,
    /// Whether all earlier entries of the session are removed first.
    pub anew: bool,
    /// Keys with their new values; `None` removes the key. If a key occurs twice, the last one counts.
    pub entries: Vec<(Bytes, Option<Bytes>)>,
}

impl SessionChange {
    /// A change that removes the session.
    pub fn end(client: Arc<str>) -> Self {
        Self { client, anew: true, entries: Vec::new() }
    }
}

/// From whom a session is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimFrom {
    /// From a gateway that has ended, or from nobody. Another owner is [asked](super::NewsListener::wanted) to release the session.
    AskedOwner,
    /// From any owner.
    Anyone,
    /// From a gateway that has ended, or from nobody. Another owner is left alone.
    Nobody,
}

/// The outcome of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionClaim {
    /// This gateway is the owner from now on. These are the entries of the session; none if it does not exist.
    Granted(Vec<(Bytes, Bytes)>),
    /// Another gateway is the owner.
    Held,
}

/// What the names of sessions begin with that are not those of clients but records of the gateway itself. No client id has a control
/// character.
pub const OWN_SESSIONS: char = '\0';

/// What the name of the record with the origin of a stream begins with; the name of the stream follows. In a store that several gateways
/// use, such a record ends with its stream, and the record's owner alone appends to the stream.
pub const ORIGIN_SESSIONS: &str = "\0origin/";

/// Selects stored sessions by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionNames<'a> {
    /// Records of the gateway itself whose names begin with this, which begins with [`OWN_SESSIONS`].
    Own(&'a str),
    /// The sessions of clients.
    OfClients,
}

/// The end of all names that begin with [`OWN_SESSIONS`], and the beginning of all others.
const CLIENTS_BEGIN: &str = "\u{1}";

impl SessionNames<'_> {
    /// The least string that is not less than any selected name.
    pub fn first(&self) -> &str {
        match self {
            Self::Own(prefix) => prefix,
            Self::OfClients => CLIENTS_BEGIN,
        }
    }

    /// Whether the name is selected.
    pub fn select(&self, name: &str) -> bool {
        match self {
            Self::Own(prefix) => name.starts_with(prefix),
            Self::OfClients => !name.starts_with(OWN_SESSIONS),
        }
    }
}

/// A page of the stored sessions, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions of the page.
    pub sessions: Vec<StoredSession>,
    /// The name after which the next page begins; `None` on the last page.
    pub next: Option<Arc<str>>,
}

/// The session of a client as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The name of the client.
    pub client: Arc<str>,
    /// The keys and values, in no particular order.
    pub entries: Vec<(Bytes, Bytes)>,
}
