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
//! producer <- publishing -> connection -> endpoint    the user's side; requests; address, TLS, header fields
//! device, management -> call -> connection            requests that are repeated until they are answered
//! ```

mod attempt;
mod call;
mod connection;
mod connector;
mod credentials;
mod device;
mod endpoint;
mod envelope;
mod error;
mod event;
mod fallback;
mod forms;
mod heartbeat;
mod hold_time;
mod item;
mod management;
mod memory;
#[cfg(not(feature = "tls"))]
mod no_tls;
mod offset;
mod origin;
mod policy;
mod producer;
mod publishing;
mod reader;
mod refusal;
mod request;
mod resume_token;
mod room;
mod settings;
mod start;
mod subscription;
#[cfg(feature = "tls")]
mod tls;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

pub use attempt::Form;
pub use call::RequestError;
pub use credentials::{InvalidToken, Token};
pub use device::Device;
pub use error::{BuildError, CertificateError};
pub use event::{Event, Reason};
pub use item::{Data, Item, Message};
pub use management::{NamedStream, NamesPage, StreamInfo};
pub use memory::Memory;
pub use offset::{InvalidOffset, Offset};
pub use producer::Producer;
pub use publishing::{ProducerSettings, PublishError};
pub use refusal::Refusal;
pub use resume_token::ResumeToken;
pub use settings::Settings;
pub use start::Start;
pub use subscription::Subscription;

use connector::Connector;
use credentials::Credentials;
use endpoint::Endpoint;
use event::OnEvent;
#[cfg(not(feature = "tls"))]
use no_tls as tls;
use origin::Origin;
use reader::{Output, Reader};
use request::Selection;
use room::Room;
use settings::Shared;
use tls::Tls;

/// A gateway, and what was learned about the networks to it. Cheap to clone: clones share everything. It has no
/// connections of its own; each [`Subscription`] and each [`Producer`] has one.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

/// Settings of a [`Client`] before it is built, by [`Client::builder`].
#[derive(Debug)]
pub struct Builder {
    origin: Result<Origin, BuildError>,
    credentials: Credentials,
    /// Root certificates besides those of the operating system, in PEM.
    roots: Vec<u8>,
    /// First error of a setting, which [`Builder::build`] returns.
    error: Option<BuildError>,
    settings: Settings,
    network: Arc<str>,
    memory: Memory,
    on_event: OnEvent,
    connector: Option<Connector>,
}

impl Client {
    /// Creates a client with default settings. The URL is that of the gateway, such as `https://gateway.example` or
    /// `http://127.0.0.1:4437`; a path in it is put before the paths of requests. It does not connect yet.
    ///
    /// # Errors
    /// The URL is not one of a gateway, or TLS cannot be used. See [`Builder::build`].
    pub fn new(url: &str) -> Result<Self, BuildError> {
        Self::builder(url).build()
    }

    /// Begins to configure a client for the gateway at this URL.
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
            connector: None,
        }
    }

    /// Reads 1 to 1000 streams. A task is spawned that connects at once and ends when the subscription is dropped.
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime.
    pub fn subscribe<S: Into<String>>(
        &self,
        streams: impl IntoIterator<Item = S>,
        start: Start,
    ) -> Subscription {
        let mut seen = HashSet::new();
        let streams = streams.into_iter().map(S::into).filter(|stream| seen.insert(stream.clone())).collect();
        let (token, times) = (start.token.clone(), self.0.settings.times);
        let selection = Selection { streams, token, unknown: start.unknown, times, device: start.device };
        // One envelope waits while the one before is dealt with.
        let (deliveries, incoming) = mpsc::channel(1);
        let (form, form_in_use) = watch::channel(None);
        let reader = Reader::new(self.0.clone(), selection, Output { deliveries, form });
        Subscription::new(incoming, form_in_use, start.token, tokio::spawn(reader.run()))
    }

    /// Creates a producer, which publishes to one stream. The stream is created with this content type if it does not
    /// exist. A task is spawned that ends when the last clone of the producer is dropped.
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime.
    pub fn producer(&self, stream: &str, content_type: &str) -> Producer {
        let content_type = content_type.to_owned();
        self.producer_with(stream, ProducerSettings { content_type, create: true, id: None, epoch: 0 })
    }

    /// Creates a producer with an id and an epoch of the caller's, or for a stream that has to exist.
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime.
    pub fn producer_with(&self, stream: &str, settings: ProducerSettings) -> Producer {
        Producer::start(self.0.clone(), stream, settings)
    }

    /// Registers a device, or replaces its registration: do it at each start of the program. The gateway wakes the device by
    /// push or SMS when something lies behind its offset and it is not connected. The request is retried until the gateway has
    /// answered it.
    ///
    /// ```no_run
    /// use pollgate_client::{Client, Device, Start};
    ///
    /// # async fn example(token_of_fcm: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::new("http://127.0.0.1:4437")?;
    /// client.register_device(Device::new("phone-17").stream("news").channel("fcm", token_of_fcm)).await?;
    /// let mut subscription = client.subscribe(["news"], Start::now().as_device("phone-17"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The gateway refuses the registration for good, or its certificate is not trusted.
    pub async fn register_device(&self, device: Device) -> Result<(), RequestError> {
        device::register(&self.0, &device).await
    }

    /// Forgets a device, if the gateway knows it.
    ///
    /// # Errors
    /// See [`register_device`](Self::register_device).
    pub async fn unregister_device(&self, id: &str) -> Result<(), RequestError> {
        device::unregister(&self.0, id).await
    }

    /// Describes a stream: its content type, its first and last offset, and its retention. Returns `None` if the stream does not exist. Retries
    /// the request until the gateway answers.
    ///
    /// # Errors
    /// The gateway refuses the request for good, or its certificate is not trusted.
    pub async fn stream_info(&self, stream: &str) -> Result<Option<StreamInfo>, RequestError> {
        management::info(&self.0, stream).await
    }

    /// Deletes a stream with its messages, and returns whether it existed. The request is retried until the gateway has answered it, so `false` may mean that
    /// the response to an earlier attempt was lost.
    ///
    /// # Errors
    /// See [`stream_info`](Self::stream_info).
    pub async fn delete_stream(&self, stream: &str) -> Result<bool, RequestError> {
        management::delete(&self.0, stream).await
    }

    /// Lists streams that the client may read and whose names begin with `prefix`, a page at a time. `after` is [`NamesPage::next`] of the page before.
    ///
    /// # Errors
    /// See [`stream_info`](Self::stream_info).
    pub async fn names(&self, prefix: &str, after: Option<&str>) -> Result<NamesPage, RequestError> {
        management::names(&self.0, prefix, after).await
    }

    /// Tells the client that the device has changed its network. All subscriptions reconnect, in the
    /// delivery form that worked best on the new network. With the label of the current network, they try all forms again.
    pub fn network_changed(&self, label: &str) {
        self.0.network.send_replace(label.into());
    }

    /// What was learned about networks so far. Keep it and give it to [`Builder::memory`] at the next start.
    pub fn memory(&self) -> Memory {
        self.0.memory.lock().clone()
    }
}

