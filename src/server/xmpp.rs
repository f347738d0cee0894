//! The XMPP front from the settings: the component of an XMPP server, and the service for the gateway's own clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::access_log::audit::AuditLog;
use crate::auth::Authenticator;
use crate::clock::{Clock, ReusableSleep};
use crate::config::Settings;
use crate::http::{BoshExchange, BoshService};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::{Metrics, stall_timed};
use crate::stream::{Failure, Principal};
use crate::xmpp::{BoshFront, ClientFront, Component, ComponentSettings, InvalidJid, ParkedRequest};

/// Why the XMPP front cannot be started. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum XmppSettingsError {
    /// The file with the secret cannot be read.
    #[error("--xmpp-component-secret-file: cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        error: std::io::Error,
    },
    /// The file with the secret is empty.
    #[error("--xmpp-component-secret-file: {} has no secret", .0.display())]
    Empty(PathBuf),
    /// The name is not that of a component.
    #[error("--xmpp-component-name must be a domain, such as streams.example.org, not {0:?}")]
    Name(String),
    /// The domain of clients is none.
    #[error("--xmpp-domain must be a domain, such as example.org, not {0:?}")]
    Domain(String),
}

/// Reads the settings of the component. `None`: there is none.
pub(super) fn component_settings(
    settings: &Settings,
) -> Result<Option<ComponentSettings>, XmppSettingsError> {
    let options =
        (&settings.xmpp_component, &settings.xmpp_component_name, &settings.xmpp_component_secret_file);
    // The check of the settings has found that all are given, or none.
    let (Some(address), Some(name), Some(path)) = options else { return Ok(None) };
    let unreadable = |error| XmppSettingsError::Read { path: path.clone(), error };
    let secret = std::fs::read_to_string(path).map_err(unreadable)?.trim().to_owned();
    if secret.is_empty() {
        return Err(XmppSettingsError::Empty(path.clone()));
    }
    let invalid = |InvalidJid| XmppSettingsError::Name(name.clone());
    ComponentSettings::new(address.clone(), name, secret).map(Some).map_err(invalid)
}

/// Starts the component. The task ends when the gateway drains. `None`: there is none.
pub(super) async fn start_component(
    settings: Option<ComponentSettings>,
    hub: &Arc<Hub>,
    limits: &Arc<Limits>,
    metrics: &Metrics,
    clock: Clock,
    auth: &Arc<Authenticator>,
    audit_log: Option<AuditLog>,
) -> Result<Option<JoinHandle<()>>, Failure> {
    let Some(settings) = settings else { return Ok(None) };
    let component =
        Component::load(hub.clone(), limits.clone(), metrics, clock, auth.clone(), settings).await?;
    let run = component.auditing(audit_log).run();
    Ok(Some(tokio::spawn(stall_timed(|| "the XMPP component", Box::pin(run)))))
}

/// The front for clients that connect to the gateway itself. `None`: it accepts none.
pub(super) fn client_front(
    domain: Option<String>,
    hub: &Arc<Hub>,
    limits: &Arc<Limits>,
    metrics: &Metrics,
    clock: Clock,
    auth: &Arc<Authenticator>,
    audit_log: Option<AuditLog>,
) -> Result<Option<Arc<ClientFront>>, XmppSettingsError> {
    let Some(domain) = domain else { return Ok(None) };
    let front = ClientFront::new(hub.clone(), limits.clone(), metrics, clock, auth.clone(), &domain);
    front
        .map(|front| Some(Arc::new(front.auditing(audit_log))))
        .map_err(|InvalidJid| XmppSettingsError::Domain(domain))
}

/// The XMPP front behind the path of BOSH, which is one of the HTTP front.
pub(super) struct BoshDoor(pub(super) Arc<BoshFront>);

impl BoshService for BoshDoor {
    fn begin(&self, body: &[u8], address: Principal) -> Box<dyn BoshExchange> {
        Box::new(self.0.begin(body, address))
    }
}

impl BoshExchange for ParkedRequest {
    fn poll_response(&mut self, timer: &mut ReusableSleep, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.poll_response(timer, cx)
    }

    fn end(&mut self) {
        self.end();
    }

    fn has_ended(&self) -> bool {
        self.has_ended()
    }
}
