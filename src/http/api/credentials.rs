//! Credentials of requests: from the `Authorization` field, the cookie or a ticket to the rights of the client.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::header::{AUTHORIZATION, COOKIE, ORIGIN};
use tokio::sync::watch;

use super::error::Error;
use super::fields::Fields;
use super::forwarded::ClientSource;
use super::gateway::Gateway;
use crate::access_log::LoggedAddress;
use crate::access_log::audit::{AuditEntry, AuditEvent, AuditLog};
use crate::auth::{Action, Authenticator, Grants, Unauthorized, authorize, authorize_filter};
use crate::clock::{Clock, rfc3339};
use crate::hub::{ClientId, CredentialMark};
use crate::metrics::TenantPlace;
use crate::stream::{Filter, Principal, Producer, StreamName};

/// The parameter in which clients of other servers send tokens. URLs end up in logs and histories (RFC 9700, section 4.3.2).
const TOKEN_PARAMETER: &str = "access_token=";

/// The parameter with a ticket.
const TICKET_PARAMETER: &str = "ticket=";

/// The cookie with a token. Browsers accept a cookie with this prefix only from its own host, over TLS and for all paths (RFC
/// 6265bis, section 4.1.3.2).
const COOKIE_PREFIX: &[u8] = b"__Host-pollgate=";

/// What the client of a request may do.
#[derive(Debug, Clone)]
pub(in crate::http) struct Rights {
    grants: Arc<Grants>,
    /// What clients without credentials may do.
    anonymous: Arc<Grants>,
    /// The time of day when the request was received.
    now: SystemTime,
    /// See [`Authenticator::changes`](crate::auth::Authenticator::changes).
    changes: u64,
    /// The principal of the client's address.
    address: Principal,
    /// The request has a ticket, which was not redeemed. Nothing is allowed until it is.
    owes_ticket: bool,
}

/// What the client of an open WebSocket may do, and how it renews that.
pub(in crate::http) struct SocketRights {
    auth: Arc<Authenticator>,
    clock: Clock,
    rights: Rights,
    /// Tells the open read of renewed grants.
    renewals: watch::Sender<Arc<Grants>>,
    /// The audit log, if there is one, and where the client is.
    audit_log: Option<(AuditLog, Option<LoggedAddress>)>,
}

/// The grants of a WebSocket's client, as it renews them.
pub(in crate::http) type Renewals = watch::Receiver<Arc<Grants>>;

/// Credentials with which a poll may be held.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct HeldCredentials {
    pub(in crate::http) mark: CredentialMark,
    /// See [`Authenticator::changes`](crate::auth::Authenticator::changes).
    pub(in crate::http) changes: u64,
}

impl Gateway {
    /// Verifies the credentials of a request. `None`: the gateway checks no credentials. `is_safe`: the request changes nothing and
    /// opens no WebSocket.
    ///
    /// `Authorization` takes precedence over a ticket, a ticket over the cookie, and the cookie over a client certificate.
    pub(in crate::http) fn authenticate(
        &self,
        query: Option<&str>,
        fields: &(impl Fields + ?Sized),
        is_safe: bool,
        source: ClientSource<'_>,
    ) -> Result<Option<Rights>, Error> {
        if !self.auth.is_enabled() {
            return Ok(None);
        }
        if query.is_some_and(|query| query.contains(TOKEN_PARAMETER)) {
            return Err(Error::TokenInQuery);
        }
        let mut values = fields.values(&AUTHORIZATION);
        let (value, second) = (values.next(), values.next());
        if second.is_some() {
            return Err(Error::Unauthorized(Unauthorized::Scheme));
        }
        let (now, changes, address) = (self.clock.wall(), self.auth.changes(), source.principal());
        let owes_ticket = value.is_none() && query.and_then(ticket_of).is_some();
        let grants = match value {
            None if !owes_ticket && let Some(token) = self.cookie(fields, is_safe)? => {
                self.auth.token(token, address, now)
            }
            None if !owes_ticket && let Some(grants) = self.certificate(source, fields) => {
                self.auth.check(grants, now).map(|()| grants.clone()).map_err(|error| match error {
                    Unauthorized::Expired => Unauthorized::Certificate,
                    other => other,
                })
            }
            value => self.auth.authorization(value, address, now),
        };
        let grants = grants.map_err(Error::Unauthorized)?;
        let anonymous = self.auth.anonymous();
        Ok(Some(Rights { grants, anonymous, now, changes, address, owes_ticket }))
    }

