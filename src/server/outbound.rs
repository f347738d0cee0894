//! The requests that the server sends itself: the client for them, the keys of webhooks, and the tasks.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::traces::{self, TraceError};
use crate::auth::AuthError;
use crate::auth::issue::generate_key;
use crate::clock::Clock;
use crate::config::{Settings, StorePlace};
use crate::http::{OriginPolicy, SubscriptionFront};
use crate::http_client::{AddressPolicy, HttpClient, InvalidAllowedHost, Trust, TrustError};
use crate::hub::Hub;
use crate::hub::subscriptions::{InvalidWebhookKey, SubscriptionTable, WebhookKeys};
use crate::limits::Limits;
use crate::metrics::{Metrics, stall_timed};
use crate::outbound::origins::OriginPoller;
use crate::outbound::webhooks::WebhookSender;
use crate::stream::Failure;
use crate::traces::Traces;

/// The file in the directory of a store with the key of webhooks.
const KEY_FILE: &str = "webhook-key.json";

/// Connections to other servers that are open at a time.
const CONNECTIONS_MAX: usize = 256;

/// Why requests to other servers cannot be sent. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OutboundSettingsError {
    /// An allowed host is malformed.
    #[error("--outbound-allow: {0}")]
    Allowed(#[from] InvalidAllowedHost),
    /// Certificates cannot be trusted.
    #[error("--outbound-ca: {0}")]
    Trust(#[from] TrustError),
    /// A key of webhooks cannot be read or made.
    #[error("--webhook-key: {0}")]
    KeyFile(#[from] AuthError),
    /// A key of webhooks cannot be used.
    #[error("--webhook-key: {0}")]
    Key(#[from] InvalidWebhookKey),
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] TraceError),
    /// The public URL is malformed.
    #[error("--public-url must begin with http:// or https://, and have no query")]
    PublicUrl,
}

/// What requests to other servers need.
pub(super) struct Outbound {
    policy: AddressPolicy,
    client: HttpClient,
    trust: Trust,
    /// `None`: those that the gateways of the engine share.
    keys: Option<WebhookKeys>,
    public_url: String,
    /// Streams may be filled from origins.
    polls_origins: bool,
    /// `None`: messages are not traced.
    traces: Option<Arc<Traces>>,
}

/// The tasks that send requests, and what fronts need to know of them.
pub(super) struct OutboundTasks {
    pub(super) subscriptions: SubscriptionFront,
    pub(super) origins: OriginPolicy,
    pub(super) tasks: Vec<JoinHandle<()>>,
}

impl Outbound {
    /// Reads the settings. The directory of the store must exist.
    ///
    /// A simulated gateway sends no requests to others, and does not read the certificates of the system each time that it starts.
    pub(super) fn read(
        settings: &Settings,
        address: SocketAddr,
        is_simulated: bool,
    ) -> Result<Self, OutboundSettingsError> {
        let policy = AddressPolicy::new(&settings.outbound_allow)?;
        // Who can use the gateway can reach this machine anyway.
        let is_local =
            address.ip().is_loopback() && settings.auth.is_none() && settings.behind_proxy.is_empty();
        let policy = if is_local { policy.allowing_loopback() } else { policy };
        let client = HttpClient::new(policy.clone(), CONNECTIONS_MAX);
        let trust = if is_simulated { Trust::nothing()? } else { trust(settings)? };
        let trace = |url: &String| traces::start(url, settings.otlp_ratio, client.clone(), &trust, &policy);
        Ok(Self {
            traces: settings.otlp.as_ref().map(trace).transpose()?,
            client,
            policy,
            trust,
            keys: keys(settings)?,
            public_url: public_url(settings, address)?,
            // Without tokens, anybody could make the gateway send requests.
            polls_origins: settings.poll_origins || settings.auth.is_some(),
        })
    }

    /// The client of all requests that the gateway sends.
    pub(super) fn client(&self) -> HttpClient {
        self.client.clone()
    }

    /// The traces of messages. `None`: they are not traced.
    pub(super) fn traces(&self) -> Option<Arc<Traces>> {
        self.traces.clone()
    }

    /// Loads the subscriptions and the origins of streams, and starts to send their requests.
    pub(super) async fn start(
        self,
        hub: &Arc<Hub>,
        limits: &Arc<Limits>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<OutboundTasks, Failure> {
        hub.load_origins().await?;
        let keys = match self.keys {
            Some(keys) => keys,
            None => WebhookKeys::shared(hub).await?,
        };
        let (subscriptions, due) = SubscriptionTable::open(hub, keys, &self.public_url).await?;
        let origins = if self.polls_origins {
            OriginPolicy::allowing(self.policy.clone())
        } else {
            OriginPolicy::default()
        };
        let (client, trust, follower) = (self.client.clone(), self.trust.clone(), hub.clone());
        let limits = limits.clone();
        let poller = OriginPoller::new(hub.clone(), client, trust, limits, clock, metrics.origins().clone())
            .allowed(self.polls_origins);
        let metrics = metrics.outbound().clone();
        let sender = WebhookSender::new(self.client, self.trust, subscriptions.clone(), clock, metrics);
        let tasks = vec![
            tokio::spawn(sender.run(due)),
            tokio::spawn(subscriptions.clone().follow_claims()),
            tokio::spawn(async move { follower.follow_origin_claims().await }),
            tokio::spawn(stall_timed(|| "polling origins", Box::pin(poller.run()))),
        ];
        Ok(OutboundTasks {
            subscriptions: SubscriptionFront { subscriptions, policy: self.policy },
            origins,
            tasks,
        })
    }
}

/// The certificates that are trusted. Without roots of the system, only those of the operator are.
fn trust(settings: &Settings) -> Result<Trust, TrustError> {
    let trusted = Trust::system(settings.outbound_ca.as_deref());
    match trusted {
        Err(error) if settings.outbound_ca.is_none() => {
            tracing::info!(%error, "requests to https:// URLs will fail, because the system trusts no authorities");
            Trust::nothing()
        }
        trusted => trusted,
    }
}

fn keys(settings: &Settings) -> Result<Option<WebhookKeys>, OutboundSettingsError> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|error| AuthError::Read { path: path.to_owned(), error });
    let files = match &settings.store {
        _ if !settings.webhook_key.is_empty() => settings.webhook_key.clone(),
        StorePlace::Memory => return Ok(Some(WebhookKeys::random()?)),
        StorePlace::Engine(_) => return Ok(None),
        StorePlace::Directory(directory) => {
            let file = directory.join(KEY_FILE);
            if !file.exists() {
                make_key(directory, &file)?;
            }
            vec![file]
        }
    };
    let texts: Vec<_> = files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
    Ok(Some(WebhookKeys::parse(texts.iter().map(Vec::as_slice))?))
}

/// Makes the key of webhooks. A power cut leaves either no key or a whole one.
fn make_key(directory: &Path, file: &Path) -> Result<(), AuthError> {
    let unfinished = file.with_extension("new");
    let _from_before = std::fs::remove_file(&unfinished);
    generate_key(&unfinished)?;
    let renamed = std::fs::rename(&unfinished, file);
    let synced = renamed.and_then(|()| std::fs::File::open(directory)?.sync_all());
    synced.map_err(|error| AuthError::Read { path: file.to_owned(), error })
}

/// The URL under which workers reach the gateway.
fn public_url(settings: &Settings, address: SocketAddr) -> Result<String, OutboundSettingsError> {
    match &settings.public_url {
        Some(url)
            if (url.starts_with("http://") || url.starts_with("https://")) && !url.contains(['?', '#']) =>
        {
            Ok(url.clone())
        }
        Some(_) => Err(OutboundSettingsError::PublicUrl),
        None => {
            let scheme = if settings.has_tls() { "https" } else { "http" };
            Ok(format!("{scheme}://{address}"))
        }
    }
}
