//! [`Component`]: the gateway as an external component of an XMPP server (XEP-0114), which has the accounts, the encryption and the
//! federation. The gateway connects to it, and connects again whenever the link is lost. Of several gateways that use one store, one at a time
//! is connected (`turn`).

mod handshake;
mod link;
mod requests;
mod turn;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{PubsubService, drain_begins};
use crate::access_log::audit::AuditLog;
use crate::auth::Authenticator;
use crate::clock::{Backoff, Clock};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::stream::Failure;
pub use handshake::ComponentSettings;
use link::{LinkEnd, serve};
use turn::ComponentTurn;

/// Delays between two attempts to connect.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(30) };

/// The link to a server, and the service that it leads to.
pub struct Component {
    service: PubsubService,
    settings: ComponentSettings,
    draining: watch::Receiver<bool>,
    /// `None`: no other gateway uses the store.
    turn: Option<ComponentTurn>,
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
        let turn = ComponentTurn::new(&hub, &settings.name);
        let service = PubsubService::load(hub, limits, metrics, clock, auth, settings.name.clone()).await?;
        if let Some(turn) = &turn {
            service.subscriptions.store_in(turn.session().clone());
        }
        Ok(Self { service, settings, draining, turn })
    }

    /// Writes what clients create and delete, and what is refused, to an audit log. `None`: to none.
    pub fn auditing(self, audit_log: Option<AuditLog>) -> Self {
        Self { service: self.service.auditing(audit_log), ..self }
    }

    /// Serves the clients of the server over one link after the other. Returns once the gateway drains.
    pub async fn run(mut self) {
        let mut failures = 0;
        while !*self.draining.borrow() {
            if let Some(turn) = &mut self.turn {
                tokio::select! {
                    stored = turn.begin() => self.service.subscriptions.replace(&stored, &self.service.auth),
                    () = drain_begins(&mut self.draining) => return,
                }
            }
            let end = self.serve_link(&mut failures).await;
            if let Some(turn) = &self.turn {
                turn.end().await;
                self.service.subscriptions.replace(&[], &self.service.auth);
            }
            if matches!(end, LinkEnd::Draining) {
                return;
            }
            failures += 1;
            self.service.metrics.links_lost.inc();
            let (delay, address) = (BACKOFF.half_jitter(failures, fastrand::f64()), &self.settings.address);
            tracing::warn!(address, reason = %end, ?delay, "no link to the XMPP server; will connect again");
            tokio::select! {
                () = sleep(delay) => {}
                () = drain_begins(&mut self.draining) => {}
            }
        }
    }

    /// Connects, serves the link to its end, and stores the offsets.
    async fn serve_link(&mut self, failures: &mut u32) -> LinkEnd {
        let Self { service, settings, draining, turn } = self;
        let serve_link = async {
            let stream = match handshake::connect(settings, &service.limits).await {
                Ok(stream) => stream,
                Err(error) => return LinkEnd::NotOpened(error),
            };
            tracing::info!(address = settings.address, component = %settings.name, "linked to the XMPP server");
            *failures = 0;
            service.metrics.linked.set(1);
            serve(service, stream, draining).await
        };
        let is_lost = async {
            match turn {
                Some(turn) => turn.is_lost().await,
                None => pending().await,
            }
        };
        let end = tokio::select! {
            end = serve_link => end,
            () = is_lost => LinkEnd::Superseded,
        };
        service.metrics.linked.set(0);
        loop {
            match service.subscriptions.save().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "cannot store the offsets of XMPP subscriptions; messages may be sent again");
                    break;
                }
            }
        }
        end
    }
}
