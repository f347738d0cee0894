//! HTTP/2 with prior knowledge: all operations on one connection, which lives longer than the timeout of an HTTP/1 head.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::world::{Event, Gateway, PATIENCE, Parser};

pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    base: String,
}

impl Client {
    pub(super) async fn connect(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { connection.await.expect("the connection ends in good order") });
        Self { sender, base: format!("http://{}/v1/stream/", gateway.address) }
    }

    async fn begin(&self, method: Method, target: &str, body: &'static str) -> Response<Incoming> {
        let request = Request::builder().method(method).uri(format!("{}{target}", self.base));
        let request = request.header("content-type", "application/json").body(Full::from(body)).unwrap();
        let answer = timeout(PATIENCE, self.sender.clone().send_request(request)).await;
        let answer = answer.expect("an answer in time").expect("an unbroken connection");
        assert_eq!(answer.version(), Version::HTTP_2);
        answer
    }

    /// Sends a request with these fields, and returns the status after the whole response. A path with `..` is relative to the streams.
    pub(super) async fn answer_to(
        &self,
        method: Method,
        target: &str,
        fields: &[(&str, &str)],
        body: &'static str,
    ) -> u16 {
        let (mut base, mut target) = (self.base.trim_end_matches('/'), target);
        while let Some(rest) = target.strip_prefix("../") {
            (base, target) = (base.rsplit_once('/').unwrap().0, rest);
        }
        let mut request = Request::builder().method(method).uri(format!("{base}/{target}"));
        request = request.header("content-type", "application/json");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).unwrap();
        let answer = timeout(PATIENCE, self.sender.clone().send_request(request)).await;
        let (head, body) = answer.expect("an answer in time").expect("an unbroken connection").into_parts();
        body.collect().await.expect("an unbroken stream");
        head.status.as_u16()
    }

    async fn send(&self, method: Method, target: &str, body: &'static str) -> (u16, String, String) {
        let (head, body) = self.begin(method, target, body).await.into_parts();
        let offset = head.headers.get("stream-next-offset").map_or("", |offset| offset.to_str().unwrap());
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), offset.to_owned(), String::from_utf8(body.to_vec()).unwrap())
    }
}

async fn next_event(body: &mut Incoming, parser: &mut Parser) -> Event {
    loop {
        if let Some(event) = parser.next() {
            return event;
        }
        let frame = timeout(PATIENCE, body.frame()).await.expect("an event in time");
        parser.read(frame.expect("more").expect("an unbroken stream").data_ref().expect("data"));
    }
}

#[tokio::test]
async fn one_connection_creates_publishes_polls_and_streams_all_at_once() {
    let head_timeout = Duration::from_millis(300);
    let gateway = Gateway::start(&["--limit", "head_timeout=300ms", "--limit", "idle_timeout=300ms"]).await;
    let client = Client::connect(&gateway).await;
    assert_eq!(client.send(Method::PUT, "room", "").await.0, 201);
    assert_eq!(client.send(Method::POST, "room", r#"{"n":1}"#).await.0, 204);
    let (status, offset, messages) = client.send(Method::GET, "room", "").await;
    assert_eq!((status, messages.as_str()), (200, r#"[{"n":1}]"#));

    let poll = format!("room?live=long-poll&offset={offset}");
    let held = client.send(Method::GET, &poll, "");
    let events = format!("room?live=sse&offset={offset}");
    let publish = async {
        let (mut body, mut parser) =
            (client.begin(Method::GET, &events, "").await.into_body(), Parser::default());
        assert_eq!(next_event(&mut body, &mut parser).await.name, "control");
        gateway.until_held(1).await;
        sleep(2 * head_timeout).await;
        assert_eq!(client.send(Method::POST, "room", r#"{"n":2}"#).await.0, 204);
        assert_eq!(next_event(&mut body, &mut parser).await.data.replace('\n', ""), r#"[{"n":2}]"#);
        assert_eq!(next_event(&mut body, &mut parser).await.name, "control");
    };
    let ((status, _, messages), ()) = tokio::join!(held, publish);
    assert_eq!((status, messages.as_str()), (200, r#"[{"n":2}]"#));
    assert_eq!(client.send(Method::GET, "none", "").await.0, 404);
    assert_eq!(client.send(Method::DELETE, "room", "").await.0, 204);
}
