//! WebSockets over many streams: how they receive the list of streams, and which frames are refused.

use serde_json::json;

use super::ask::{Ask, Envelope};
use super::reader::Reader;
use crate::world::{Close, Form, Gateway, WebSocket, post, put};

const BARE: &str = "/v1/streams?live=websocket";

#[tokio::test]
async fn the_query_may_name_the_streams() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/a+b").json("[1]")).await.expect(201);
    let target = format!("{BARE}&stream=a%2Bb&stream=none&from=earliest");
    let mut socket = WebSocket::open(gateway.address, &target).await.unwrap();
    let mut envelope = Envelope::parse(&socket.text().await.unwrap());
    envelope.batches.sort_by(|one, other| one.stream.cmp(&other.stream));
    assert_eq!(envelope.streams(), ["a+b", "none"]);
    assert!(envelope.resume.is_some());
    // An invalid query is refused while a status can still be sent.
    for query in ["&stream=", "&stream=a&stream=a", "&stream=a&resume=x", "&stream=a&from=now"] {
        let answer = WebSocket::open(gateway.address, &format!("{BARE}{query}")).await.err().unwrap();
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[tokio::test]
async fn frames_after_the_request_are_refused_and_reading_continues() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let mut reader = Reader::open(&gateway, Form::WebSocket, Ask::of(["s"])).await;
    reader.next().await.unwrap();
    reader.socket().send_text("{\"n\":1}").await;
    let refused = reader.socket().json().await.unwrap();
    assert_eq!(refused["error"]["type"], "urn:pollgate:read-only");
    reader.socket().send_binary(vec![0]).await;
    assert_eq!(reader.socket().json().await.unwrap()["error"]["status"], 405);
    gateway.send(post("/v1/stream/s").json("2")).await.expect(204);
    assert_eq!(reader.news().await.batches[0].data, [json!(2)]);
}

#[tokio::test]
async fn an_invalid_first_frame_is_refused_and_the_socket_closed() {
    let gateway = Gateway::start(&[]).await;
    let too_many = Ask::of((0..1001).map(|n| n.to_string())).json();
    let deep = "[".repeat(100_000);
    for (frame, kind) in [
        ("", "json"),
        ("[]", "json"),
        (r#"{"stream":[]}"#, "malformed"),
        (r#"{"stream":["a"],"resume":"?"}"#, "resume"),
        (r#"{"stream":[".."]}"#, "stream-name"),
        (&too_many, "too-many-streams"),
        (&deep, "json-depth"),
    ] {
        let mut socket = WebSocket::open(gateway.address, BARE).await.unwrap();
        socket.send_text(frame).await;
        let refused = socket.json().await.unwrap();
        assert_eq!(refused["error"]["type"], format!("urn:pollgate:{kind}"));
        assert_eq!(socket.closed().await, Close(1008, "refused".into()));
    }
}

#[tokio::test]
async fn a_client_without_a_first_frame_is_closed_in_time() {
    let gateway = Gateway::start(&["--limit", "first_byte_timeout=300ms"]).await;
    let mut socket = WebSocket::open(gateway.address, BARE).await.unwrap();
    assert_eq!(socket.closed().await, Close(1008, "no request in time".into()));
    assert_eq!(gateway.metric("pollgate_live_connections{form=\"websocket\"}").await, 0.0);
}
