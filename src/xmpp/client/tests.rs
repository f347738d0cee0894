//! Streams of clients end in time. The clock is paused, so what is measured is what timers wait for.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::*;
use crate::auth::AuthSettings;
use crate::auth::issue::{Patterns, generate_key, sign};
use crate::clock::in_time;
use crate::store::Memory;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
const OPEN: &str = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='b.example' version='1.0'/>";

/// A front that checks tokens.
struct World {
    folder: tempfile::TempDir,
    front: Arc<ClientFront>,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        std::fs::write(&path, "key_file = 'key'\n").unwrap();
        generate_key(&folder.path().join("key")).unwrap();
        let auth = Arc::new(Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap());
        let limits = Arc::new(Limits::default());
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::start());
        let hub = Arc::new(Hub::new(Arc::new(Memory::default()), limits.clone(), metrics.clone(), clock));
        let front = ClientFront::new(hub, limits, &metrics, clock, auth, "b.example").unwrap();
        Self { folder, front: Arc::new(front) }
    }

    fn token(&self) -> String {
        sign(&self.folder.path().join("key"), "anna", None, &Patterns::default(), HOUR).unwrap()
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

    /// Waits for a frame with this text. Pings are answered meanwhile.
    async fn received(&mut self, expected: &str) {
        loop {
            let message = in_time("the gateway sends", self.0.next()).await;
            let message = message.unwrap_or_else(|| panic!("no {expected} came")).unwrap();
            let is_found = message.as_text().is_some_and(|text| text.contains(expected));
            self.0.flush().await.unwrap();
            if is_found {
                return;
            }
        }
    }

    async fn log_in(&mut self, token: &str) {
        use base64::Engine;
        let message = base64::engine::general_purpose::STANDARD.encode(format!("\0anna\0{token}"));
        self.send(OPEN).await;
        self.send(&format!("<auth xmlns='{}' mechanism='PLAIN'>{message}</auth>", sasl::SASL)).await;
        self.received("<success").await;
        self.send(OPEN).await;
        self.send("<iq xmlns='jabber:client' id='1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
        self.received("anna@b.example/").await;
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
            let (auth, now) = (&world.front.auth, world.front.clock.wall());
            let revocation = serde_json::from_str("{\"sub\":\"anna\"}").unwrap();
            auth.revoke(vec![auth.checked_revocation(revocation, now).unwrap()], now);
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
