//! The lifetime of a WebSocket: longer than the timeouts of HTTP, also over HTTP/2, and with a last offset at its end.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::ext::Protocol;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::world::{Close, Gateway, Kind, PATIENCE, Publisher, Stopwatch, WebSocket};

const SHORT: [&str; 6] =
    ["--limit", "first_byte_timeout=200ms", "--limit", "head_timeout=200ms", "--limit", "idle_timeout=200ms"];

async fn socket(publisher: &Publisher) -> WebSocket {
    let target = format!("{}?live=websocket&offset=-1", publisher.place.path);
    WebSocket::open(publisher.place.address, &target).await.unwrap()
}

#[tokio::test]
async fn an_idle_socket_lives_longer_than_an_idle_connection_may() {
    for further in [&[][..], &["--limit", "websocket_ping=100ms", "--limit", "websocket_pong_timeout=100ms"]]
    {
        let gateway = Gateway::start(&[&SHORT[..], further].concat()).await;
        let publisher = Publisher::create(&gateway, "s", Kind::Json).await;
        let mut socket = socket(&publisher).await;
        socket.json().await.unwrap();
        // 1. For several times as long as the timeouts of HTTP, only pings are sent, and the client sends nothing.
        let silence = tokio::spawn(async move { (socket.json().await, socket) });
        sleep(Duration::from_secs(1)).await;
        assert!(!silence.is_finished());
        // 2. The connection of the publisher has timed out meanwhile; another one publishes.
        let append = crate::world::post(&publisher.place.path).json("{\"n\":1}");
        gateway.send(append).await.expect(204);
        let (envelope, mut socket) = silence.await.unwrap();
        assert_eq!(envelope.unwrap()["data"], json!([{"n": 1}]));
        // 3. The client appends.
        socket.send_text("2").await;
        let (one, other) = (socket.json().await.unwrap(), socket.json().await.unwrap());
        assert!(one.get("appended").or(other.get("appended")).is_some(), "{one} {other}");
    }
}

#[tokio::test]
async fn after_each_message_that_it_was_sent_a_socket_still_hears_its_client() {
    // No ping is due in between, after which the client would be heard again.
    let gateway = Gateway::start(&["--limit", "websocket_ping=1h"]).await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Json).await;
    let mut socket = socket(&publisher).await;
    socket.json().await.unwrap();
    for n in 0..3 {
        gateway.until_waiting(1).await;
        publisher.append(format!("{n}")).await;
        assert_eq!(socket.json().await.unwrap()["data"], json!([n]));
        socket.send_text("\"of the socket\"").await;
        let (one, other) = (socket.json().await.unwrap(), socket.json().await.unwrap());
        assert!(one.get("appended").or(other.get("appended")).is_some(), "{one} {other}");
    }
}

#[tokio::test]
async fn a_gateway_that_drains_sends_the_offset_and_closes_with_1001() {
    let mut gateway = Gateway::start(&["--limit", "drain_spread=300ms"]).await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Json).await;
    let tail = publisher.append("1").await;
    let mut socket = socket(&publisher).await;
    assert_eq!(socket.json().await.unwrap()["data"], json!([1]));
    gateway.until_waiting(1).await;
    gateway.signal("TERM");
    let last = socket.json().await.unwrap();
    assert_eq!((&last["data"], &last["streamNextOffset"]), (&json!([]), &json!(tail)));
    assert_eq!(socket.closed().await, Close(1001, "draining".into()));
    // The client closes its side, too; otherwise the gateway lingers.
    drop(socket);
    let since = Stopwatch::start();
    assert!(gateway.ended(PATIENCE).await.success());
    assert!(since.took().is_below(Duration::from_secs(2)), "{:?}", since.took());
}

