//! Client certificates as credentials, over every protocol, until they expire or are revoked.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore};

use super::{folder, issue};
use crate::world::mqtt::Hello;
use crate::world::{Connection, Gateway, PATIENCE, handshake, post, until};

/// What `openssl ca` needs to know of the authority that [`issue`] has made.
const AUTHORITY: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nnew_certs_dir = .\nserial = serial\n\
                         certificate = root.pem\nprivate_key = root.key\ndefault_md = sha256\npolicy = any\n\
                         copy_extensions = copy\ndefault_days = 2\ndefault_crl_days = 2\nunique_subject = no\ncrlnumber = serial\n\
                         [any]\ncommonName = supplied\n";

const RULES: &str = "key_file = 'key'\n[[certificate]]\nname = 'uri'\nmatches = 'spiffe://example.org/device/*'\n\
                     read = ['devices/{sub}']\nappend = ['devices/{sub}']\ncreate = ['devices/{sub}']\n";

async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, stream).await.unwrap()
}

/// A gateway whose clients may have certificates of an authority in `folder`.
struct World {
    gateway: Gateway,
    folder: TempDir,
}

fn run(folder: &Path, program: &str, arguments: &str) -> String {
    let made = Command::new(program).args(arguments.split(' ')).current_dir(folder).output();
    let made = made.expect("the program runs");
    assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

impl World {
    async fn start(options: &[&str]) -> Self {
        let folder = folder();
        issue(folder.path(), "DNS:localhost,IP:127.0.0.1");
        std::fs::write(folder.path().join("ca.cnf"), AUTHORITY).unwrap();
        std::fs::write(folder.path().join("index"), "").unwrap();
        std::fs::write(folder.path().join("serial"), "1000").unwrap();
        std::fs::write(folder.path().join("auth.toml"), RULES).unwrap();
        run(folder.path(), "openssl", "ca -config ca.cnf -gencrl -out revoked.pem");
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        run(folder.path(), env!("CARGO_BIN_EXE_pollgate"), "keygen key");
        let (certificate, key, root, crl, auth) = (
            path("certificate.pem"),
            path("key.pem"),
            path("root.pem"),
            path("revoked.pem"),
            path("auth.toml"),
        );
        let files = [
            ["--tls-certificate", &certificate],
            ["--tls-key", &key],
            ["--tls-client-ca", &root],
            ["--tls-client-crl", &crl],
            ["--auth", &auth],
        ];
        let gateway = Gateway::start(&[files.as_flattened(), options].concat()).await;
        Self { gateway, folder }
    }

    /// Issues a certificate for device `id`, which is valid for `life`.
    fn issue(&self, id: &str, life: Duration) -> String {
        let folder = self.folder.path();
        let request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=device";
        let name = format!("-addext subjectAltName=URI:spiffe://example.org/device/{id}");
        run(folder, "openssl", &format!("{request} -keyout {id}.key -out {id}.csr {name}"));
        let time = |from_now: &str| run(folder, "date", &format!("-u -d {from_now}seconds +%Y%m%d%H%M%SZ"));
        let (begin, end) = (time("-60"), time(&format!("+{}", life.as_secs())));
        let validity = format!("-startdate {begin} -enddate {end}");
        run(
            folder,
            "openssl",
            &format!("ca -batch -notext -config ca.cnf -in {id}.csr -out {id}.pem {validity}"),
        );
        id.to_owned()
    }

    /// Puts the certificate of a device on the list of the authority.
    fn revoke(&self, id: &str) {
        let folder = self.folder.path();
        run(folder, "openssl", &format!("ca -config ca.cnf -revoke {id}.pem"));
        run(folder, "openssl", "ca -config ca.cnf -gencrl -out revoked.new");
        std::fs::rename(folder.join("revoked.new"), folder.join("revoked.pem")).unwrap();
    }

    /// The settings of a client with this certificate.
    fn client(&self, id: Option<&str>, alpn: &str) -> Arc<ClientConfig> {
        let path = |name: String| self.folder.path().join(name);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(path("root.pem".into())).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = match id {
            None => builder.with_no_client_auth(),
            Some(id) => {
                let chain = vec![CertificateDer::from_pem_file(path(format!("{id}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(path(format!("{id}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let offered = [alpn].into_iter().filter(|alpn| !alpn.is_empty());
        config.alpn_protocols = offered.map(|alpn| alpn.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A session with a listener, of a client with this certificate.
    async fn session(&self, address: SocketAddr, id: Option<&str>, alpn: &str) -> TlsStream<TcpStream> {
        connect(address, self.client(id, alpn)).await
    }

    /// Sends a request over HTTP/1.1, and returns the response until the gateway closes, or the error of TLS.
    async fn http(&self, id: Option<&str>, request: &str) -> String {
        let mut session = self.session(self.gateway.address, id, "").await;
        let request = format!("{request}\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let _refused = session.write_all(request.as_bytes()).await;
        let mut received = Vec::new();
        match timeout(PATIENCE, session.read_to_end(&mut received)).await.expect("an end") {
            Ok(_) => String::from_utf8(received).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    async fn status(&self, id: Option<&str>, request: &str) -> u16 {
        let answer = self.http(id, request).await;
        answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
    }

    /// The code of the CONNACK that a client with this certificate gets.
    async fn connack(&self, id: Option<&str>) -> u8 {
        let mut session = self.session(self.gateway.mqtt, id, "").await;
        session.write_all(&Hello::new("a").bytes()).await.unwrap();
        let mut received = [0; 4];
        timeout(PATIENCE, session.read_exact(&mut received)).await.unwrap().unwrap();
        received[3]
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_certificate_is_a_credential_over_each_protocol() {
    let world = World::start(&[]).await;
    let device = world.issue("7", HOUR);
    let device = Some(device.as_str());
    let create = "PUT /v1/stream/devices/7 HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 0";
    assert_eq!(world.status(device, create).await, 201);
    let read = "GET /v1/stream/devices/7?offset=-1 HTTP/1.1";
    assert_eq!(world.status(device, read).await, 200);
    assert_eq!(world.status(None, read).await, 401, "without a certificate");
    assert_eq!(world.status(device, "GET /v1/stream/devices/8 HTTP/1.1").await, 403, "that of another");

    // A token counts before the certificate.
    let token = run(world.folder.path(), env!("CARGO_BIN_EXE_pollgate"), "token --key-file key --read other");
    let with_token = format!("{read}\r\nauthorization: Bearer {token}");
    assert_eq!(world.status(device, &with_token).await, 403);

    let io = TokioIo::new(world.session(world.gateway.address, device, "h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let get = |uri: &str| {
        hyper::Request::get(format!("https://localhost{uri}")).body(Empty::<bytes::Bytes>::new()).unwrap()
    };
    assert_eq!(sender.send_request(get("/v1/stream/devices/7?offset=-1")).await.unwrap().status(), 200);
    let refused = sender.send_request(get("/v1/stream/devices/8")).await.unwrap();
    assert_eq!(refused.status(), 403);
    drop(refused.into_body().collect().await);

    let mut socket = world.session(world.gateway.address, device, "").await;
    let head = handshake("/v1/stream/devices/7?offset=-1&live=websocket") + "\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    timeout(PATIENCE, socket.read_exact(&mut begin)).await.unwrap().unwrap();
    assert_eq!(&begin, b"HTTP/1.1 101");

    assert_eq!((world.connack(device).await, world.connack(None).await), (0, 0x87));
}

#[tokio::test]
async fn what_is_open_ends_with_the_certificate() {
    let world = World::start(&[]).await;
    let device = world.issue("7", Duration::from_secs(6));
    let device = Some(device.as_str());
    let create = "PUT /v1/stream/devices/7 HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 0";
    assert_eq!(world.status(device, create).await, 201);
    // The same connection later asks again.
    let mut kept = world.session(world.gateway.address, device, "").await;
    let poll = "GET /v1/stream/devices/7?offset=now&live=long-poll&timeout=50 HTTP/1.1";
    let events = "GET /v1/stream/devices/7?offset=-1&live=sse HTTP/1.1";
    let (polled, streamed) = tokio::join!(world.http(device, poll), world.http(device, events));
    assert!(polled.starts_with("HTTP/1.1 204") && polled.contains("stream-next-offset"), "{polled}");
    assert!(streamed.contains(r#""end":"expired""#), "{streamed}");
    let refused = async {
        loop {
            let request = "GET /v1/stream/devices/7?offset=-1 HTTP/1.1\r\nhost: localhost\r\n\r\n";
            kept.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 4096];
            let read = kept.read(&mut answer).await.unwrap();
            if answer[..read].starts_with(b"HTTP/1.1 401") {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("requests on the open connection are refused, too");
}

#[tokio::test]
async fn an_operator_ends_what_the_holder_of_a_certificate_has_open() {
    let world = World::start(&[]).await;
    let [device, other] = ["7", "8"].map(|id| world.issue(id, HOUR));
    for id in [&device, &other] {
        let create = format!("PUT /v1/stream/devices/{id} HTTP/1.1\r\ncontent-length: 0");
        assert_eq!(world.status(Some(id), &create).await, 201);
    }
    let poll = "GET /v1/stream/devices/7?offset=now&live=long-poll&timeout=50 HTTP/1.1";
    let events = "GET /v1/stream/devices/7?offset=-1&live=sse HTTP/1.1";
    let revoke = async {
        world.gateway.until_waiting(2).await;
        let revocation = r#"{"iss":"certificate:uri","sub":"spiffe://example.org/device/7"}"#;
        let mut admin = Connection::open(world.gateway.admin).await;
        let revoked = admin.send(post("/revocations").json(revocation)).await.expect(200);
        assert!(!revoked.text().contains("expires"), "{}", revoked.text());
    };
    let (polled, streamed, ()) =
        tokio::join!(world.http(Some(&device), poll), world.http(Some(&device), events), revoke);
    assert!(polled.starts_with("HTTP/1.1 204"), "{polled}");
    assert!(streamed.contains(r#""end":"revoked""#), "{streamed}");
    let read = |id: &str| format!("GET /v1/stream/devices/{id}?offset=-1 HTTP/1.1");
    assert_eq!(world.status(Some(&device), &read("7")).await, 401);
    assert_eq!(world.status(Some(&other), &read("8")).await, 200);
    assert_eq!(world.connack(Some(&device)).await, 0x87);
}

#[tokio::test]
async fn what_is_open_ends_when_the_authority_revokes_the_certificate() {
    let world = World::start(&[]).await;
    let [device, other] = ["7", "8"].map(|id| world.issue(id, HOUR));
    for id in [&device, &other] {
        let create = format!("PUT /v1/stream/devices/{id} HTTP/1.1\r\ncontent-length: 0");
        assert_eq!(world.status(Some(id), &create).await, 201);
    }
    let poll =
        |id: &str| format!("GET /v1/stream/devices/{id}?offset=now&live=long-poll&timeout=50 HTTP/1.1");
    let events = "GET /v1/stream/devices/7?offset=-1&live=sse HTTP/1.1";
    let other_poll = poll(&other);
    let others = world.http(Some(&other), &other_poll);
    tokio::pin!(others);
    let revoke = async {
        world.gateway.until_waiting(3).await;
        world.revoke(&device);
    };
    let own_poll = poll(&device);
    let ended = async {
        tokio::join!(world.http(Some(&device), &own_poll), world.http(Some(&device), events), revoke)
    };
    let (polled, streamed, ()) = tokio::select! {
        ended = ended => ended,
        ended = &mut others => panic!("that of the other one ends: {ended}"),
    };
    assert!(polled.starts_with("HTTP/1.1 204"), "{polled}");
    assert!(streamed.contains(r#""end":"revoked""#), "{streamed}");
    assert!(world.http(Some(&device), &own_poll).await.contains("CertificateRevoked"));
}

#[tokio::test]
async fn revoked_certificates_and_clients_without_one_are_refused() {
    let world = World::start(&["--tls-client-required"]).await;
    let [one, other] = ["1", "2"].map(|id| world.issue(id, HOUR));
    let read = |id: &str| format!("GET /v1/stream/devices/{id} HTTP/1.1");
    for id in [&one, &other] {
        assert_eq!(world.status(Some(id), &read(id)).await, 404);
    }
    let refused = world.http(None, &read("1")).await;
    assert!(refused.contains("CertificateRequired"), "{refused}");
    // Each session has verified the certificate: none is resumed.
    let client = world.client(Some(&one), "");
    for _ in 0..2 {
        let mut session = connect(world.gateway.address, client.clone()).await;
        let request = "GET /v1/stream/devices/1 HTTP/1.1\r\nhost: localhost\r\n\r\n";
        session.write_all(request.as_bytes()).await.unwrap();
        timeout(PATIENCE, session.read_exact(&mut [0; 12])).await.unwrap().unwrap();
        assert_eq!(session.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    world.revoke(&one);
    until("the revocation is read", async || {
        world.http(Some(&one), &read("1")).await.contains("CertificateRevoked")
    })
    .await;
    assert_eq!(world.status(Some(&other), &read("2")).await, 404);
}
