//! `https://` and `wss://`, through nginx and to a gateway that speaks TLS, with certificates of the tests' own authorities.

mod client_certificates;
mod issuer;
mod names;
mod programs;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pollgate_client::{Client, Event, Form, Item, PublishError, Reason, Settings, Start};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::reading::{Told, builder, expect, next, only, publish, settings};
use crate::relay::{Relay, Rule};
use crate::world::mqtt::Hello;
use crate::world::{Gateway, PATIENCE, until};

/// Offers HTTP/2 too, as most servers do, and notes what was negotiated.
const CONFIGURATION: &str = "
daemon off;
master_process off;
pid FOLDER/pid;
error_log stderr;
events {}
http {
  log_format negotiated '$ssl_alpn_protocol $server_protocol $status $request_uri';
  access_log FOLDER/access negotiated;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  server {
    listen ADDRESS ssl http2;
    ssl_certificate FOLDER/certificate.pem;
    ssl_certificate_key FOLDER/key.pem;
    location / {
      proxy_pass http://GATEWAY;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_buffering off;
    }
  }
}
";

/// nginx in front of a gateway, with an authority of its own that has issued its certificate. Killed when dropped.
struct Proxy {
    address: SocketAddr,
    folder: TempDir,
    _child: Child,
}

impl Proxy {
    /// Starts it with a certificate for these names, such as `IP:127.0.0.1`.
    async fn start(gateway: SocketAddr, names: &str) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        issue(folder.path(), names);
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let configuration = CONFIGURATION
            .replace("FOLDER", &folder.path().display().to_string())
            .replace("ADDRESS", &address.to_string())
            .replace("GATEWAY", &gateway.to_string());
        std::fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        let child = tokio::process::Command::new("nginx")
            .args(["-e", "stderr", "-c"])
            .arg(folder.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("nginx");
        until("nginx listens", async || TcpStream::connect(address).await.is_ok()).await;
        Self { address, folder, _child: child }
    }

    /// The certificate of its authority.
    fn root(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("root.pem")).unwrap()
    }

    /// A client that trusts the authority of this proxy.
    fn client(&self, address: SocketAddr, settings: Settings) -> (Client, Told) {
        let (builder, told) = builder(&format!("https://{address}"), settings);
        (builder.root_certificates(self.root()).build().unwrap(), told)
    }

    /// A line for each request so far: the protocol by ALPN, that of the request, the status and the target.
    fn requests(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access")).unwrap()
    }
}

