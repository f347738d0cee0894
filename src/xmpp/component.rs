//! [`Component`]: the gateway as an external component of an XMPP server (XEP-0114), which has the accounts, the encryption and the
//! federation. The gateway connects to it, and connects again whenever the link is lost.

mod handshake;
mod link;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::PubsubService;
use crate::access_log::audit::AuditLog;
use crate::auth::Authenticator;
use crate::clock::{Backoff, Clock};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::stream::Failure;
pub use handshake::ComponentSettings;
use link::{LinkEnd, serve};

/// Delays between two attempts to connect.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(30) };

/// The link to a server, and the service that it leads to.
pub struct Component {
    service: PubsubService,
    settings: ComponentSettings,
    draining: watch::Receiver<bool>,
}

impl Component {
    /// Loads the subscriptions of the store. Nothing is connected until [`run`](Self::run).
    pub async fn load(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        metrics: &Metrics,
        clock: Clock,
        auth: Arc<Authenticator>,
        settings: ComponentSettings,
    ) -> Result<Self, Failure> {
        let draining = hub.draining();
        let service = PubsubService::load(hub, limits, metrics, clock, auth, settings.name.clone()).await?;
        Ok(Self { service, settings, draining })
    }

    /// Writes what clients create and delete, and what is refused, to an audit log. `None`: to none.
    pub fn auditing(self, audit_log: Option<AuditLog>) -> Self {
        Self { service: self.service.auditing(audit_log), ..self }
    }

    /// Serves the clients of the server over one link after the other. Returns once the gateway drains.
    pub async fn run(mut self) {
        let mut failures = 0;
        while !*self.draining.borrow() {
            let address = &self.settings.address;
            let end = match handshake::connect(&self.settings, &self.service.limits).await {
                Ok(stream) => {
                    tracing::info!(address, component = %self.settings.name, "linked to the XMPP server");
                    failures = 0;
                    self.service.metrics.linked.set(1);
                    let end = serve(&self.service, stream, &mut self.draining).await;
                    self.service.metrics.linked.set(0);
                    end
                }
                Err(error) => LinkEnd::NotOpened(error),
            };
            loop {
                match self.service.subscriptions.save().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(%error, "cannot store the offsets of XMPP subscriptions; messages may be sent again");
                        break;
                    }
                }
            }
            if matches!(end, LinkEnd::Draining) {
                return;
            }
            failures += 1;
            self.service.metrics.links_lost.inc();
            let delay = BACKOFF.half_jitter(failures, fastrand::f64());
            tracing::warn!(address, reason = %end, ?delay, "no link to the XMPP server; will connect again");
            tokio::select! {
                () = sleep(delay) => {}
                _ = self.draining.wait_for(|draining| *draining) => {}
            }
        }
    }
}
