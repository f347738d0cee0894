//! Exchanges with real servers on this machine, of HTTP/1.1 and of HTTP/2 over TLS.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::Frame;
use hyper::header::LOCATION;
use hyper::service::service_fn;
use hyper::{StatusCode, server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::clock::in_time;

const PEM: &[u8] = include_bytes!("tests.pem");

type ServerBody = BoxBody<Bytes, Infallible>;

fn full(text: impl Into<Bytes>) -> ServerBody {
    Full::new(text.into()).boxed()
}

/// A server that counts its connections, and holds requests to `/held` until a permit is added.
struct World {
    port: u16,
    connections: Arc<AtomicUsize>,
    held: Arc<Semaphore>,
    trust: Trust,
    scheme: &'static str,
}

async fn respond(
    request: Request<Incoming>,
    held: Arc<Semaphore>,
) -> Result<Response<ServerBody>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text =
        |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let mut response = Response::new(full(format!(
        "{:?} {} {} host={} length={} agent={} body={}",
        head.version,
        head.method,
        head.uri.path_and_query().unwrap(),
        head.uri.authority().map_or_else(|| text("host"), |authority| authority.to_string()),
        text("content-length"),
        text("user-agent"),
        std::str::from_utf8(&body).unwrap()
    )));
    match head.uri.path() {
        "/moved" => {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/elsewhere"));
        }
        "/held" => held.acquire().await.unwrap().forget(),
        "/endless" => {
            let pieces = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 1000]))));
            *response.body_mut() = BodyExt::boxed(StreamBody::new(pieces));
        }
        "/sized" => *response.body_mut() = full(vec![b'x'; head.uri.query().unwrap().parse().unwrap()]),
        _ => {}
    }
    Ok(response)
}

