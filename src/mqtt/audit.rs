//! The entries of MQTT clients in the audit log: refusals for lack of rights, created streams, and takeovers of sessions.

use super::{Broker, Peer};
use crate::access_log::LoggedAddress;
use crate::access_log::audit::{AuditEntry, AuditEvent, AuditLog};
use crate::auth::Grants;
use crate::clock::{Clock, rfc3339};

/// Writes the entries of one connection.
pub(super) struct Auditor {
    log: AuditLog,
    clock: Clock,
    address: Option<LoggedAddress>,
}

impl Broker {
    /// The auditor of a connection. `None`: there is no audit log.
    pub(super) fn auditor(&self, peer: &Peer) -> Option<Box<Auditor>> {
        let log = self.audit_log.clone()?;
        Some(Box::new(Auditor { log, clock: self.clock, address: peer.address }))
    }
}

impl Auditor {
    /// A client is refused, or may not use a stream or filter.
    pub(super) fn refused(
        &self,
        grants: Option<&Grants>,
        client: Option<&str>,
        stream: Option<&str>,
        why: &str,
    ) {
        let entry = AuditEntry { stream, client, reason: Some(why), ..AuditEntry::new(AuditEvent::Refused) };
        self.write(grants, entry);
    }

    /// A message has created its stream.
    pub(super) fn created(&self, grants: &Grants, stream: &str) {
        self.write(Some(grants), AuditEntry { stream: Some(stream), ..AuditEntry::new(AuditEvent::Created) });
    }

    /// A client takes over the session of a connection that is open.
    pub(super) fn took_over(&self, grants: &Grants, client: &str) {
        self.write(
            Some(grants),
            AuditEntry { client: Some(client), ..AuditEntry::new(AuditEvent::TookOver) },
        );
    }

    fn write(&self, grants: Option<&Grants>, entry: AuditEntry<'_>) {
        let who = grants.and_then(Grants::subject);
        self.log.write(AuditEntry { who, address: self.address, ..entry }, || rfc3339(self.clock.wall()));
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn each_entry_says_where_the_client_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let log = AuditLog::open(&path, 10, 10, Counter::default()).unwrap();
        let address = Some(LoggedAddress::Peer(([192, 0, 2, 7], 1883).into()));
        let auditor = Auditor { log: log.clone(), clock: Clock::start(), address };
        auditor.refused(None, Some("phone"), None, "CONNACK NotAuthorized");
        auditor.took_over(&Grants::everything(), "phone");
        log.close();
        let written = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("192.0.2.7:1883")), "{written}");
        assert!(lines[0].contains("\"reason\":\"CONNACK NotAuthorized\""), "{written}");
        assert!(lines[1].contains("\"event\":\"took-over\""), "{written}");
    }
}
