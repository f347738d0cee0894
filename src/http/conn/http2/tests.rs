//! WebSockets end within a second of the end of their rights, and idle connections while memory is critical. The clock is paused, so
//! what is measured is what timers wait for.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, timeout_at};

use super::super::state::{IdleConnections, OpenConnection};
use super::*;
use crate::auth::issue::{Patterns, generate_key, sign};
use crate::auth::{AuthSettings, Authenticator};
use crate::budget::Budget;
use crate::clock::{Clock, in_time};
use crate::http::api::access::AccessPolicy;
use crate::http::api::gateway::{Gateway, HoldPolicy};
use crate::hub::{Creation, Hub};
use crate::metrics::Metrics;
use crate::store::Memory;
use crate::stream::{ContentType, Principal, StreamName};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

struct Nothing;

impl OpenConnection for Nothing {}

/// A gateway that checks tokens, and the stream `news`.
struct World {
    folder: tempfile::TempDir,
    auth: Arc<Authenticator>,
    clock: Clock,
    service: Arc<Service>,
    limits: Arc<Limits>,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        std::fs::write(&path, "key_file = 'key'\n").unwrap();
        generate_key(&folder.path().join("key")).unwrap();
        let auth = Arc::new(Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap());
        let limits = Arc::new(Limits { websocket_ping: "48h".parse().unwrap(), ..Limits::default() });
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::start());
        let hub = Arc::new(Hub::new(Arc::new(Memory::default()), limits.clone(), metrics.clone(), clock));
        let json =
            Creation { content_type: ContentType::parse("application/json").ok(), ..Creation::default() };
        hub.create(&StreamName::parse("news").unwrap(), json).await.unwrap();
        let access = AccessPolicy::new([127, 0, 0, 1].into(), &[], &[]).unwrap();
        let holds = HoldPolicy { default: SECOND, max: SECOND };
        let (mqtt, _) = mpsc::channel(1);
        let gateway = Gateway::new(hub, limits.clone(), holds, metrics, clock, access, mqtt);
        let service = Arc::new(Service::Gateway(Arc::new(gateway.with_auth(auth.clone()))));
        Self { folder, auth, clock, service, limits }
    }

    fn token(&self) -> String {
        let patterns = Patterns { read: vec!["news".into()], ..Patterns::default() };
        sign(&self.folder.path().join("key"), "anna", None, &patterns, HOUR).unwrap()
    }

    /// Opens a WebSocket over HTTP/2 (RFC 8441).
    async fn open(&self) -> TokioIo<hyper::upgrade::Upgraded> {
        let (client, server) = duplex(64 * 1024);
        let state = ConnectionState::new(Nothing, &Budget::unlimited().owner(Principal(1)));
        let (state, service) = (Arc::new(state), self.service.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let (state, service) = (state.clone(), service.clone());
            async move { Ok::<_, Infallible>(respond(&service, request, None, &state).await) }
        });
        tokio::spawn(settings(&self.limits).serve_connection(TokioIo::new(server), answer));
        let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client));
        let (mut sender, connection) = client.await.unwrap();
        tokio::spawn(connection);
        let request = Request::connect("https://localhost/v1/stream/news?offset=now&live=websocket")
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("authorization", format!("Bearer {}", self.token()))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = in_time("the handshake", sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        TokioIo::new(hyper::upgrade::on(response).await.unwrap())
    }

    /// Opens a connection without requests. Also returns the phase of the server.
    async fn connect(&self) -> (FrameClient, watch::Sender<Phase>) {
        let (change, phase) = watch::channel(Phase::Serving);
        let state = Arc::new(ConnectionState::new(Nothing, &Budget::unlimited().owner(Principal(1))));
        let (service, limits) = (self.service.clone(), self.limits.clone());
        let context =
            ConnectionContext { service, limits, state, idle: IdleConnections::of(phase.clone()), phase };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        tokio::spawn(serve(Transport::plain(accepted.unwrap().0), Bytes::new(), context));
        let mut client = FrameClient(client.unwrap());
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.send(SETTINGS, 0, &[]).await;
        (client, change)
    }
}

/// Types of frames (RFC 9113, section 6), and the flag of an acknowledgement.
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

/// A client that reads the frames of the connection itself.
struct FrameClient(TcpStream);

impl FrameClient {
    async fn send(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [0, 0, length, kind, flags, 0, 0, 0, 0];
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// Returns the type and the payload of the next frame, and answers a PING. `None`: the gateway has closed the connection.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [high, middle, low, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        if kind == PING && flags & ACK == 0 {
            self.send(PING, ACK, &payload).await;
        }
        Some((kind, payload))
    }

    /// Returns the payload of the GOAWAY that comes within a time, if one does.
    async fn goes_away_within(&mut self, time: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + time;
        loop {
            match timeout_at(until, self.next()).await {
                Ok(Some((GOAWAY, payload))) => return Some(payload),
                Ok(Some(_)) => {}
                Ok(None) => panic!("it closes without GOAWAY"),
                Err(_) => return None,
            }
        }
    }
}

/// Reads until the close frame, whose code is 4401, and checks what the last envelope says.
async fn closed(mut socket: TokioIo<hyper::upgrade::Upgraded>, why: &str) {
    let close = [&4401_u16.to_be_bytes()[..], why.as_bytes()].concat();
    let mut received = Vec::new();
    while !received.ends_with(&close) {
        let read = in_time("the socket closes", socket.read_buf(&mut received)).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&received));
    }
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains(&format!("\"end\":\"{why}\"")), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_websocket_ends_within_a_second_of_expiry_revocation_and_removal_of_the_key() {
    let world = World::start().await;
    let (socket, issued) = (world.open().await, Instant::now());
    closed(socket, "expired").await;
    let open = issued.elapsed();
    assert!((HOUR - SECOND..=HOUR + SECOND).contains(&open), "{open:?}");

    let world = World::start().await;
    let socket = world.open().await;
    let (now, since) = (world.clock.wall(), Instant::now());
    let revocation = serde_json::from_str("{\"sub\":\"anna\"}").unwrap();
    world.auth.revoke(vec![world.auth.checked_revocation(revocation, now).unwrap()], now);
    closed(socket, "revoked").await;
    assert!(since.elapsed() < SECOND, "{:?}", since.elapsed());

    let world = World::start().await;
    let (socket, since) = (world.open().await, Instant::now());
    std::fs::remove_file(world.folder.path().join("key")).unwrap();
    generate_key(&world.folder.path().join("key")).unwrap();
    world.auth.reload().unwrap();
    closed(socket, "revoked").await;
    assert!(since.elapsed() < SECOND, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_gets_goaway_and_closes_while_memory_is_critical() {
    let world = World::start().await;
    in_time("the connections close", async {
        for phase in [Phase::Serving, Phase::Shedding] {
            let (mut client, change) = world.connect().await;
            assert_eq!(client.goes_away_within(Duration::from_secs(60)).await, None);
            change.send_replace(phase);
            let goaway = client.goes_away_within(Duration::from_millis(100)).await;
            assert_eq!(goaway.is_some(), phase == Phase::Shedding, "{phase:?}");
            let Some(goaway) = goaway else { continue };
            assert_eq!(goaway[4..8], [0; 4], "no error");
            let closing = Instant::now();
            while client.next().await.is_some() {}
            assert!(closing.elapsed() < SECOND, "{:?}", closing.elapsed());
        }
    })
    .await;
}