/// Sends a request on an HTTP/2 connection; with a protocol it is an extended CONNECT (RFC 8441).
async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    url: &str,
    protocol: Option<&'static str>,
) -> Response<hyper::body::Incoming> {
    let method = if protocol.is_some() { Method::CONNECT } else { Method::GET };
    let request = Request::builder().method(method).uri(url).header("sec-websocket-version", "13");
    let mut request = request.body(Empty::new()).unwrap();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn sockets_share_a_connection_of_http2() {
    let gateway = Gateway::start(&SHORT).await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Json).await;
    publisher.append("[1,2]").await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { connection.await.expect("the connection ends in good order") });
    let url = |query: &str| format!("http://{}{query}", gateway.address);
    let target = format!("{}?live=websocket&offset=-1", publisher.place.path);
    // 1. Neither a GET nor another protocol opens a WebSocket here. The client learns from the first
    //    answer that extended CONNECT is known.
    let refused = ask(&mut sender, &url(&target), None).await;
    assert_eq!(refused.status(), 400);
    assert!(!refused.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert_eq!(ask(&mut sender, &url(&target), Some("connect-udp")).await.status(), 501);
    let no_live = ask(&mut sender, &url(&publisher.place.path), Some("websocket")).await;
    assert_eq!(no_live.status(), 400);
    assert_eq!(ask(&mut sender, &url("/v1/streams?stream=s"), Some("websocket")).await.status(), 400);
    // 2. Two sockets on the one connection, idle for longer than it may be.
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let accepted = ask(&mut sender, &url(&target), Some("websocket")).await;
        assert_eq!(accepted.status(), 200);
        let mut socket = WebSocket::over(TokioIo::new(hyper::upgrade::on(accepted).await.unwrap()));
        assert_eq!(socket.json().await.unwrap()["data"], json!([1, 2]));
        sockets.push(socket);
    }
    let many = "/v1/streams?stream=s&from=earliest&live=websocket";
    let accepted = ask(&mut sender, &url(many), Some("websocket")).await;
    let mut many = WebSocket::over(TokioIo::new(hyper::upgrade::on(accepted).await.unwrap()));
    assert_eq!(many.json().await.unwrap()["batches"][0]["data"], json!([1, 2]));
    sleep(Duration::from_secs(1)).await;
    // 3. Both receive what one of them appends.
    sockets[0].send_text("3").await;
    let (one, other) = (sockets[0].json().await.unwrap(), sockets[0].json().await.unwrap());
    assert!(one.get("appended").or(other.get("appended")).is_some(), "{one} {other}");
    assert_eq!(sockets[1].json().await.unwrap()["data"], json!([3]));
    // 4. Each is closed separately, with its own code.
    sockets[0].write([0x81, 1, b'x']).await.unwrap();
    let Err(Close(code, _)) = sockets[0].text().await else { panic!("a breach was not closed") };
    assert_eq!(code, 1002);
    let append = crate::world::post(&publisher.place.path).json("4");
    gateway.send(append).await.expect(204);
    assert_eq!(sockets[1].json().await.unwrap()["data"], json!([4]));
    gateway.send(crate::world::delete(&publisher.place.path)).await.expect(204);
    assert_eq!(sockets[1].closed().await.0, 1000);
}

#[tokio::test]
async fn pings_come_no_more_often_than_the_heartbeat_that_the_client_asks_for() {
    let gateway = Gateway::start(&["--limit", "websocket_ping=200ms"]).await;
    let publisher = Publisher::create(&gateway, "s", Kind::Json).await;
    for (heartbeat, least) in [("", Duration::ZERO), ("&heartbeat=1", Duration::from_secs(1))] {
        let since = Instant::now();
        let target = format!("{}?offset=now&live=websocket{heartbeat}", publisher.place.path);
        let mut socket = WebSocket::open(gateway.address, &target).await.unwrap();
        socket.json().await.unwrap();
        let mut heartbeats = 0;
        while !socket.message().await.is_ping() {
            heartbeats += 1;
        }
        assert!(since.elapsed() >= least, "{heartbeat:?}: a ping after {:?}", since.elapsed());
        assert!(heartbeats <= 1, "{heartbeat:?}: {heartbeats} heartbeats before a ping");
    }
}
