//! Proxies in front of the gateway, which forward the addresses of their clients.

use crate::authorization::Protected;
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Gateway, PATIENCE, WebSocket, get, handshake, put, until};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header of the PROXY protocol for a client at 192.0.2.`host`.
fn header(host: u8) -> Vec<u8> {
    let addresses = [192, 0, 2, host, 127, 0, 0, 1, 0x30, 0x39, 0x11, 0x55];
    [SIGNATURE, &[0x21, 0x11, 0, 12], &addresses].concat()
}

const CREATE: &[u8] =
    b"PUT /v1/stream/s HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_tells_the_address_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let arguments =
        ["--behind-proxy", "127.0.0.1", "--proxy-protocol", "--access-log", log.to_str().unwrap()];
    let mut gateway = Gateway::start(&arguments).await;
    let mut proxied = gateway.connect_raw().await;
    // The header arrives in two pieces, followed by two requests on the connection.
    let first = header(7);
    let second = [&first[5..], CREATE].concat();
    proxied.send(&first[..5]).await.unwrap();
    proxied.send(&second).await.unwrap();
    let created = proxied.whole_answer().await.unwrap().expect(201);
    // The proxy speaks TLS to clients.
    assert_eq!(created.header("location"), "https://localhost/v1/stream/s");
    proxied.get("/v1/stream/s?offset=-1").await.unwrap();
    assert_eq!(proxied.whole_answer().await.unwrap().status, 200);

    // A client that bypasses the proxy is not served.
    for begin in [CREATE, b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n" as &[u8]] {
        let mut direct = gateway.connect_raw().await;
        direct.send(begin).await.unwrap();
        direct.closed().await;
    }
    drop(proxied);
    gateway.signal("TERM");
    assert!(gateway.ended(PATIENCE).await.success());

    let lines = std::fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.lines().all(|line| line.contains("192.0.2.7:12345")), "{lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheme_of_a_location_is_that_of_a_proxy_and_of_nobody_else() {
    let fields = [
        ("x-forwarded-proto", "https", "https"),
        ("x-forwarded-proto", "HTTPS", "https"),
        ("x-forwarded-proto", "https, http", "https"),
        ("x-forwarded-proto", "http,https", "http"),
        ("forwarded", "for=192.0.2.7;Proto=\"https\", proto=http", "https"),
        ("forwarded", "proto=http", "http"),
        ("x-forwarded-host", "other.example", "https"),
    ];
    for (arguments, is_proxy) in [
        (&["--behind-proxy", "127.0.0.1"][..], true),
        (&["--behind-proxy", "192.0.2.1", "--access-log", "/dev/null"], false),
    ] {
        let gateway = Gateway::start(arguments).await;
        for (number, (name, value, scheme)) in fields.iter().enumerate() {
            let create = put(format!("/v1/stream/{number}")).header(name, *value).json("");
            let created = gateway.send(create).await.expect(201);
            // Behind any proxy, clients are taken to use TLS.
            let scheme = if is_proxy { *scheme } else { "https" };
            let location = created.header("location");
            assert!(location.starts_with(&format!("{scheme}://")), "{name}: {value}: {location}");
            assert!(!location.contains("other.example"));
        }
    }
    let gateway = Gateway::start(&[]).await;
    let create = put("/v1/stream/s").header("x-forwarded-proto", "https").json("");
    assert!(gateway.send(create).await.expect(201).header("location").starts_with("http://"));
}