    /// Returns the token in the cookie. A browser adds it to the requests of any page that it lets send cookies, so that requests
    /// with consequences have to come from a page of the gateway or of an allowed origin: the access policy has refused others. If
    /// pages of any origin are allowed, the cookie does not count.
    fn cookie<'a>(
        &self,
        fields: &'a (impl Fields + ?Sized),
        is_safe: bool,
    ) -> Result<Option<&'a [u8]>, Error> {
        if self.access.origins.allow_any() {
            return Ok(None);
        }
        let pairs = fields.values(&COOKIE).flat_map(|value| value.split(|byte| *byte == b';'));
        let mut tokens = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE_PREFIX));
        match (tokens.next(), tokens.next()) {
            (Some(_), Some(_)) => Err(Error::Unauthorized(Unauthorized::Invalid)),
            (Some(_), None) if !is_safe && fields.values(&ORIGIN).next().is_none() => {
                Err(Error::CookieWithoutOrigin)
            }
            (token, _) => Ok(token),
        }
    }
}

impl Gateway {
    /// Returns the rights of the client's certificate. A browser sends it with the requests of any page, of which the access policy
    /// refuses those of other origins. If pages of any origin are allowed, it does not count for pages.
    fn certificate<'a>(
        &self,
        source: ClientSource<'a>,
        fields: &(impl Fields + ?Sized),
    ) -> Option<&'a Arc<Grants>> {
        let is_of_page = fields.values(&ORIGIN).next().is_some();
        source.certificate.filter(|_| !(is_of_page && self.access.origins.allow_any()))
    }

    /// Where refusals of a client with credentials are counted.
    pub(in crate::http) fn tenant_of(&self, rights: Option<&Rights>) -> Option<TenantPlace> {
        let grants = &rights?.grants;
        grants.subject()?;
        self.metrics.tenant_place(grants.tenant().prefix())
    }

    pub(super) fn socket_rights(&self, rights: Rights, address: Option<LoggedAddress>) -> SocketRights {
        let renewals = watch::Sender::new(rights.grants.clone());
        let audit_log = self.audit_log.clone().map(|log| (log, address));
        SocketRights { auth: self.auth.clone(), clock: self.clock, rights, renewals, audit_log }
    }
}

impl SocketRights {
    pub(in crate::http) fn rights(&self) -> &Rights {
        &self.rights
    }

    /// The grants, as later tokens renew them.
    pub(in crate::http) fn renewals(&self) -> Renewals {
        self.renewals.subscribe()
    }

    /// Replaces the rights with those of a token of the same subject, if it grants to read all `streams`.
    pub(in crate::http) fn renew(&mut self, token: &str, streams: &[StreamName]) -> Result<(), Error> {
        let (now, changes) = (self.clock.wall(), self.auth.changes());
        let grants = self.auth.token(token.as_bytes(), self.rights.address, now);
        let grants = grants.map_err(Error::Unauthorized)?;
        let before = self.rights.grants.subject();
        if before.is_some() && before != grants.subject() {
            return Err(Error::Unauthorized(Unauthorized::Subject));
        }
        let renewed = Rights { grants, now, changes, owes_ticket: false, ..self.rights.clone() };
        streams.iter().try_for_each(|stream| renewed.check(Action::Read, stream))?;
        self.renewals.send_replace(renewed.grants.clone());
        self.rights = renewed;
        Ok(())
    }

    /// Writes to the audit log that a frame is refused, if it is for lack of rights.
    pub(in crate::http) fn audit_refusal(&self, stream: Option<&StreamName>, error: &Error) {
        if let Some((log, address)) = self.audit_log.as_ref().filter(|_| error.lacks_rights()) {
            let entry = AuditEntry {
                who: self.rights.grants.subject(),
                stream: stream.map(StreamName::as_str),
                address: *address,
                reason: Some(&error.to_string()),
                ..AuditEntry::new(AuditEvent::Refused)
            };
            log.write(entry, || rfc3339(self.clock.wall()));
        }
    }

    /// How long the rights last from now on; `None`: without end.
    pub(in crate::http) fn left(&self) -> Option<Duration> {
        let end = self.rights.grants.expires_at()?;
        Some(end.duration_since(self.clock.wall()).unwrap_or_default())
    }
}

/// Returns the ticket in a query.
pub(super) fn ticket_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix(TICKET_PARAMETER))
}

