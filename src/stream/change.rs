//! Changes of a stream or a session that are no append, and what is wrong with a stream or a store whatever it is asked.

use std::sync::Arc;

use bytes::Bytes;

use super::Shortage;

/// Why a stream was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such stream.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The store could not keep the change.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What is wrong with the store itself, whatever it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no room. Nothing was changed, and it may work again once there is some.
    #[error("there is no room left to keep it")]
    Full,
    /// The system has no memory or no descriptor left for it. Nothing was changed, and it may work again soon.
    #[error("the system is short of memory or descriptors")]
    Short,
    /// There is no room in the memory budget, or the client has its share. Nothing was changed, and it may work again later.
    #[error("{0}")]
    OverBudget(Shortage),
    /// A write could not be made durable, so nothing is taken any more until the store is opened anew. Whether this
    /// change will be there then is not known.
    #[error("the store has failed to write and takes nothing any more")]
    Broken,
    /// What was kept has been damaged since, and is never served.
    #[error("what was kept can not be read any more")]
    Unreadable,
}

impl From<Shortage> for Failure {
    fn from(shortage: Shortage) -> Self {
        Self::OverBudget(shortage)
    }
}

/// There is no stream of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There never was, or it ended.
    #[error("the stream does not exist")]
    NotFound,
    /// It was deleted, but forks of it still need it.
    #[error("the stream was deleted")]
    Deleted,
}

/// A change of a session: of the entries that are kept for one client of a front. What they mean only the front
/// knows. All of it is done, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionChange {
    /// The name of the session.
    pub client: Arc<str>,
    /// Whether all that was kept of it goes first.
    pub anew: bool,
    /// Keys with their new values, or without one if they are to go. Of a key that is there twice the last counts.
    pub entries: Vec<(Bytes, Option<Bytes>)>,
}

impl SessionChange {
    /// Ends a session: nothing of it stays.
    pub fn end(client: Arc<str>) -> Self {
        Self { client, anew: true, entries: Vec::new() }
    }
}

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Its name.
    pub client: Arc<str>,
    /// Its keys and values, in no order.
    pub entries: Vec<(Bytes, Bytes)>,
}
