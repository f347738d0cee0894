//! WebSockets end within a second of the end of their rights. The clock is paused, so what is measured is what timers wait for.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, duplex};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::super::state::OpenConnection;
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
