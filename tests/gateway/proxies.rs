//! Proxies in front of the gateway, which tell the addresses of their clients.

use crate::world::{Gateway, PATIENCE};

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
    // In two pieces, and then two requests on one connection.
    let first = header(7);
    let second = [&first[5..], CREATE].concat();
    proxied.send(&first[..5]).await.unwrap();
    proxied.send(&second).await.unwrap();
    let created = proxied.whole_answer().await.unwrap().expect(201);
    // The proxy speaks TLS to clients.
    assert_eq!(created.header("location"), "https://localhost/v1/stream/s");
    proxied.get("/v1/stream/s?offset=-1").await.unwrap();
    assert_eq!(proxied.whole_answer().await.unwrap().status, 200);

    // A client that passes by the proxy is not served.
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
