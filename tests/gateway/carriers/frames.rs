//! Tokens in frames of a WebSocket: the first one, and later ones that renew the rights.

use serde_json::{Value, json};

use super::{bearer, socket};
use crate::authorization::Protected;
use crate::world::{Gateway, WebSocket, get, put};

/// Returns the next frame that is not an envelope.
async fn reply(socket: &mut WebSocket) -> Value {
    loop {
        let frame = socket.json().await.unwrap();
        if frame["streamNextOffset"].is_null() && frame["batches"].is_null() {
            return frame;
        }
    }
}

#[tokio::test]
async fn the_first_frame_of_a_websocket_may_bring_the_token() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news", "--append", "news", "--expires", "1h"]);
    let auth = json!({"auth": token}).to_string();
    for target in [
        "/v1/stream/news?offset=-1&live=websocket",
        "/v1/streams?stream=news&stream=inner&from=earliest&live=websocket",
        "/v1/streams?live=websocket",
    ] {
        let mut socket = WebSocket::open(world.gateway.address, target).await.unwrap();
        socket.send_text(&auth).await;
        let accepted = socket.json().await.unwrap();
        assert!((3500..=3600).contains(&accepted["authorized"]["expiresIn"].as_u64().unwrap()), "{accepted}");
        if !target.contains("stream=") && target.contains("streams") {
            socket.send_text(json!({"stream": ["news", "inner"], "from": "earliest"}).to_string()).await;
        }
        let first = socket.json().await.unwrap();
        let batches = first["batches"].as_array();
        assert_eq!(batches.map_or(&first, |batches| &batches[0])["data"], json!([1]), "{first}");
        assert!(batches.is_none_or(|batches| batches[1]["forbidden"] == true), "{first}");
    }
    // Frames before the token are not appended, not even one that was sent together with the handshake.
    let mut socket =
        WebSocket::open(world.gateway.address, "/v1/stream/news?offset=-1&live=websocket").await.unwrap();
    socket.send_text("[2]").await;
    assert_eq!(socket.json().await.unwrap()["error"]["status"], 401);
    assert_eq!(socket.closed().await.0, 4401);
    let read = world.send(Some(&token), get("/v1/stream/news")).await.expect(200);
    assert_eq!(read.json(), json!([1]));
}

#[tokio::test]
async fn a_websocket_without_a_valid_token_is_closed_in_time() {
    let world = Protected::start_with("", &["--limit", "websocket_auth_timeout=1s"], &[]).await;
    let target = "/v1/stream/news?offset=-1&live=websocket";
    let mut silent = WebSocket::open(world.gateway.address, target).await.unwrap();
    assert_eq!(silent.closed().await.0, 4401);
    for text in
        [r#"{"auth":"wrong"}"#.to_owned(), json!({"auth": world.token(&["--read", "other"])}).to_string()]
    {
        let mut socket = WebSocket::open(world.gateway.address, target).await.unwrap();
        socket.send_text(&text).await;
        let refused = reply(&mut socket).await;
        let (status, code) = if text.contains("wrong") { (401, 4401) } else { (0, 0) };
        if status == 0 {
            // The token is valid, but does not grant the stream.
            assert_eq!(reply(&mut socket).await["error"]["status"], 403);
            assert_eq!(socket.closed().await.0, 1008);
        } else {
            assert_eq!((&refused["error"]["status"], socket.closed().await.0), (&json!(status), code));
        }
    }
    let mut large = WebSocket::open(world.gateway.address, target).await.unwrap();
    large.send_text("x".repeat(17 * 1024)).await;
    assert_eq!(large.closed().await.0, 1009);
}

#[tokio::test]
async fn a_websocket_ends_with_its_token_unless_a_later_frame_renews_it() {
    let world = Protected::start("").await;
    let token = |rights: &[&str]| world.token(&[&["--read", "news", "--subject", "a"], rights].concat());
    let target = "/v1/stream/news?offset=-1&live=websocket";
    let short = token(&["--expires", "6s"]);
    let open = async || socket(&world, target, &bearer(&short)).await.unwrap();
    let (mut left_alone, mut renewed) = (open().await, open().await);
    renewed.send_text(json!({"auth": token(&["--append", "news"])}).to_string()).await;
    assert!(reply(&mut renewed).await["authorized"]["expiresIn"].as_u64().unwrap() > 60);
    assert_eq!(left_alone.closed().await.0, 4401);
    // The new token grants appends; the first one did not.
    renewed.send_text("2").await;
    assert!(reply(&mut renewed).await["appended"].is_string());
    // An object with other fields is a message.
    renewed.send_text(r#"{"auth":"x","n":1}"#).await;
    assert!(reply(&mut renewed).await["appended"].is_string());
    for refused in [
        "wrong".to_owned(),
        world.token(&["--read", "news", "--subject", "b"]),
        world.token(&["--read", "other", "--subject", "a"]),
    ] {
        let mut socket = socket(&world, target, &bearer(&token(&[]))).await.unwrap();
        socket.send_text(json!({"auth": refused}).to_string()).await;
        assert!(reply(&mut socket).await["error"].is_object());
        assert_eq!(socket.closed().await.0, 4401);
    }
}

#[tokio::test]
async fn a_public_websocket_opens_without_a_token_and_may_get_one_later() {
    let world = Protected::start("public = ['news']\n").await;
    let mut socket =
        WebSocket::open(world.gateway.address, "/v1/stream/news?offset=-1&live=websocket").await.unwrap();
    assert_eq!(socket.json().await.unwrap()["data"], json!([1]));
    socket.send_text("2").await;
    assert_eq!(reply(&mut socket).await["error"]["status"], 401);
    socket.send_text(json!({"auth": world.token(&["--append", "news"])}).to_string()).await;
    reply(&mut socket).await;
    socket.send_text("2").await;
    assert!(reply(&mut socket).await["appended"].is_string());
}

/// Without authorization, a token frame on a single stream is an ordinary message; on many streams it is ignored.
#[tokio::test]
async fn a_gateway_that_checks_no_tokens_ignores_them() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/news").json("[1]")).await.expect(201);
    let mut one =
        WebSocket::open(gateway.address, "/v1/stream/news?offset=now&live=websocket").await.unwrap();
    one.send_text(r#"{"auth":"x"}"#).await;
    assert!(reply(&mut one).await["appended"].is_string());
    let mut many = WebSocket::open(gateway.address, "/v1/streams?stream=news&live=websocket").await.unwrap();
    many.send_text(r#"{"auth":"x"}"#).await;
    many.send_text("1").await;
    assert_eq!(reply(&mut many).await["error"]["status"], 405);
    let mut later = WebSocket::open(gateway.address, "/v1/streams?live=websocket").await.unwrap();
    later.send_text(r#"{"auth":"x"}"#).await;
    later.send_text(r#"{"stream":["news"]}"#).await;
    assert!(later.json().await.unwrap()["batches"].is_array());
}