/// Sends requests of every kind through a proxy at loopback that appends `203.0.113.HOST`, and returns the lines of the access log.
async fn logged_behind(proxies: &str) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let mut gateway =
        Gateway::start(&["--behind-proxy", proxies, "--access-log", log.to_str().unwrap()]).await;
    let mut connection = gateway.connect().await;
    // The client itself claims to be 6.6.6.6.
    let by = |request: crate::world::Request, host: &str| {
        request.header("x-forwarded-for", format!("6.6.6.6, 203.0.113.{host}"))
    };
    connection.send(by(put("/v1/stream/s").text("a"), "1")).await.expect(201);
    connection.send(by(get("/v1/stream/s?offset=-1"), "2")).await.expect(200);
    let forwarded = get("/v1/stream/s?offset=-1").header("forwarded", "for=203.0.113.3;proto=https");
    connection.send(forwarded).await.expect(200);
    connection.send(get("/v1/stream/s?offset=-1").header("x-forwarded-for", "unknown")).await.expect(200);
    gateway.signal("TERM");
    assert!(gateway.ended(PATIENCE).await.success());
    let lines = std::fs::read_to_string(&log).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_for_http_tells_the_client_of_each_request() {
    let lines = logged_behind("127.0.0.0/8").await;
    let addresses: Vec<_> = lines.iter().map(|line| line["address"].as_str().unwrap()).collect();
    assert_eq!(addresses[..3], ["203.0.113.1", "203.0.113.2", "203.0.113.3"]);
    assert!(addresses[3].starts_with("127.0.0.1:"), "what is no address: {addresses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_cannot_tell_another_address() {
    let lines = logged_behind("10.0.0.0/8").await;
    assert_eq!(lines.len(), 4);
    assert!(
        lines.iter().all(|line| line["address"].as_str().unwrap().starts_with("127.0.0.1:")),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_behind_a_proxy_has_its_own_share() {
    let limits = ["--limit", "appends_per_second_max=1", "--limit", "failed_logins_max=1"];
    let arguments = [&["--behind-proxy", "127.0.0.1"], &limits[..]].concat();
    let world = Protected::start_with("public = ['open/#']", &arguments, &[]).await;
    let forged = |host: u8| {
        get("/v1/stream/news")
            .header("authorization", "Bearer a.b.c")
            .header("x-forwarded-for", format!("192.0.2.{host}"))
    };
    let mut connection = world.gateway.connect().await;
    connection.send(forged(1)).await.expect(401);
    let refused = connection.send(forged(1)).await.expect(429);
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert!(refused.text().contains("too-many-failed-logins"), "{}", refused.text());
    connection.send(forged(2)).await.expect(401);

    // The same applies to WebSocket frames: the first one has the token.
    let head = handshake("/v1/stream/news?offset=-1&live=websocket") + "x-forwarded-for: 192.0.2.1\r\n";
    let mut socket = WebSocket::open_with(world.gateway.connect_raw().await, head).await.unwrap();
    socket.send_text(r#"{"auth":"a.b.d"}"#).await;
    let closed = socket.closed().await;
    assert_eq!(closed.0, 4401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_tokens_make_unknown_ones_of_their_address_wait() {
    let limits = ["failed_logins_max=2", "failed_login_delay=2s", "failed_login_delay_max=2s"];
    let limits: Vec<_> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
    let world = Protected::start_with("", &limits, &[]).await;
    let [used, new] = ["used", "new"].map(|name| world.token(&["--read", "news", "--subject", name]));
    world.send(Some(&used), get("/v1/stream/news")).await.expect(200);
    for forged in ["a.b.1", "a.b.2"] {
        world.send(Some(forged), get("/v1/stream/news")).await.expect(401);
    }
    let refused = world.send(Some(&new), get("/v1/stream/news")).await.expect(429);
    assert!(["1", "2"].contains(&refused.header("retry-after")), "{}", refused.header("retry-after"));
    world.send(Some(&used), get("/v1/stream/news")).await.expect(200);
    world.send(Some(&used), put("/v1/stream/other").text("")).await.expect(403);
    for (version, code) in [(4, 3), (5, 0x9f)] {
        let hello = Hello { version, password: Some("a.b.3".to_owned()), ..Hello::new("client") };
        let mut client = Mqtt::open(world.gateway.mqtt, version).await;
        client.send(&hello.bytes()).await;
        let connack = client.receive().await;
        assert!(matches!(&connack, Some(Packet::Connack { code: told, .. }) if *told == code), "{connack:?}");
    }
    until("the delay is over", async || {
        world.send(Some(&new), get("/v1/stream/news")).await.status.as_u16() == 200
    })
    .await;
}
