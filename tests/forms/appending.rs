//! Appends by WebSocket: each frame of the client is an append, and is answered in order.

use serde_json::json;

use crate::world::{Gateway, Kind, Publisher, WebSocket, post};

async fn socket(publisher: &Publisher) -> WebSocket {
    let target = format!("{}?live=websocket&offset=now", publisher.place.path);
    let mut socket = WebSocket::open(publisher.place.address, &target).await.unwrap();
    assert_eq!(socket.json().await.unwrap()["data"], json!([]));
    socket
}

/// Returns the next response to a frame, and skips envelopes.
async fn answer(socket: &mut WebSocket) -> serde_json::Value {
    loop {
        let json = socket.json().await.unwrap();
        if json.get("data").is_none() {
            return json;
        }
    }
}

#[tokio::test]
async fn a_hundred_frames_are_answered_in_their_order_with_the_offset_behind_each() {
    let gateway = Gateway::start(&[]).await;
    for kind in Kind::ALL {
        let publisher = Publisher::create(&gateway, &format!("{kind:?}"), kind).await;
        let mut socket = socket(&publisher).await;
        for n in 100..200 {
            match kind {
                Kind::Binary => socket.send_binary(vec![n; 7]).await,
                Kind::Json | Kind::Text => socket.send_text(format!("[{n},[1]]")).await,
            }
        }
        let positions = match kind {
            Kind::Json => 2,
            Kind::Text => 9,
            Kind::Binary => 7,
        };
        for n in 1..=100 {
            let appended = answer(&mut socket).await["appended"].as_str().expect("an offset").to_owned();
            assert!(appended.ends_with(&format!("_{:016x}", n * positions)), "{kind:?} {n}: {appended}");
        }
    }
}

#[tokio::test]
async fn a_frame_that_cannot_be_appended_is_answered_and_the_socket_stays() {
    let gateway = Gateway::start(&[]).await;
    for kind in Kind::ALL {
        let publisher = Publisher::create(&gateway, &format!("{kind:?}"), kind).await;
        let mut socket = socket(&publisher).await;
        let right: &[u8] = b"\"right\"";
        match kind {
            Kind::Binary => {
                socket.send_text("\"wrong\"").await;
                socket.send_binary(right).await;
            }
            Kind::Json | Kind::Text => {
                socket.send_binary(&b"\"wrong\""[..]).await;
                socket.send_text("\"right\"").await;
            }
        }
        let error = answer(&mut socket).await;
        assert_eq!(
            (&error["error"]["type"], &error["error"]["status"]),
            (&json!("urn:pollgate:frame-type"), &json!(400)),
            "{kind:?}"
        );
        assert!(answer(&mut socket).await["appended"].is_string(), "{kind:?}");
        let log = gateway.send(crate::world::get(&publisher.place.path)).await.expect(200);
        assert_eq!(kind.log(&log.body), kind.log(right));
    }
}

#[tokio::test]
async fn what_a_post_would_be_refused_for_a_frame_is_too() {
    let gateway = Gateway::start(&[]).await;
    let publisher = Publisher::create(&gateway, "s", Kind::Json).await;
    let mut socket = socket(&publisher).await;
    let deep = "[".repeat(100) + &"]".repeat(100);
    for body in ["", "{\"a\":", "[]", &deep] {
        let refusal = gateway.send(post(&publisher.place.path).json(body)).await;
        socket.send_text(body).await;
        let error = answer(&mut socket).await;
        assert_eq!(error["error"], refusal.json(), "{body:?}");
    }
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_is_appended() {
    let gateway = Gateway::start(&[]).await;
    let publisher = Publisher::create(&gateway, "s", Kind::Binary).await;
    let mut socket = socket(&publisher).await;
    socket.send_binary(vec![7; 1024 * 1024]).await;
    let appended = answer(&mut socket).await["appended"].as_str().expect("an offset").to_owned();
    assert!(appended.ends_with("_0000000000100000"), "{appended}");
}
