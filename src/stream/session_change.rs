//! A change of what is kept for a front about one of its clients.

use std::sync::Arc;

use bytes::Bytes;

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
