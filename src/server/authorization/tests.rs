//! MQTT connections, over TCP and over WebSocket, end within a second of the end of their rights. The clock is paused, so what is
//! measured is what timers wait for.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::auth::AuthSettings;
use crate::auth::issue::{Patterns, generate_key, sign};
use crate::clock::in_time;
use crate::mqtt::{Broker, Peer, WebSocketBytes};
use crate::store::Memory;
use crate::stream::{Principal, StreamName};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// The precision of timers.
const MOMENT: Duration = Duration::from_millis(2);

/// A front of MQTT that checks tokens, and the task that reads their keys again.
struct World {
    folder: tempfile::TempDir,
    auth: Arc<Authenticator>,
    clock: Clock,
    hub: Arc<Hub>,
    broker: Arc<Broker>,
}

/// Why the rights of a connection end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cause {
    Expiry,
    Revocation,
    RemovedKey,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        std::fs::write(&path, "key_file = 'key'\n").unwrap();
        generate_key(&folder.path().join("key")).unwrap();
        let auth = Arc::new(Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap());
        let limits = Arc::new(Limits { mqtt_keep_alive_max: "48h".parse().unwrap(), ..Limits::default() });
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::start());
        let hub = Arc::new(Hub::new(Arc::new(Memory::default()), limits.clone(), metrics.clone(), clock));
        let broker = Arc::new(Broker::new(hub.clone(), limits, &metrics, clock).with_auth(auth.clone()));
        tokio::spawn(watch_keys(auth.clone(), None, clock));
        Self { folder, auth, clock, hub, broker }
    }

    fn token(&self) -> String {
        let all = || vec!["#".to_owned()];
        let patterns = Patterns { append: all(), create: all(), ..Patterns::default() };
        sign(&self.folder.path().join("key"), "anna", None, &patterns, HOUR).unwrap()
    }

    /// Connects a client, in the frames of a WebSocket or without.
    async fn connect(&self, in_frames: bool) -> DuplexStream {
        self.connect_with(in_frames, &connect(&self.token())).await
    }

    async fn connect_with(&self, in_frames: bool, connect: &[u8]) -> DuplexStream {
        let (mut client, server) = duplex(64 * 1024);
        let peer = Peer { principal: Principal(1), grants: None, address: None };
        let broker = self.broker.clone();
        if in_frames {
            let server = WebSocketBytes::new(server, 64 * 1024, 64 * 1024);
            tokio::spawn(broker.serve(server, peer, false));
        } else {
            tokio::spawn(broker.serve(server, peer, false));
        }
        let length = u16::try_from(connect.len()).unwrap();
        if in_frames {
            // A binary frame whose mask changes nothing.
            client.write_all(&[0x82, 0x80 | 126]).await.unwrap();
            client.write_all(&[&length.to_be_bytes()[..], &[0; 4]].concat()).await.unwrap();
        }
        client.write_all(connect).await.unwrap();
        // CONNACK of success.
        received(&mut client, |begin| matches!(begin, [0x20, _, 0, 0, ..])).await;
        client
    }

    fn end_rights(&self, cause: Cause) {
        match cause {
            Cause::Expiry => {}
            Cause::Revocation => {
                let now = self.clock.wall();
                let revocation = serde_json::from_str("{\"sub\":\"anna\"}").unwrap();
                self.auth.revoke(vec![self.auth.checked_revocation(revocation, now).unwrap()], now);
            }
            Cause::RemovedKey => {
                std::fs::remove_file(self.folder.path().join("key")).unwrap();
                generate_key(&self.folder.path().join("key")).unwrap();
            }
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// CONNECT of MQTT 5 with a user name and a password, a clean start and no keep alive.
fn connect(password: &str) -> Vec<u8> {
    packet([&text("MQTT")[..], &[5, 0xc2, 0, 0, 0], &text("a"), &text("any"), &text(password)].concat())
}

/// The same with a will on `gone` that is published after `delay`, and a session that is kept for a day.
fn connect_with_will(password: &str, delay: Duration) -> Vec<u8> {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap().to_be_bytes();
    let expiry = [&[5, 0x11][..], &seconds(24 * HOUR)].concat();
    let will = [&[5, 0x18][..], &seconds(delay), &text("gone"), &text("will")].concat();
    let begin = [&text("MQTT")[..], &[5, 0xc6, 0, 0]].concat();
    packet([begin, expiry, text("a"), will, text("any"), text(password)].concat())
}

fn packet(body: Vec<u8>) -> Vec<u8> {
    let length = u8::try_from(body.len() % 128).unwrap() | 0x80;
    [&[0x10, length, u8::try_from(body.len() / 128).unwrap()], &body[..]].concat()
}

/// Reads until what comes is `expected`, perhaps behind the head of a frame.
async fn received(client: &mut DuplexStream, expected: impl Fn(&[u8]) -> bool) {
    let mut bytes = Vec::new();
    while !(0..bytes.len()).any(|begin| expected(&bytes[begin..])) {
        let read = in_time("the gateway sends", client.read_buf(&mut bytes)).await.unwrap();
        assert!(read > 0, "{bytes:x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn mqtt_connections_end_within_a_second_of_expiry_revocation_and_removal_of_the_key() {
    for in_frames in [false, true] {
        for (cause, reason) in [(Cause::Expiry, 0xa0), (Cause::Revocation, 0x87), (Cause::RemovedKey, 0x87)] {
            let world = World::start();
            let issued = Instant::now();
            let mut client = world.connect(in_frames).await;
            sleep(Duration::from_millis(10_500)).await;
            world.end_rights(cause);
            let since = if cause == Cause::Expiry { issued + HOUR } else { Instant::now() };
            // DISCONNECT with this reason.
            received(&mut client, |packet| packet.starts_with(&[0xe0, 1, reason])).await;
            let late = Instant::now().saturating_duration_since(since);
            assert!(late <= SECOND + MOMENT, "{cause:?}, in frames: {in_frames}: after {late:?}");
            if cause == Cause::Expiry {
                let early = since.saturating_duration_since(Instant::now());
                assert!(early <= SECOND, "{early:?} before the expiry");
            }
            let mut rest = Vec::new();
            in_time("the connection ends", client.read_to_end(&mut rest)).await.unwrap();
        }
    }
}

/// As after a restart: what a token allowed ends with it.
#[tokio::test(start_paused = true)]
async fn a_delayed_will_is_published_only_if_the_token_of_its_client_is_still_valid() {
    for (delay, is_published) in [(HOUR / 2, true), (2 * HOUR, false)] {
        let world = World::start();
        let broker = world.broker.clone();
        tokio::spawn(async move { broker.sweep().await });
        let client = world.connect_with(false, &connect_with_will(&world.token(), delay)).await;
        drop(client);
        sleep(delay - SECOND).await;
        let gone = StreamName::parse("gone").unwrap();
        assert!(world.hub.describe(&gone).await.is_err(), "too early");
        sleep(3 * SECOND).await;
        assert_eq!(world.hub.describe(&gone).await.is_ok(), is_published, "{delay:?}");
    }
}
