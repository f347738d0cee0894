//! `https://` and `wss://` through nginx, with a certificate of the test's own authority.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pollgate_client::{Client, Event, Form, Item, PublishError, Reason, Settings, Start};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::timeout;

use crate::reading::{Told, builder, expect, next, only, publish, settings};
use crate::relay::{Relay, Rule};
use crate::world::{Gateway, until};

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

#[tokio::test]
async fn each_form_reads_and_publishes_over_tls() {
    let gateway = Gateway::start(&[]).await;
    let proxy = Proxy::start(gateway.address, "DNS:localhost,IP:127.0.0.1").await;
    for form in Form::ALL {
        let (client, told) = proxy.client(proxy.address, only(form));
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