/// Makes an authority with a name of its own, and a certificate by it.
fn issue(folder: &Path, names: &str) {
    let openssl = |arguments: &str| {
        let arguments = arguments.split(' ').chain(["-nodes", "-newkey", "ec", "-pkeyopt"]);
        let arguments = arguments.chain(["ec_paramgen_curve:P-256", "-days", "2"]);
        let made =
            Command::new("openssl").args(["req", "-x509"]).args(arguments).current_dir(folder).output();
        let made = made.expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let authority = folder.file_name().unwrap().display();
    openssl(&format!(
        "-subj /CN={authority} -keyout root.key -out root.pem -addext basicConstraints=critical,CA:TRUE"
    ));
    openssl(&format!(
        "-subj /CN=gateway -CA root.pem -CAkey root.key -keyout key.pem -out certificate.pem -addext \
         basicConstraints=critical,CA:FALSE -addext subjectAltName={names}"
    ));
}

/// The client publishes 100 messages to the stream of this form, and reads them all in it.
async fn carries_all_messages(client: &Client, form: Form, told: &Told) {
    let producer = client.producer(form.name(), "application/json");
    publish(&producer, 0..50).await;
    let mut subscription = client.subscribe([form.name()], Start::earliest());
    let publishing = async {
        for number in 50..100 {
            publish(&producer, number..number + 1).await;
        }
    };
    tokio::join!(publishing, expect(&mut subscription, 0..100));
    assert_eq!(told.changes(), [(form, Reason::Start)], "{:?}", told.all());
}

#[tokio::test]
async fn each_form_reads_and_publishes_over_tls() {
    let gateway = Gateway::start(&[]).await;
    let proxy = Proxy::start(gateway.address, "DNS:localhost,IP:127.0.0.1").await;
    for form in Form::ALL {
        let (client, told) = proxy.client(proxy.address, only(form));
        carries_all_messages(&client, form, &told).await;
    }
    let by_name = Client::builder(&format!("wss://localhost:{}", proxy.address.port()));
    let client = by_name.root_certificates(proxy.root()).build().unwrap();
    expect(&mut client.subscribe(["websocket"], Start::earliest()), 0..100).await;

    let requests = proxy.requests();
    for line in requests.lines() {
        assert!(line.starts_with("http/1.1 HTTP/1.1 "), "{line}");
    }
    for what in ["live=sse", "live=ndjson", "live=long-poll", "/v1/stream/short-poll?create=1"] {
        assert!(requests.contains(what), "{what}: {requests}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_a_subscription_and_a_publish() {
    let gateway = Gateway::start(&[]).await;
    let trusted = Proxy::start(gateway.address, "IP:127.0.0.1").await;
    let unknown = Proxy::start(gateway.address, "IP:127.0.0.1").await;
    let other_name = Proxy::start(gateway.address, "DNS:other.example").await;
    for (client, reason) in [
        (trusted.client(unknown.address, settings()).0, "UnknownIssuer"),
        (other_name.client(other_name.address, settings()).0, "not valid for"),
    ] {
        let mut subscription = client.subscribe(["s"], Start::earliest());
        let Item::Untrusted(error) = next(&mut subscription).await else { panic!("{reason}") };
        assert_eq!(error.host, "127.0.0.1");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(subscription.next().await.is_none());
        let refused = client.producer("s", "application/json").publish("1").await;
        assert_eq!(refused, Err(PublishError::Untrusted(error)));
    }
    assert_eq!(unknown.requests(), "");
}

#[tokio::test]
async fn a_captive_portal_with_a_certificate_of_its_own_is_told_and_waited_for() {
    let gateway = Gateway::start(&[]).await;
    let trusted = Proxy::start(gateway.address, "IP:127.0.0.1").await;
    let portal = Proxy::start(gateway.address, "IP:127.0.0.1").await;
    for form in [Form::WebSocket, Form::LongPoll] {
        let relay = Relay::start(trusted.address, Rule::Open).await;
        let (client, told) = trusted.client(relay.address, only(form));
        let producer = client.producer(form.name(), "application/json");
        publish(&producer, 0..1).await;
        let mut subscription = client.subscribe([form.name()], Start::earliest());
        expect(&mut subscription, 0..1).await;
        relay.lead_to(portal.address);
        relay.forget_connections();
        let untrusted = || told.all().iter().any(|event| matches!(event, Event::Untrusted(_)));
        until("the portal is told of", async || untrusted()).await;
        let published = producer.publish("1");
        tokio::pin!(published);
        assert!(timeout(Duration::from_secs(1), &mut published).await.is_err(), "{form}");
        relay.lead_to(trusted.address);
        published.await.unwrap();
        expect(&mut subscription, 1..2).await;
    }
    assert_eq!(portal.requests(), "");
}

/// A gateway that speaks TLS itself, with a certificate of an authority in `folder`.
async fn encrypted(folder: &TempDir) -> Gateway {
    issue(folder.path(), "DNS:localhost,IP:127.0.0.1");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    Gateway::start(&["--tls-certificate", &path("certificate.pem"), "--tls-key", &path("key.pem")]).await
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A client that trusts the present authority in `folder`.
fn trusting(folder: &TempDir, gateway: &Gateway, settings: Settings) -> (Client, Told) {
    let (builder, told) = builder(&format!("https://{}", gateway.address), settings);
    let root = std::fs::read(folder.path().join("root.pem")).unwrap();
    (builder.root_certificates(root).build().unwrap(), told)
}

/// A TLS session with a listener, which offers this protocol.
async fn session(folder: &TempDir, address: SocketAddr, protocol: Option<&str>) -> TlsStream<TcpStream> {
    try_session(folder, address, "localhost", protocol).await.unwrap()
}

/// A TLS session with a listener under this name, by a client that trusts the authority in `folder`.
async fn try_session(
    folder: &TempDir,
    address: SocketAddr,
    name: &str,
    protocol: Option<&str>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.path().join("root.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocol.into_iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn a_gateway_with_a_certificate_serves_each_form_itself() {
    let folder = folder();
    let gateway = encrypted(&folder).await;
    for form in Form::ALL {
        let (client, told) = trusting(&folder, &gateway, only(form));
        carries_all_messages(&client, form, &told).await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_open_connections_stay() {
    let folder = folder();
    let gateway = encrypted(&folder).await;
    let (before, told) = trusting(&folder, &gateway, only(Form::Sse));
    publish(&before.producer("s", "application/json"), 0..1).await;
    let mut subscription = before.subscribe(["s"], Start::earliest());
    expect(&mut subscription, 0..1).await;
    issue(folder.path(), "IP:127.0.0.1");
    until("the new certificate is served", async || {
        let (after, _) = trusting(&folder, &gateway, settings());
        after.producer("other", "application/json").publish("1").await.is_ok()
    })
    .await;
    let (after, _) = trusting(&folder, &gateway, settings());
    publish(&after.producer("s", "application/json"), 1..2).await;
    expect(&mut subscription, 1..2).await;
    assert_eq!(told.changes(), [(Form::Sse, Reason::Start)], "{:?}", told.all());
}

/// A removed key has to stop working also while the certificate cannot be read.
#[tokio::test]
async fn changed_keys_are_read_although_the_certificate_is_broken() {
    let folder = folder();
    issue(folder.path(), "DNS:localhost");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pollgate = |arguments: &[&str]| {
        let made = Command::new(env!("CARGO_BIN_EXE_pollgate")).args(arguments).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    pollgate(&["keygen", &path("auth")]);
    let token = pollgate(&["token", "--key-file", &path("auth"), "--read", "s"]);
    let (certificate, key, auth) = (path("certificate.pem"), path("key.pem"), path("auth"));
    let gateway =
        Gateway::start(&["--tls-certificate", &certificate, "--tls-key", &key, "--auth", &auth]).await;
    let status = async || {
        let mut session = session(&folder, gateway.address, None).await;
        let request =
            format!("GET /v1/stream/s HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
        session.write_all(request.as_bytes()).await.unwrap();
        let mut line = vec![0; 12];
        timeout(PATIENCE, session.read_exact(&mut line)).await.unwrap().unwrap();
        String::from_utf8(line).unwrap()
    };
    assert_eq!(status().await, "HTTP/1.1 404", "allowed, and missing");
    std::fs::write(&certificate, "broken").unwrap();
    until("the broken certificate is noticed", async || gateway.log().contains("stay in use")).await;
    std::fs::remove_file(&auth).unwrap();
    pollgate(&["keygen", &auth]);
    until("the old key is refused", async || status().await == "HTTP/1.1 401").await;
}

#[tokio::test]
async fn large_bodies_pass_tls_whole_and_pipelined_requests_are_answered() {
    let folder = folder();
    let gateway = encrypted(&folder).await;
    let mut session = session(&folder, gateway.address, Some("http/1.1")).await;
    assert_eq!(session.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let body: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let head = format!(
        "PUT /v1/stream/b HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    session.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    // The body of a request that has no use for one is skipped.
    let delete = "DELETE /v1/stream/none HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello";
    session.write_all(delete.as_bytes()).await.unwrap();
    let get = "GET /v1/stream/b?offset=-1 HTTP/1.1\r\nhost: localhost\r\n";
    session.write_all(format!("{get}\r\n{get}connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, session.read_to_end(&mut received)).await.unwrap().unwrap();
    let times = received.windows(body.len()).filter(|window| *window == body).count();
    let head = String::from_utf8_lossy(&received[..received.len().min(800)]);
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    assert!(head.to_lowercase().contains("\r\nlocation: https://localhost/v1/stream/b\r\n"), "{head}");
    assert_eq!(times, 2);
}

#[tokio::test]
async fn a_client_that_ends_its_session_frees_its_held_poll() {
    let folder = folder();
    let gateway = encrypted(&folder).await;
    let (client, _) = trusting(&folder, &gateway, settings());
    publish(&client.producer("s", "application/json"), 0..1).await;
    let poll = "GET /v1/stream/s?offset=now&live=long-poll&timeout=55 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // One ends TLS, one only TCP, and one has sent something behind its request.
    for (ending, behind) in [("tls", ""), ("tcp", ""), ("tls", "G")] {
        let mut session = session(&folder, gateway.address, None).await;
        session.write_all(format!("{poll}{behind}").as_bytes()).await.unwrap();
        gateway.until_held(1).await;
        match ending {
            "tls" => session.shutdown().await.unwrap(),
            _ => drop(session),
        }
        timeout(Duration::from_secs(30), gateway.until_held(0))
            .await
            .expect("long before its hold time is over");
    }
    // An idle client that ends TLS is told the end of TLS too: no error.
    let mut idle = session(&folder, gateway.address, None).await;
    idle.write_all(poll.replace("&live=long-poll&timeout=55", "").as_bytes()).await.unwrap();
    timeout(PATIENCE, idle.read_exact(&mut [0; 15])).await.unwrap().unwrap();
    idle.shutdown().await.unwrap();
    timeout(PATIENCE, idle.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    let mut session = session(&folder, gateway.address, None).await;
    session.write_all(poll.as_bytes()).await.unwrap();
    gateway.until_held(1).await;
    publish(&client.producer("s", "application/json"), 1..2).await;
    let mut received = vec![0; 15];
    timeout(PATIENCE, session.read_exact(&mut received)).await.unwrap().unwrap();
    assert_eq!(received, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn the_mqtt_listener_speaks_tls_and_plain_bytes_are_refused() {
    let folder = folder();
    let gateway = encrypted(&folder).await;
    let mut session = session(&folder, gateway.mqtt, None).await;
    session.write_all(&Hello::new("a").bytes()).await.unwrap();
    let mut received = [0; 4];
    timeout(PATIENCE, session.read_exact(&mut received)).await.unwrap().unwrap();
    assert_eq!((received[0], received[3]), (0x20, 0), "CONNACK, accepted");
    let mut plain = TcpStream::connect(gateway.address).await.unwrap();
    plain.write_all(b"GET /v1/stream/s HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, plain.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(!received.starts_with(b"HTTP"), "an alert, or nothing");
}
