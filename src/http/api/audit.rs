//! The entries of requests in the audit log: created and deleted streams, superseded polls, and refusals for lack of rights.

use std::sync::Arc;

use hyper::StatusCode;

use super::credentials::Rights;
use super::error::Error;
use super::gateway::Gateway;
use super::target::stream_of_path;
use crate::access_log::LoggedAddress;
use crate::access_log::audit::{AuditEntry, AuditEvent};
use crate::auth::Grants;
use crate::clock::rfc3339;
use crate::http::conn::ConnectionState;
use crate::http::read::request::Taker;
use crate::stream::StreamName;

/// What the audit log needs of a request when it is answered.
pub(super) struct AuditNote {
    who: Option<Arc<Grants>>,
    stream: Option<StreamName>,
    pub(super) address: Option<LoggedAddress>,
    method: AuditedMethod,
    /// An append has created its stream.
    pub(super) has_created: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AuditedMethod {
    Put,
    Delete,
    Other,
}

impl AuditNote {
    /// A note of a request with this method and target.
    pub(super) fn new(
        who: Option<Arc<Grants>>,
        address: Option<LoggedAddress>,
        method: &str,
        target: &str,
    ) -> Self {
        let method = match method {
            "PUT" => AuditedMethod::Put,
            "DELETE" => AuditedMethod::Delete,
            _ => AuditedMethod::Other,
        };
        let stream = stream_of_path(target.split('?').next().unwrap_or_default()).ok();
        // Subscriptions are no streams.
        let method = if stream.is_some() { method } else { AuditedMethod::Other };
        Self { who, stream, address, method, has_created: false }
    }

    /// Whether a request that was not refused yet may come to be in the log.
    pub(super) fn is_change(method: &str, query: Option<&str>) -> bool {
        matches!(method, "PUT" | "DELETE") || query.is_some_and(|query| query.contains("create="))
    }
}

impl Gateway {
    /// The rights of a client, for the audit log. `None`: there is none, or the client has no credentials.
    pub(in crate::http) fn audited(&self, rights: Option<&Rights>) -> Option<Arc<Grants>> {
        self.audit_log.as_ref()?;
        rights.map(Rights::grants)
    }

    /// Writes that a request is refused, if it is for lack of rights.
    pub(super) fn audit_refusal(&self, note: &AuditNote, error: &Error) {
        if error.lacks_rights() {
            self.audit(note, AuditEvent::Refused, Some(&error.to_string()));
        }
    }

    /// Writes what a request that is answered with `status` has changed.
    pub(super) fn audit_change(&self, note: &AuditNote, status: StatusCode) {
        match (note.method, status) {
            // Devices and the like are no streams.
            _ if note.stream.is_none() => {}
            (AuditedMethod::Put, StatusCode::CREATED) => self.audit(note, AuditEvent::Created, None),
            (AuditedMethod::Delete, StatusCode::NO_CONTENT) => self.audit(note, AuditEvent::Deleted, None),
            _ if note.has_created => self.audit(note, AuditEvent::Created, None),
            _ => {}
        }
    }

    /// Writes that a poll has ended an older one of the same client. `stream`: `None` for many streams.
    pub(in crate::http) fn audit_takeover(
        &self,
        taker: &Taker,
        stream: Option<&StreamName>,
        state: &ConnectionState,
    ) {
        let Some(log) = &self.audit_log else { return };
        let entry = AuditEntry {
            who: taker.who.as_ref().and_then(|grants| grants.subject()),
            stream: stream.map(StreamName::as_str),
            client: Some(taker.client.chosen()),
            address: taker.address.or_else(|| state.peer().map(LoggedAddress::Peer)),
            ..AuditEntry::new(AuditEvent::TookOver)
        };
        log.write(entry, || rfc3339(self.clock.wall()));
    }

    fn audit(&self, note: &AuditNote, event: AuditEvent, reason: Option<&str>) {
        let Some(log) = &self.audit_log else { return };
        let entry = AuditEntry {
            who: note.who.as_ref().and_then(|grants| grants.subject()),
            stream: note.stream.as_ref().map(StreamName::as_str),
            address: note.address,
            reason,
            ..AuditEntry::new(event)
        };
        log.write(entry, || rfc3339(self.clock.wall()));
    }
}