impl Rights {
    /// Turns the name by which the client knows a stream into that in the hub.
    pub(super) fn enter(&self, name: &mut StreamName) {
        if !self.grants.tenant().is_default() {
            *name = name.clone().of_tenant(self.grants.tenant());
        }
    }

    /// Checks that the client may do `action` to `stream`, which is the name in the hub. A client without credentials is told to bring
    /// some.
    pub(in crate::http) fn check(&self, action: Action, stream: &StreamName) -> Result<(), Error> {
        if self.owes_ticket {
            return Err(Error::Unauthorized(Unauthorized::Ticket));
        }
        authorize(&self.grants, action, stream).map_err(|forbidden| match self.grants.subject() {
            None => Error::Unauthorized(Unauthorized::Missing),
            Some(_) => Error::Forbidden(forbidden),
        })
    }

    /// Checks the same for the name by which the client knows the stream.
    pub(super) fn check_named(&self, action: Action, name: &StreamName) -> Result<(), Error> {
        let mut name = name.clone();
        self.enter(&mut name);
        self.check(action, &name)
    }

    /// Turns a filter that the client has sent into that of the streams in the hub.
    pub(super) fn enter_filter(&self, filter: &Filter) -> Filter {
        filter.of_tenant(self.grants.tenant())
    }

    /// Checks that the client may do `action` to every stream that `filter` of the hub can match.
    pub(super) fn check_filter(&self, action: Action, filter: &Filter) -> Result<(), Error> {
        if self.owes_ticket {
            return Err(Error::Unauthorized(Unauthorized::Ticket));
        }
        authorize_filter(&self.grants, action, filter).map_err(|forbidden| match self.grants.subject() {
            None => Error::Unauthorized(Unauthorized::Missing),
            Some(_) => Error::Forbidden(forbidden),
        })
    }

    /// Checks that the client has a token.
    pub(super) fn check_subject(&self) -> Result<(), Error> {
        match self.grants.subject() {
            Some(_) => Ok(()),
            None => Err(Error::Unauthorized(Unauthorized::Missing)),
        }
    }

    pub(super) fn grants(&self) -> Arc<Grants> {
        self.grants.clone()
    }

    /// Whether the client has no credentials, and may still send a token.
    pub(super) fn may_bring_token(&self) -> bool {
        self.grants.subject().is_none() && !self.owes_ticket
    }

    /// Whether the request has a ticket, which was not redeemed.
    pub(super) fn owes_ticket(&self) -> bool {
        self.owes_ticket
    }

    /// The rights that a ticket stands for.
    pub(super) fn of_ticket(self, grants: Arc<Grants>) -> Self {
        Self { grants, owes_ticket: false, ..self }
    }

    /// Whether a client without credentials could not read the stream.
    pub(super) fn is_hidden(&self, stream: &StreamName) -> bool {
        authorize(&self.anonymous, Action::Read, stream).is_err()
    }

    /// The rights themselves, for what stays open. `None`: they never end.
    pub(super) fn ending_grants(&self) -> Option<Arc<Grants>> {
        self.grants.expires_at().map(|_| self.grants.clone())
    }

    /// The credentials of a poll that may be held. `None`: they never end.
    pub(super) fn held_credentials(&self) -> Option<HeldCredentials> {
        let (key_and_id, subject_and_time) = self.grants.mark()?;
        Some(HeldCredentials { mark: CredentialMark(key_and_id, subject_and_time), changes: self.changes })
    }

    /// Identifies the credentials for what outlives the request. `None`: there are none.
    pub(super) fn credentials(&self) -> Option<Box<[u8]>> {
        self.grants.record()?.to_bytes()
    }

    /// Whom quotas apply to; the gateway, if that is the address of the client.
    pub(in crate::http) fn principal(&self) -> Principal {
        self.grants.principal().unwrap_or_default()
    }

    /// The client id as that of the subject, so that no other client can end a poll by its id.
    pub(super) fn own_client(&self, client: &ClientId) -> ClientId {
        self.grants.subject().map_or_else(|| client.clone(), |subject| client.of_subject(subject))
    }

    /// The producer as that of the subject, whose id shares no state with that of another subject.
    pub(super) fn own_producer(&self, producer: Producer) -> Producer {
        match self.grants.principal() {
            Some(principal) => producer.of(principal),
            None => producer,
        }
    }

    /// How long the grants still last; `None`: without end.
    pub(super) fn left(&self) -> Option<Duration> {
        self.grants.expires_at().map(|end| end.duration_since(self.now).unwrap_or_default())
    }
}
