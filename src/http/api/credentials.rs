//! Credentials of requests: from the `Authorization` field to the rights of the client.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::header::AUTHORIZATION;

use super::error::Error;
use super::fields::Fields;
use super::gateway::Gateway;
use crate::auth::{Action, Grants, Unauthorized, authorize};
use crate::hub::{ClientId, CredentialMark};
use crate::stream::{Principal, Producer, StreamName};

/// The parameter in which clients of other servers send tokens. URLs end up in logs and histories (RFC 9700, section 4.3.2).
const TOKEN_PARAMETER: &str = "access_token=";

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
}

/// Credentials with which a poll may be held.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct HeldCredentials {
    pub(in crate::http) mark: CredentialMark,
    /// See [`Authenticator::changes`](crate::auth::Authenticator::changes).
    pub(in crate::http) changes: u64,
}

impl Gateway {
    /// Verifies the credentials of a request. `None`: the gateway checks no credentials.
    pub(in crate::http) fn authenticate(
        &self,
        query: Option<&str>,
        fields: &(impl Fields + ?Sized),
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
        let (now, changes) = (self.clock.wall(), self.auth.changes());
        let grants = self.auth.authorization(value, now).map_err(Error::Unauthorized)?;
        Ok(Some(Rights { grants, anonymous: self.auth.anonymous(), now, changes }))
    }
}

impl Rights {
    /// Checks that the client may do `action` to `stream`. A client without credentials is told to bring some.
    pub(in crate::http) fn check(&self, action: Action, stream: &StreamName) -> Result<(), Error> {
        authorize(&self.grants, action, stream).map_err(|forbidden| match self.grants.subject() {
            None => Error::Unauthorized(Unauthorized::Missing),
            Some(_) => Error::Forbidden(forbidden),
        })
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
