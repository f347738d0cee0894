//! The entries of XMPP clients in the audit log: streams that they create and delete, and refusals for lack of rights.

use super::{PubsubService, Requester};
use crate::access_log::audit::{AuditEntry, AuditEvent, AuditLog};
use crate::auth::{Action, Forbidden, authorize};
use crate::clock::rfc3339;
use crate::stream::StreamName;

impl PubsubService {
    /// Writes to an audit log from now on. `None`: to none.
    pub(super) fn auditing(self, audit_log: Option<AuditLog>) -> Self {
        Self { audit_log, ..self }
    }

    /// Decides whether a client may do `action` to a stream. A refusal is in the audit log.
    pub(super) fn permit(
        &self,
        who: &Requester,
        action: Action,
        stream: &StreamName,
    ) -> Result<(), Forbidden> {
        let outcome = authorize(&who.grants, action, stream);
        if let Err(forbidden) = outcome {
            self.audit(who, AuditEvent::Refused, stream, Some(forbidden));
        }
        outcome
    }

    /// A client has created a stream.
    pub(super) fn created(&self, who: &Requester, stream: &StreamName) {
        self.audit(who, AuditEvent::Created, stream, None);
    }

    /// A client has deleted a stream.
    pub(super) fn deleted(&self, who: &Requester, stream: &StreamName) {
        self.audit(who, AuditEvent::Deleted, stream, None);
    }

    /// A client is refused `action`, because it has no right to it.
    pub(super) fn refused(&self, who: &Requester, stream: &StreamName, action: Action) {
        self.audit(who, AuditEvent::Refused, stream, Some(Forbidden(action)));
    }

    fn audit(&self, who: &Requester, event: AuditEvent, stream: &StreamName, why: Option<Forbidden>) {
        let Some(log) = &self.audit_log else { return };
        let reason = why.map(|forbidden| forbidden.to_string());
        let entry = AuditEntry {
            who: who.grants.subject(),
            stream: Some(stream.as_str()),
            client: Some(who.jid.as_str()),
            reason: reason.as_deref(),
            ..AuditEntry::new(event)
        };
        log.write(entry, || rfc3339(self.clock.wall()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::metrics::counter::Counter;

    use super::*;
    use crate::auth::{AuthSettings, Authenticator};
    use crate::clock::Clock;
    use crate::hub::Hub;
    use crate::limits::Limits;
    use crate::metrics::Metrics;
    use crate::store::Memory;
    use crate::xmpp::jid::Jid;

    #[tokio::test]
    async fn a_refusal_says_who_asked_for_what() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        std::fs::write(&path, "[[jid]]\nmatches = 'a@b'\nread = ['a']\n").unwrap();
        let auth = Arc::new(Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap());
        let (limits, metrics, clock) = (Arc::new(Limits::default()), Metrics::new(), Clock::start());
        let store = Arc::new(Memory::default());
        let hub = Arc::new(Hub::new(store, limits.clone(), Arc::new(Metrics::new()), clock));
        let domain = Jid::parse("s.example").unwrap();
        let service = PubsubService::load(hub, limits, &metrics, clock, auth, domain).await.unwrap();
        let log = AuditLog::open(&folder.path().join("audit"), 10, 10, Counter::default()).unwrap();
        let service = service.auditing(Some(log.clone()));
        let who = service.requester(Jid::parse("a@b/c").unwrap());
        let stream = StreamName::parse("a").unwrap();
        assert_eq!(service.permit(&who, Action::Read, &stream), Ok(()));
        assert_eq!(service.permit(&who, Action::Manage, &stream), Err(Forbidden(Action::Manage)));
        log.close();
        let written = std::fs::read_to_string(folder.path().join("audit")).unwrap();
        let entry: serde_json::Value = serde_json::from_str(&written).unwrap();
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            ["event", "who", "stream", "client"].map(text),
            ["refused", "jid: a@b", "a", "a@b/c"].map(str::to_owned)
        );
        assert!(text("reason").contains("manage"), "{written}");
    }
}