impl World {
    async fn start(is_tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let held = Arc::new(Semaphore::new(0));
        let (count, gate) = (connections.clone(), held.clone());
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(PEM).unwrap()],
                PrivateKeyDer::from_pem_slice(PEM).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (gate, acceptor) = (gate.clone(), acceptor.clone());
                let service = service_fn(move |request| respond(request, gate.clone()));
                tokio::spawn(async move {
                    let _ended = if is_tls {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let server = server::conn::http2::Builder::new(TokioExecutor::new());
                        server.serve_connection(TokioIo::new(stream), service).await
                    } else {
                        server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await
                    };
                });
            }
        });
        let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http_client/tests.pem"));
        let trust = Trust::only(&file).unwrap();
        Self { port, connections, held, trust, scheme: if is_tls { "https" } else { "http" } }
    }

    fn at(&self, host: &str, path: &str) -> Destination {
        let url = format!("{}://{host}:{}{path}", self.scheme, self.port);
        Destination::of_operator(&url, &self.trust).unwrap()
    }

    async fn get(&self, client: &HttpClient, path: &str) -> Result<Response<Bytes>, OutboundError> {
        let to = self.at("localhost", path);
        let exchange = client.send(&to, Request::new(Bytes::new()), ExchangeLimits::default());
        in_time("an exchange", exchange).await
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn client() -> HttpClient {
    HttpClient::new(AddressPolicy::default(), 16)
}

fn text(response: Response<Bytes>) -> String {
    String::from_utf8(response.into_body().to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_arrives_as_it_was_made_over_both_versions() {
    for (is_tls, version) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        let world = World::start(is_tls).await;
        let request = Request::post("/send?x=1").header("user-agent", "me").body(Bytes::from("{}")).unwrap();
        let to = world.at("127.0.0.1", "/base");
        let response = client().send(&to, request, ExchangeLimits::default()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let host = format!("127.0.0.1:{}", world.port);
        let expected = format!("{version} POST /base/send?x=1 host={host} length=2 agent=me body={{}}");
        assert_eq!(text(response), expected);
        let mut empty = Request::new(Bytes::new());
        *empty.method_mut() = Method::POST;
        let response = client().send(&to, empty, ExchangeLimits::default()).await.unwrap();
        assert!(text(response).contains("length=0 agent=pollgate/"));
    }
}

#[tokio::test]
async fn a_connection_serves_later_requests_and_concurrent_ones_where_the_version_allows() {
    for is_tls in [false, true] {
        let world = World::start(is_tls).await;
        let client = client();
        for _ in 0..5 {
            assert!(world.get(&client, "/").await.is_ok());
        }
        assert_eq!(world.count(), 1);
        let world = World::start(is_tls).await;
        world.held.add_permits(8);
        let at_once = (0..8).map(|_| world.get(&client, "/held"));
        for outcome in futures_util::future::join_all(at_once).await {
            assert!(outcome.is_ok());
        }
        assert_eq!(world.count(), if is_tls { 1 } else { 8 });
    }
}

#[tokio::test]
async fn no_more_connections_are_open_than_allowed() {
    let world = World::start(false).await;
    let client = HttpClient::new(AddressPolicy::default(), 2);
    let at_once = (0..20).map(|_| world.get(&client, "/"));
    assert!(futures_util::future::join_all(at_once).await.iter().all(Result::is_ok));
    // Unused connections of other destinations make room.
    let other = World::start(true).await;
    assert!(other.get(&client, "/").await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_a_response_like_any_other() {
    let world = World::start(false).await;
    let response = world.get(&client(), "/moved").await.unwrap();
    assert_eq!((response.status(), world.count()), (StatusCode::FOUND, 1));
}

#[tokio::test]
async fn a_response_is_refused_as_soon_as_it_is_too_large() {
    for is_tls in [false, true] {
        let world = World::start(is_tls).await;
        let client = client();
        let max = ExchangeLimits::default().body_bytes_max;
        assert_eq!(world.get(&client, &format!("/sized?{max}")).await.unwrap().body().len(), max);
        for path in [format!("/sized?{}", max + 1), "/endless".to_owned()] {
            let outcome = world.get(&client, &path).await;
            assert!(matches!(outcome, Err(OutboundError::TooLarge { max: 65536 })), "{outcome:?}");
        }
        assert!(world.get(&client, "/").await.is_ok());
    }
}

#[tokio::test]
async fn one_deadline_covers_the_whole_exchange() {
    let world = World::start(false).await;
    let limits = ExchangeLimits { time: Duration::from_millis(50), ..ExchangeLimits::default() };
    let outcome = client().send(&world.at("localhost", "/held"), Request::new(Bytes::new()), limits).await;
    assert!(matches!(outcome, Err(OutboundError::Late(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_request_goes_over_a_new_connection_if_the_kept_one_was_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _length = stream.read(&mut [0; 1024]).await.unwrap();
            let response = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    });
    let (client, to) = (client(), Destination::of_operator(&url, &Trust::nothing().unwrap()).unwrap());
    for number in 0..5 {
        let sent = client.send(&to, Request::new(Bytes::new()), ExchangeLimits::default());
        assert_eq!(text(in_time("an exchange", sent).await.unwrap()), number.to_string());
        while client.pool.has_open(&to) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn the_certificate_has_to_be_for_the_host_and_trusted() {
    let world = World::start(true).await;
    assert!(world.get(&client(), "/").await.is_ok());
    let other = Trust::nothing().unwrap();
    let untrusted = Destination::of_operator(&format!("https://localhost:{}/", world.port), &other).unwrap();
    let wrong = world.at("b.example", "/");
    for to in [untrusted, wrong] {
        let here = Rebinding {
            answers: Mutex::new([vec!["127.0.0.1".parse().unwrap()]].into()),
            lookups: Arc::default(),
        };
        let client = HttpClient::resolving(AddressPolicy::default(), 4, Box::new(here));
        let outcome = client.send(&to, Request::new(Bytes::new()), ExchangeLimits::default()).await;
        assert!(matches!(outcome, Err(OutboundError::Tls(_))), "{outcome:?}");
    }
}

/// Returns other addresses with each lookup.
struct Rebinding {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    lookups: Arc<AtomicUsize>,
}

impl Resolve for Rebinding {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolved<'a> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.lock().pop_front().unwrap_or_default();
        Box::pin(async move { Ok(answer) })
    }
}

#[tokio::test]
async fn the_address_that_is_connected_to_is_the_one_that_was_checked() {
    let world = World::start(true).await;
    let here: IpAddr = "127.0.0.1".parse().unwrap();
    let private: IpAddr = "10.0.0.1".parse().unwrap();
    let lookups = Arc::new(AtomicUsize::new(0));
    let url = format!("https://a.example:{}/", world.port);
    let to = Destination::of_client(&url, &world.trust).unwrap();
    let send = async |policy: AddressPolicy, answers: Vec<Vec<IpAddr>>| {
        let rebinding = Rebinding { answers: Mutex::new(answers.into()), lookups: lookups.clone() };
        let client = HttpClient::resolving(policy, 4, Box::new(rebinding));
        client.send(&to, Request::new(Bytes::new()), ExchangeLimits::default()).await
    };
    // What a name server returns later is not asked for: the first answer is both checked and used.
    let local = AddressPolicy::new(&["127.0.0.1".to_owned()]).unwrap();
    assert!(send(local.clone(), vec![vec![here], vec![private]]).await.is_ok());
    assert_eq!(lookups.load(Ordering::SeqCst), 1);
    // Among several addresses, those that are refused are not connected to.
    assert!(send(local, vec![vec![private, here]]).await.is_ok());
    assert_eq!(world.count(), 2);
    for answers in
        [vec![vec![here]], vec![vec![private, here]], vec![vec!["::ffff:127.0.0.1".parse().unwrap()]]]
    {
        let outcome = send(AddressPolicy::default(), answers).await;
        assert!(matches!(outcome, Err(OutboundError::Refused { .. })), "{outcome:?}");
    }
    let outcome = send(AddressPolicy::default(), vec![vec![]]).await;
    assert!(matches!(outcome, Err(OutboundError::Lookup(_))), "{outcome:?}");
    assert_eq!(world.count(), 2, "no connection was made for a refused address");
}

#[tokio::test]
async fn a_client_reaches_this_machine_only_if_the_operator_allows_it() {
    let world = World::start(false).await;
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("http://{host}:{}/", world.port);
        let to = Destination::of_client(&url, &world.trust).unwrap();
        let send = |policy| {
            let (client, to) = (HttpClient::new(policy, 4), to.clone());
            async move { client.send(&to, Request::new(Bytes::new()), ExchangeLimits::default()).await }
        };
        let outcome = send(AddressPolicy::default()).await;
        assert!(matches!(outcome, Err(OutboundError::Refused { .. })), "{outcome:?}");
        assert!(send(AddressPolicy::new(&[host.to_owned()]).unwrap()).await.is_ok());
        assert!(send(AddressPolicy::default().allowing_loopback()).await.is_ok());
    }
}
