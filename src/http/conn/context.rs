//! The context of a connection: the service that answers its requests, the limits, and the phase of the server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::io::GuardedStream;
use super::response_bytes::{Outgoing, ResponseBytes};
use super::state::{ConnectionState, IdleConnections, Phase};
use super::transport::Transport;
use crate::http::api::admin::Admin;
use crate::http::api::gateway::Gateway;
use crate::limits::Limits;

/// Answers the requests of an HTTP listener.
pub enum Service {
    /// The front for publishers and readers.
    Gateway(Arc<Gateway>),
    /// The front for operators.
    Admin(Box<Admin>),
}

impl Service {
    /// Whether a log shows the addresses of clients.
    pub fn logs_addresses(&self) -> bool {
        match self {
            Self::Gateway(gateway) => gateway.access_log.is_some() || gateway.audit_log.is_some(),
            Self::Admin(admin) => admin.is_audited(),
        }
    }
}

/// The context of one connection.
pub struct ConnectionContext {
    /// Answers the requests.
    pub service: Arc<Service>,
    /// Timeouts and buffer sizes.
    pub limits: Arc<Limits>,
    /// State of the connection, which counts as open until the last holder drops it.
    pub state: Arc<ConnectionState>,
    /// Phase of the server. What it was when the connection began is marked as seen, unless the server was closing.
    pub phase: watch::Receiver<Phase>,
    /// The connections of the listener that are idle.
    pub idle: Arc<IdleConnections>,
}

impl ConnectionContext {
    /// Takes over the rights of a client certificate.
    pub(super) fn identify(&self, certificate: &[u8]) {
        if let Service::Gateway(gateway) = &*self.service
            && let Some(grants) = gateway.auth.certificate(certificate)
        {
            self.state.identify(grants);
        }
    }

    /// Whether the server's phase has changed. Takes no lock until it changes.
    pub(super) fn may_close(&self) -> bool {
        !matches!(self.phase.has_changed(), Ok(false))
    }

    /// Completes once the server is at `phase` or later.
    pub(super) fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut now = self.phase.clone();
        async move {
            // An error means that the server is gone, which is later than any phase.
            drop(now.wait_for(|now| *now >= phase).await);
        }
    }

    /// The phase of the server. It is the last one once the server is gone.
    pub(super) fn current_phase(&self) -> Phase {
        if self.phase.has_changed().is_err() { Phase::Stopped } else { *self.phase.borrow() }
    }

    /// The gateway that parses requests on the fast path. `None`: hyper parses every request.
    pub(super) fn fast_path(&self) -> Option<&Gateway> {
        match &*self.service {
            Service::Gateway(gateway) if !self.state.is_refused() => Some(gateway),
            Service::Gateway(_) | Service::Admin(_) => None,
        }
    }

    /// Prepares a response for writing. It closes the connection if the server is closing.
    pub(super) fn outgoing(&self, mut response: ResponseBytes) -> Outgoing {
        if self.may_close() && self.current_phase() >= Phase::Closing {
            response.close();
        }
        response.into_outgoing()
    }

    /// Wraps a socket with the timeouts of this connection. `read_ahead` was already read from the socket.
    pub(super) fn guarded_stream(&self, stream: Transport, read_ahead: Bytes) -> GuardedStream {
        GuardedStream::new(stream, read_ahead, self.state.clone(), self.limits.clone(), self.phase.clone())
    }
}

/// A rare step of a connection. It is boxed, so that a connection takes memory only for its current step.
pub(super) type BoxedStep<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;
