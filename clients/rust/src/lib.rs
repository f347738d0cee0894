//! Client of the pollgate message gateway: reads and publishes over whatever the network
//! lets through.
//!
//! A [`Subscription`] reads by WebSocket, and where that does not get through by server-sent events, NDJSON, long poll or
//! short poll. It finds out which of them work, resumes in another one when one fails, and returns each message once and
//! in order. A [`Producer`] retries each message until the gateway has acknowledged it, and the gateway drops repetitions.
//!
//! ```no_run
//! use pollgate_client::{Client, Item, Start};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:4437")?;
//! client.producer("orders", "application/json").publish(r#"{"n":1}"#).await?;
//! let mut subscription = client.subscribe(["orders"], Start::earliest());
//! while let Some(item) = subscription.next().await {
//!     if let Item::Message(message) = item {
//!         println!("{}: {}", message.stream, String::from_utf8_lossy(message.data.bytes()));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Resuming
//!
//! Keep [`Subscription::resume_token`] as text, and give it to [`Start::after`] to go on behind the last item that was
//! dealt with, in any form, after a restart of the program too.
//!
//! # TLS and credentials
//!
//! `https` URLs need the cargo feature `tls`, which is on by default. A [`Token`] or other
//! [header fields](Builder::header) are sent with each request:
//!
//! ```
//! # #[cfg(feature = "tls")]
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pollgate_client::{Client, Token};
//!
//! let token = Token::new("2YotnFZFEjr1zCsicMWpAA")?;
//! let client = Client::builder("https://gateway.example").token(token.clone()).build()?;
//! // Later, before the token expires:
//! token.replace("JzAbHxmD4nZSbbkkYmcu6A")?;
//! # Ok(())
//! # }
//! ```
//!
//! # What ends a subscription
//!
//! Refused connections, timeouts, restarts of the gateway and captive portals are retried with backoff, and told as an
//! [`Event`]. A subscription ends only when no retry can help: [`Item::Refused`] if the gateway refuses the request or the
//! credentials, [`Item::Untrusted`] if its certificate is not trusted.
//!
//! # Layout
//!
//! ```text
//! subscription <- reader -> policy                    the user's side; the task; its decisions, without IO
//!                 reader -> forms -> connection       one file per form; HTTP/1.1
//! producer <- publishing -> connection -> endpoint    the user's side; the task; address, TLS, header fields
//! ```

mod attempt;
mod connection;
mod credentials;
mod endpoint;
mod envelope;
mod error;
mod event;
mod fallback;
mod forms;
mod heartbeat;
mod hold_time;
mod item;
mod memory;
#[cfg(not(feature = "tls"))]
mod no_tls;
mod origin;
mod policy;
mod producer;
mod publishing;
mod reader;
mod refusal;
mod request;
mod resume_token;
mod settings;
mod subscription;
#[cfg(feature = "tls")]
mod tls;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

pub use attempt::Form;
pub use credentials::{InvalidToken, Token};
pub use error::{BuildError, CertificateError};
pub use event::{Event, Reason};
pub use item::{Data, Item, Message};
pub use memory::Memory;
pub use producer::Producer;
pub use publishing::{ProducerSettings, PublishError};
pub use refusal::Refusal;
pub use resume_token::ResumeToken;
pub use settings::Settings;
pub use subscription::{Start, Subscription};

use credentials::Credentials;
use endpoint::Endpoint;
use event::OnEvent;
#[cfg(not(feature = "tls"))]
use no_tls as tls;
use origin::Origin;
use reader::{Outlet, Reader};
use request::Wanted;
use settings::Shared;
use tls::Tls;

/// A gateway, and what is known of the way to it. Cheap to clone; has no connection of its own.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

/// A client in the making.
#[derive(Debug)]
pub struct Builder {
    origin: Result<Origin, BuildError>,
    credentials: Credentials,
    /// Further root certificates, in PEM.
    roots: Vec<u8>,
    /// The first error of a setting, for [`Builder::build`].
    error: Option<BuildError>,
    settings: Settings,
    network: Arc<str>,
    memory: Memory,
    on_event: OnEvent,
}

