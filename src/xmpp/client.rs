//! [`ClientFront`]: the gateway as the XMPP server of its own clients, which log in with a token and talk to the publish-subscribe
//! service of the domain. There are no other services: nobody is reached by address, and rosters are empty.
//!
//! `login` negotiates a stream up to the address of the client and `sasl` reads its credentials, both without IO; `negotiation` verifies
//! the credentials. `session` is a client that has logged in; its subscriptions end with it. `websocket` drives both over a WebSocket
//! (RFC 7395).

#[cfg(test)]
#[path = "../../fuzz/xmpp_stream.rs"]
mod fuzz;
mod login;
mod negotiation;
mod sasl;
mod session;
#[cfg(test)]
mod tests;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use super::jid::{InvalidJid, Jid};
use crate::access_log::audit::AuditLog;
use crate::auth::{Authenticator, Grants, Unauthorized};
use crate::budget::OpenCharge;
use crate::clock::Clock;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::{Metrics, XmppMetrics};
use crate::stream::Principal;
pub(super) use login::StreamError;
pub(super) use negotiation::{Negotiation, NegotiationStep};
use sasl::{Credentials, SaslError};
pub(super) use session::ClientSession;

/// How long a client may take to log in.
pub(super) const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum size of what a client sends at once before it has logged in, in bytes: a token in base64, and what is around it.
pub(super) const LOGIN_BYTES_MAX: usize = 16 * 1024;

/// Serves clients that connect to the gateway itself.
pub struct ClientFront {
    pub(super) hub: Arc<Hub>,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: XmppMetrics,
    pub(super) clock: Clock,
    pub(super) auth: Arc<Authenticator>,
    pub(super) domain: Jid,
    /// `None`: there is no audit log.
    audit_log: Option<AuditLog>,
}

/// What a client may do, and its place among the connections of its tenant.
struct AdmittedClient {
    grants: Arc<Grants>,
    open: Option<OpenCharge>,
}

impl ClientFront {
    /// Creates the front of `hub` for clients of `domain`.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        metrics: &Metrics,
        clock: Clock,
        auth: Arc<Authenticator>,
        domain: &str,
    ) -> Result<Self, InvalidJid> {
        let domain = Jid::parse_domain(domain)?;
        Ok(Self { hub, limits, metrics: metrics.xmpp().clone(), clock, auth, domain, audit_log: None })
    }

    /// Writes what clients create and delete, and what is refused, to an audit log. `None`: to none.
    pub fn auditing(self, audit_log: Option<AuditLog>) -> Self {
        Self { audit_log, ..self }
    }

    /// Verifies the credentials of a client, whose address has the principal `address`. Its name gives it no rights: those are of the
    /// token.
    fn admit(&self, credentials: &Credentials, address: Principal) -> Result<AdmittedClient, SaslError> {
        let grants = match &credentials.token {
            Some(token) => {
                let verified = self.auth.token(token.as_bytes(), address, self.clock.wall());
                verified.map_err(|error| match error {
                    Unauthorized::KeysPending | Unauthorized::TooManyFailures { .. } => SaslError::Temporary,
                    _ => SaslError::NotAuthorized,
                })?
            }
            None if self.auth.anonymous().is_empty() => return Err(SaslError::NotAuthorized),
            None => self.auth.anonymous(),
        };
        let open = self.hub.open(grants.tenant(), false).map_err(|_full| {
            self.hub.count_refusal(grants.tenant());
            SaslError::Temporary
        })?;
        Ok(AdmittedClient { grants, open })
    }
}
