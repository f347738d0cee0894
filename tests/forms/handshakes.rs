//! WebSocket handshakes: only valid ones are accepted, and only from pages of allowed origins.

use crate::world::{Answer, Gateway, get, handshake, put};

const TARGET: &str = "/v1/stream/s?live=websocket&offset=-1";

async fn gateway(arguments: &[&str]) -> Gateway {
    let gateway = Gateway::start(arguments).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    gateway
}

/// Returns the response to a handshake in which `from` is replaced by `to`.
async fn answer(gateway: &Gateway, from: &str, to: &str) -> Answer {
    let handshake = handshake(TARGET) + "\r\n";
    assert!(handshake.contains(from));
    let mut raw = gateway.connect_raw().await;
    raw.send(handshake.replacen(from, to, 1)).await.unwrap();
    raw.answer().await.unwrap().expect("an answer")
}

#[tokio::test]
async fn a_request_without_a_handshake_of_version_13_is_told_what_it_needs() {
    let gateway = gateway(&[]).await;
    let plain = gateway.send(get(TARGET)).await;
    let mut refused = vec![plain];
    for (from, to) in [
        ("upgrade: websocket\r\n", ""),
        ("upgrade: websocket", "upgrade: h2c"),
        ("connection: Upgrade\r\n", ""),
        ("connection: Upgrade", "connection: keep-alive"),
        ("sec-websocket-version: 13\r\n", ""),
        ("sec-websocket-version: 13", "sec-websocket-version: 12"),
    ] {
        refused.push(answer(&gateway, from, to).await);
    }
    for answer in refused {
        let answer = answer.expect(426);
        assert_eq!(answer.problem(), "upgrade-required");
        assert_eq!((answer.header("upgrade"), answer.header("connection")), ("websocket", "upgrade"));
        assert_eq!(answer.header("sec-websocket-version"), "13");
    }
}

#[tokio::test]
async fn a_key_that_is_not_16_bytes_is_refused() {
    let gateway = gateway(&[]).await;
    for key in ["", "sec-websocket-key: \r\n", "sec-websocket-key: eA==\r\n", "sec-websocket-key: ?\r\n"] {
        let refused =
            answer(&gateway, "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", key).await.expect(400);
        assert_eq!(refused.problem(), "malformed", "{key:?}");
        assert!(
            refused.text().contains("sec-websocket-key must be 16 bytes in base64"),
            "{}",
            refused.text()
        );
    }
}

#[tokio::test]
async fn a_handshake_is_understood_in_any_case_and_among_other_tokens() {
    let gateway = gateway(&[]).await;
    for (from, to) in [
        ("upgrade: websocket", "Upgrade: WebSocket"),
        ("upgrade: websocket", "upgrade: h2c, websocket"),
        ("connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("connection: Upgrade", "connection: keep-alive\r\nconnection: upgrade"),
    ] {
        answer(&gateway, from, to).await.expect(101);
    }
}

#[tokio::test]
async fn pages_of_other_origins_need_to_be_allowed() {
    let (closed, open) = (gateway(&[]).await, gateway(&["--origin", "https://app.example"]).await);
    for (origin, status_closed, status_open) in [
        ("http://localhost", 101, 101),
        ("https://app.example", 403, 101),
        ("https://app.example.evil.example", 403, 403),
        ("http://localhost:81", 403, 403),
        ("null", 403, 403),
    ] {
        for (gateway, status) in [(&closed, status_closed), (&open, status_open)] {
            let origin = format!("host: localhost\r\norigin: {origin}");
            let answer = answer(gateway, "host: localhost", &origin).await.expect(status);
            assert!(status == 101 || answer.problem() == "origin", "{origin}");
        }
    }
    let any = gateway(&["--origin", "*"]).await;
    answer(&any, "host: localhost", "host: localhost\r\norigin: null").await.expect(101);
}