impl Client {
    /// A client with default settings, for a gateway at a URL such as `http://127.0.0.1:4437`, perhaps with a path.
    ///
    /// # Errors
    /// The URL has no host, or needs TLS.
    pub fn new(url: &str) -> Result<Self, BuildError> {
        Self::builder(url).build()
    }

    /// The same with settings.
    pub fn builder(url: &str) -> Builder {
        Builder {
            origin: Origin::parse(url),
            credentials: Credentials::default(),
            roots: Vec::new(),
            error: None,
            settings: Settings::default(),
            network: Arc::default(),
            memory: Memory::default(),
            on_event: OnEvent(Arc::new(|_| {})),
        }
    }

    /// Reads streams, 1 to 1000 of them. It begins at once, in a task of its own that ends when the subscription is
    /// dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn subscribe<S: Into<String>>(
        &self,
        streams: impl IntoIterator<Item = S>,
        start: Start,
    ) -> Subscription {
        let mut seen = HashSet::new();
        let streams = streams.into_iter().map(S::into).filter(|stream| seen.insert(stream.clone())).collect();
        let wanted = Wanted { streams, token: start.token.clone(), earliest: start.earliest };
        // One envelope waits while the one before is dealt with.
        let (deliveries, incoming) = mpsc::channel(1);
        let (form, form_in_use) = watch::channel(None);
        let reader = Reader::new(self.0.clone(), wanted, Outlet { deliveries, form });
        Subscription::new(incoming, form_in_use, start.token, tokio::spawn(reader.run()))
    }

    /// Publishes into a stream, which is created with this content type if it does not exist.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn producer(&self, stream: &str, content_type: &str) -> Producer {
        let content_type = content_type.to_owned();
        self.producer_with(stream, ProducerSettings { content_type, create: true, id: None, epoch: 0 })
    }

    /// The same with a name and an epoch of the caller's, or only into a stream that exists.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn producer_with(&self, stream: &str, settings: ProducerSettings) -> Producer {
        Producer::start(self.0.clone(), stream, settings)
    }

    /// Says that the device is on another network now: all subscriptions leave their connections and begin with what
    /// is known of it. With the label that it has, everything is tried again.
    pub fn network_changed(&self, label: &str) {
        self.0.network.send_replace(label.into());
    }

    /// What was learned so far, for the next start of the program.
    pub fn memory(&self) -> Memory {
        self.0.memory.lock().clone()
    }
}

impl Builder {
    /// Times and forms.
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Trusts these root certificates besides those of the operating system: PEM, one or more. An `https` gateway with a
    /// certificate of a company's own authority needs it.
    #[cfg(feature = "tls")]
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots.extend_from_slice(pem.as_ref());
        self.roots.push(b'\n');
        self
    }

    /// Adds a header field to each request, WebSocket handshakes included. `Debug` does not show its value. Fields that
    /// the client sets itself, such as `Host`, are an error of [`build`](Self::build).
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Err(error) = self.credentials.add(name, value) {
            self.error.get_or_insert(error);
        }
        self
    }

    /// Sends `Authorization: Bearer` with this token in each request. Keep a clone of it to replace it later.
    pub fn token(mut self, token: Token) -> Self {
        self.credentials.set_token(token);
        self
    }

    /// The network that the device is on, by any name that it will have again.
    pub fn network(self, label: &str) -> Self {
        Self { network: label.into(), ..self }
    }

    /// What was learned earlier.
    pub fn memory(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// Who is told of events, within the tasks of the subscriptions: it must not block.
    pub fn on_event(self, on_event: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { on_event: OnEvent(Arc::new(on_event)), ..self }
    }

    /// The client.
    ///
    /// # Errors
    /// The URL has no host, or needs TLS.
    pub fn build(self) -> Result<Client, BuildError> {
        let Self { origin, credentials, roots, error, settings, network, memory, on_event } = self;
        let origin = origin?;
        if let Some(error) = error {
            return Err(error);
        }
        let tls = origin.is_secure.then(|| Tls::new(&origin.host, &roots)).transpose()?;
        let shared = Shared {
            endpoint: Endpoint { origin, tls, credentials },
            settings,
            network: watch::Sender::new(network),
            memory: Mutex::new(memory),
            on_event,
        };
        Ok(Client(Arc::new(shared)))
    }
}