impl Builder {
    /// Sets forms, timeouts and heartbeats.
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Trusts the root certificates in this PEM text, besides those of the operating system. It is needed for a
    /// certificate by an authority that the operating system does not know, such as that of a company.
    #[cfg(feature = "tls")]
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots.extend_from_slice(pem.as_ref());
        self.roots.push(b'\n');
        self
    }

    /// Adds a header field to each request, including WebSocket handshakes. `Debug` does not show its value. A field that
    /// the client sets itself, such as `Host`, is an error, which [`build`](Self::build) returns.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Err(error) = self.credentials.add(name, value) {
            self.error.get_or_insert(error);
        }
        self
    }

    /// Sends this token with each request, as `Authorization: Bearer`. Keep a clone to
    /// [replace](Token::replace) it later.
    pub fn token(mut self, token: Token) -> Self {
        self.credentials.set_token(token);
        self
    }

    /// Names the network that the device is on, by any label that it will have again, such as the SSID.
    pub fn network(self, label: &str) -> Self {
        Self { network: label.into(), ..self }
    }

    /// Gives the client what was learned in earlier runs, by [`Client::memory`].
    pub fn memory(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// Calls a function for each event. It runs in the tasks of the subscriptions, so it must not block.
    pub fn on_event(self, on_event: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { on_event: OnEvent(Arc::new(on_event)), ..self }
    }

    /// Opens each connection by this function, which gets the host and the port of the URL: for a proxy that the client does not
    /// speak to, a certain interface, or a simulated network. TLS and HTTP are spoken on whatever it returns.
    ///
    /// ```
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let through_the_tunnel = |_: &str, port| tokio::net::TcpStream::connect(("127.0.0.1", 10_000 + port));
    /// let client = pollgate_client::Client::builder("https://gateway.example").connector(through_the_tunnel).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connector<F>(self, connect: impl Fn(&str, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = std::io::Result<TcpStream>> + Send + 'static,
    {
        Self { connector: Some(Connector::new(connect)), ..self }
    }

    /// Builds the client. For `https`, this loads the root certificates of the operating system from its disk.
    ///
    /// # Errors
    /// The URL is not one of a gateway, a setting is malformed, or TLS cannot be used.
    pub fn build(self) -> Result<Client, BuildError> {
        let Self { origin, credentials, roots, error, settings, network, memory, on_event, connector } = self;
        let origin = origin?;
        if let Some(error) = error {
            return Err(error);
        }
        let tls = origin.is_secure.then(|| Tls::new(&origin.host, &roots)).transpose()?;
        let shared = Shared {
            endpoint: Endpoint { origin, tls, credentials, connector },
            room: Arc::new(Room::new(settings.publish_messages_max, settings.publish_bytes_max)),
            settings,
            network: watch::Sender::new(network),
            memory: Mutex::new(memory),
            on_event,
        };
        Ok(Client(Arc::new(shared)))
    }
}

/// The program in the README is compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
