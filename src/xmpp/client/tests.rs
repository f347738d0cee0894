//! Streams of clients end in time, and are resumed in time. The clock is paused, so what is measured is what timers wait for.

pub(in crate::xmpp) mod push;
mod resumption;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::*;
use crate::auth::AuthSettings;
use crate::auth::issue::{Patterns, generate_key, sign_at};
use crate::clock::in_time;
use crate::store::Memory;
use crate::stream::{Append, ContentType, Store, StreamName};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
const OPEN: &str = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='b.example' version='1.0'/>";

/// A front that checks tokens.
pub(in crate::xmpp) struct World {
    pub(in crate::xmpp) folder: tempfile::TempDir,
    pub(in crate::xmpp) front: Arc<ClientFront>,
}

impl World {
    fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(in crate::xmpp) fn with(limits: Limits) -> Self {
        Self::with_store(limits, Arc::new(Memory::default()))
    }

    pub(in crate::xmpp) fn with_store(limits: Limits, store: Arc<dyn Store>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        std::fs::write(&path, "key_file = 'key'\n").unwrap();
        generate_key(&folder.path().join("key")).unwrap();
        Self::of(folder, limits, store)
    }

    fn of(folder: tempfile::TempDir, limits: Limits, store: Arc<dyn Store>) -> Self {
        let path = folder.path().join("auth.toml");
        let auth = Arc::new(Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap());
        let limits = Arc::new(limits);
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::start());
        let hub = Arc::new(Hub::new(store, limits.clone(), metrics.clone(), clock));
        let front = ClientFront::new(hub, limits, &metrics, clock, auth, "b.example").unwrap();
        Self { folder, front: Arc::new(front) }
    }

    /// A gateway that goes on with the store of this one.
    pub(in crate::xmpp) fn again(self, store: Arc<dyn Store>) -> Self {
        Self::of(self.folder, Limits::default(), store)
    }

    pub(in crate::xmpp) fn token(&self) -> String {
        self.token_of("anna")
    }

    fn token_of(&self, subject: &str) -> String {
        let all = || vec!["#".to_owned()];
        let patterns = Patterns { read: all(), append: all(), create: all(), manage: all() };
        let now = self.front.clock.wall();
        sign_at(&self.folder.path().join("key"), subject, None, &patterns, HOUR, now).unwrap()
    }

    fn revoke(&self, subject: &str) {
        let (auth, now) = (&self.front.auth, self.front.clock.wall());
        let revocation = serde_json::from_str(&format!("{{\"sub\":\"{subject}\"}}")).unwrap();
        auth.revoke(vec![auth.checked_revocation(revocation, now).unwrap()], now);
    }

    /// Waits until the gateway has noticed that all clients are gone.
    async fn all_are_gone(&self) {
        in_time("the clients are gone", async {
            while self.front.metrics.clients.get() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Appends a message of JSON to a stream.
    async fn append(&self, stream: &str, content: &str) {
        self.publish_any(stream, content, |append| append).await;
    }

    /// Appends a message to a stream that does not exist yet.
    async fn append_first(&self, stream: &str) {
        self.publish_any(stream, "0", Append::or_create).await;
    }

    async fn publish_any(&self, stream: &str, content: &str, change: impl FnOnce(Append) -> Append) {
        let name = StreamName::parse(stream).unwrap();
        let json = ContentType::parse("application/json").unwrap();
        let append = Append::of_any_type(content.to_owned().into(), json, 8);
        self.front.hub.publish(&name, change(append)).await.unwrap();
    }

    fn connect(&self) -> Client {
        let (client, server) = duplex(64 * 1024);
        tokio::spawn(self.front.clone().serve_websocket(server, Principal(1)));
        Client(ClientBuilder::new().take_over(client))
    }
}

struct Client(WebSocketStream<DuplexStream>);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text.to_owned())).await.unwrap();
    }

    /// Waits for a frame with this text, and returns it. Pings are answered meanwhile.
    async fn received(&mut self, expected: &str) -> String {
        loop {
            let message = in_time("the gateway sends", self.0.next()).await;
            let message = message.unwrap_or_else(|| panic!("no {expected} came")).unwrap();
            self.0.flush().await.unwrap();
            if let Some(text) = message.as_text().filter(|text| text.contains(expected)) {
                return text.to_owned();
            }
        }
    }

    async fn log_in(&mut self, token: &str) {
        self.authenticate(token).await;
        self.bind().await;
    }

    async fn bind(&mut self) {
        self.send("<iq xmlns='jabber:client' id='1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
        self.received("anna@b.example/").await;
    }

    async fn authenticate(&mut self, token: &str) {
        use base64::Engine;
        let message = base64::engine::general_purpose::STANDARD.encode(format!("\0anna\0{token}"));
        self.send(OPEN).await;
        self.send(&format!("<auth xmlns='{}' mechanism='PLAIN'>{message}</auth>", sasl::SASL)).await;
        self.received("<success").await;
        self.send(OPEN).await;
        self.received("<sm ").await;
    }

    /// Makes the stream one that can be resumed. Returns its id.
    async fn enable(&mut self) -> String {
        self.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
        let enabled = self.received("<enabled").await;
        enabled.split_once(" id='").unwrap().1.split_once('\'').unwrap().0.to_owned()
    }

    /// Resumes a stream after `handled` stanzas. Returns the answer.
    async fn resume(&mut self, id: &str, handled: u32) -> String {
        self.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{handled}'/>")).await;
        self.received("urn:xmpp:sm:3").await
    }

    /// Sends a request to the service, and waits for its answer.
    async fn request(&mut self, payload: &str) {
        let id = fastrand::u64(..);
        let iq = format!("<iq xmlns='jabber:client' type='set' id='{id}' to='b.example'>{payload}</iq>");
        self.send(&iq).await;
        self.received(&format!("id='{id}'")).await;
    }

    async fn subscribe(&mut self, node: &str) {
        self.change_subscription("subscribe", node).await;
    }

    async fn unsubscribe(&mut self, node: &str) {
        self.change_subscription("unsubscribe", node).await;
    }

    async fn change_subscription(&mut self, how: &str, node: &str) {
        let change = format!("<{how} node='{node}' jid='anna@b.example'/>");
        self.request(&format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{change}</pubsub>")).await;
    }

    async fn publish(&mut self, node: &str, content: &str) {
        let item = format!("<item><json xmlns='urn:xmpp:json:0'>{content}</json></item>");
        let publish = format!("<publish node='{node}'>{item}</publish>");
        self.request(&format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{publish}</pubsub>")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_log_in_is_closed_after_fifteen_seconds() {
    let world = World::start();
    for opens in [false, true] {
        let (mut client, begin) = (world.connect(), Instant::now());
        if opens {
            client.send(OPEN).await;
            client.received("mechanisms").await;
        }
        client.received("connection-timeout").await;
        assert_eq!(begin.elapsed().as_secs(), 15);
    }
    assert_eq!(world.front.metrics.logins_failed.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_within_a_second_of_expiry_and_of_revocation() {
    for is_revoked in [false, true] {
        let world = World::start();
        let issued = Instant::now();
        let mut client = world.connect();
        client.log_in(&world.token()).await;
        assert_eq!(world.front.metrics.clients.get(), 1);
        sleep(10 * SECOND).await;
        let (due, condition) = if is_revoked {
            world.revoke("anna");
            (Instant::now(), "<not-authorized")
        } else {
            (issued + HOUR, "<reset")
        };
        client.received(condition).await;
        let off = Instant::now().max(due) - Instant::now().min(due);
        assert!(off <= SECOND + Duration::from_millis(2), "{condition}: {off:?} off");
        while in_time("the stream ends", client.0.next()).await.is_some_and(|message| message.is_ok()) {}
        assert_eq!(world.front.metrics.clients.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_gone_within_the_times_of_websockets() {
    let world = World::start();
    let mut client = world.connect();
    client.log_in(&world.token()).await;
    let limits = &world.front.limits;
    let patience = limits.websocket_ping.get() + limits.websocket_pong_timeout.get();
    // Nothing is read, and so no ping is answered.
    sleep(patience + 3 * SECOND).await;
    assert_eq!(world.front.metrics.clients.get(), 0);
}

/// What is allocated for it besides is measured by `benches/idle_xmpp.py`.
#[tokio::test]
async fn the_task_of_a_client_has_no_room_for_requests() {
    let world = World::start();
    let (_client, server) = duplex(1);
    let task = size_of_val(&world.front.clone().serve_websocket(server, Principal(1)));
    assert!(task <= 2048, "{task} bytes");
    let session = size_of::<managed::ManagedSession>();
    assert!(session <= 832, "{session} bytes");
}
