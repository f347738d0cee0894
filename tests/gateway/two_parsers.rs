//! Requests are parsed by the fast path or by hyper, with the same responses.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::world::{Answer, Gateway, Raw, put};

const STREAM: &str = "/v1/stream/s";
const POLL: &str = "/v1/stream/s?offset=-1";

/// A connection option without meaning, which sends a request to hyper instead of the fast path.
const FOR_HYPER: &str = "Connection: keep-alive, x\r\n";

async fn gateway() -> Gateway {
    let gateway =
        Gateway::start(&["--limit", "body_bytes_max=2000", "--origin", "https://app.example"]).await;
    gateway.send(put(STREAM).json("[0]")).await.expect(201);
    gateway.send(put("/v1/stream/text").text("first")).await.expect(201);
    let page = put("/v1/stream/page").header("content-type", "text/html").body("<p>");
    gateway.send(page).await.expect(201);
    gateway.send(put("/v1/stream/closed").header("stream-closed", "true").text("last")).await.expect(201);
    gateway
}

/// A response as a client sees it, without values that differ between two gateways or two moments.
#[derive(Debug, PartialEq)]
struct VisibleResponse {
    status: u16,
    fields: BTreeMap<String, String>,
    body: String,
}

impl VisibleResponse {
    fn of(answer: &Answer) -> Self {
        let body = String::from_utf8_lossy(&answer.body);
        let (body, token) = without_token(&body);
        // The length of a resume token depends on its numbers.
        let differs = |name: &str| {
            ["date", "stream-cursor", "retry-after"].contains(&name) || token && name == "content-length"
        };
        let fields = answer.headers.iter().filter(|(name, _)| !differs(name.as_str()));
        let fields = fields.map(|(name, value)| (name.to_string(), without_epochs(value.to_str().unwrap())));
        Self { status: answer.status.as_u16(), fields: fields.collect(), body: without_epochs(&body) }
    }
}

/// Replaces epochs, which are random: in offsets the 16 digits before a `_`, in an entity tag those before the first `:`.
fn without_epochs(text: &str) -> String {
    if let Some(tag) = text.strip_prefix('"')
        && let Some((_, behind)) = tag.split_once(':')
    {
        return format!("\"epoch:{behind}");
    }
    let mut text = text.to_owned();
    for (end, _) in text.clone().match_indices('_') {
        if let Some(start) = end.checked_sub(16)
            && text[start..end].bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            text.replace_range(start..end, &"e".repeat(16));
        }
    }
    text
}

/// Removes the resume token from an envelope, since it contains epochs. Returns whether there was one.
fn without_token(text: &str) -> (String, bool) {
    match text.split_once("\"resume\":\"") {
        Some((before, behind)) => (format!("{before}{}", behind.split_once('"').unwrap().1), true),
        None => (text.to_owned(), false),
    }
}

/// Complete requests of every kind. None of the responses depends on the time.
fn requests() -> Vec<String> {
    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let with_body = |method: &str, target: &str, fields: &str, body: &str| {
        let length = body.len();
        format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let post = |target: &str, fields: &str, body: &str| with_body("POST", target, fields, body);
    let chunked = |fields: &str, chunks: &str| {
        format!(
            "POST {STREAM} HTTP/1.1\r\nHost: localhost\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{chunks}"
        )
    };
    let json = "Content-Type: application/json\r\n";
    let producer =
        "Content-Type: application/json\r\nProducer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: 0\r\n";
    vec![
        get(STREAM, ""),
        get(POLL, ""),
        get("/v1/stream/s?offset=now", ""),
        get("/v1/stream/text", ""),
        get("/v1/stream/closed?offset=-1&live=long-poll", ""),
        get("/v1/stream/s?offset=-1&live=long-poll", ""),
        get("/v1/stream/s?offset=now&live=long-poll&timeout=0", ""),
        get("/v1/stream/s?offset=now&live=long-poll&client=c", "Prefer: wait=0\r\n"),
        get("/v1/stream/s?live=long-poll", ""),
        get("/v1/stream/s?offset=nonsense", ""),
        get("/v1/stream/s?offset=-1&offset=-1", ""),
        get("/v1/stream/s?live=nonsense&offset=-1", ""),
        get("/v1/stream/missing", ""),
        get("/v1/stream/a//b", ""),
        get("/v1/stream/%ff", ""),
        get("/v1/stream/%ff?live=long-poll&live=long-poll", ""),
        get(POLL, "If-None-Match: *\r\n"),
        get(&format!("{POLL}&x={}", "x".repeat(5000)), ""),
        get("/nothing", ""),
        get("/v1/streams?stream=s&from=earliest", ""),
        get("/v1/streams", ""),
        get("/v1/streams?stream=s&stream=text&stream=missing&from=earliest&x=1", ""),
        get("/v1/streams?stream=%73&from=last:1&times=0", "Origin: https://app.example\r\n"),
        get("/v1/streams?stream=s&live=long-poll&timeout=0", ""),
        get("/v1/streams?stream=s&from=earliest&live=long-poll&client=c", "Prefer: wait=0\r\n"),
        get("/v1/streams?stream=s&live=nonsense", ""),
        get("/v1/streams?stream=s&resume=nonsense", ""),
        get("/v1/streams?stream=a//b&from=nonsense", ""),
        get("/v1/streams?stream=s&timeout=-1", ""),
        get("/v1/streams?stream=s&live=long-poll&live=long-poll", ""),
        get("/v1/streams?stream=%ff", ""),
        get("/v1/streams?stream=s", "Origin: http://page\r\n"),
        get("/v1/streams?stream=s", "If-None-Match: *\r\n"),
        get("/v1/streams/?stream=s", ""),
        get("/v1/streamsx?stream=s", ""),
        with_body("GET", POLL, "", "a body that nobody reads"),
        post(STREAM, json, "1"),
        post(STREAM, json, "[2,3]"),
        post(STREAM, json, "{"),
        post(STREAM, json, ""),
        post(STREAM, "", "1"),
        post(STREAM, "Content-Type: text/plain\r\n", "1"),
        post(STREAM, producer, "4"),
        post(STREAM, "Producer-Id: p\r\nContent-Type: application/json\r\n", "5"),
        post(STREAM, "Content-Encoding: gzip\r\nContent-Type: application/json\r\n", "6"),
        post(STREAM, json, &format!("\"{}\"", "x".repeat(1500))),
        post(STREAM, json, &format!("\"{}\"", "x".repeat(2500))),
        post(STREAM, json, &format!("\"{}\"", "x".repeat(40_000))),
        post("/v1/stream/missing", json, "7"),
        post("/v1/stream/closed", "Content-Type: text/plain\r\n", "more"),
        post("/v1/stream/new?create=1", json, "8"),
        post("/v1/stream/new?create=2", json, "9"),
        post("/v1/streams", json, r#"{"stream":["s"],"from":"earliest"}"#),
        post("/v1/streams", "", "{}"),
        post("/v1/streams?stream=s", json, "1"),
        chunked(json, "2\r\n10\r\n0\r\n\r\n"),
        chunked(json, "1\r\n[\r\n3\r\n11]\r\n0\r\nTrailer: t\r\n\r\n"),
        with_body("PUT", STREAM, json, "[0]"),
        with_body("PUT", "/v1/stream/other", "Content-Type: text/plain\r\n", "x"),
        with_body("PUT", "/v1/stream/other", "Stream-TTL: x\r\n", "not read"),
        with_body("PATCH", STREAM, "", "not read"),
        format!("HEAD {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("OPTIONS {STREAM} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://page\r\n\r\n"),
        get(STREAM, "Origin: http://page\r\n"),
        get(STREAM, "Origin: https://app.example\r\n"),
        get(STREAM, "Origin: http://localhost\r\n"),
        get(STREAM, "Origin: http://localhost\r\nOrigin: http://localhost\r\n"),
        get(STREAM, "Sec-Fetch-Site: cross-site\r\n"),
        get(STREAM, "Host: localhost\r\n"),
        get("/v1/stream/s?offset=now&live=long-poll&timeout=0", "Origin: https://app.example\r\n"),
        get("/v1/stream/text", "Origin: null\r\n"),
        get("/v1/stream/page", ""),
        post(STREAM, "Origin: http://page\r\nContent-Type: application/json\r\n", "1"),
        post(STREAM, "Origin: https://app.example\r\nContent-Type: application/json\r\n", "1"),
        format!("GET {STREAM} HTTP/1.1\r\nX: y\r\n\r\n"),
        format!("GET {STREAM} HTTP/1.1\r\nHost:\r\n\r\n"),
        format!("GET {STREAM} HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        format!("GET {STREAM} HTTP/1.1\r\nHost: rebind.test\r\n\r\n"),
        format!("GET {STREAM} HTTP/1.1\r\nHost: 127.0.0.2:80\r\n\r\n"),
        format!("DELETE /v1/stream/missing HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ]
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_from_both() {
    let (fast, hyper) = (gateway().await, gateway().await);
    for request in requests() {
        let through = async |gateway: &Gateway, request: &str| {
            let mut connection = gateway.connect_raw().await;
            connection.send(request).await.unwrap();
            let seen = VisibleResponse::of(&connection.whole_answer().await.unwrap());
            // The connection is still usable.
            connection.get(STREAM).await.unwrap();
            (seen, connection.answer().await.ok().flatten().map(|answer| VisibleResponse::of(&answer)))
        };
        let for_hyper = request.replacen("\r\n", &format!("\r\n{FOR_HYPER}"), 1);
        let (one, other) = (through(&fast, &request).await, through(&hyper, &for_hyper).await);
        assert_eq!(one, other, "{request}");
    }
}

#[tokio::test]
async fn requests_of_all_kinds_are_answered_in_order_however_they_are_split() {
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    let (pipelined, one_by_one) = (gateway().await, gateway().await);
    for round in 0..40 {
        // A request that is refused with its body unread may close the connection, which would hide the others.
        let requests: Vec<_> = requests().into_iter().filter(|request| request.len() < 5000).collect();
        let chosen: Vec<_> = (0..12).map(|_| random.choice(&requests).unwrap().as_str()).collect();
        let bytes = chosen.concat().into_bytes();
        let mut connection = pipelined.connect_raw().await;
        let mut rest = &bytes[..];
        let pieces = random.usize(1..6);
        for _ in 1..pieces {
            let (piece, behind) = rest.split_at(random.usize(0..=rest.len()));
            connection.send_in_pieces(&[piece]).await.unwrap();
            rest = behind;
        }
        connection.send(rest).await.unwrap();
        for (number, request) in chosen.iter().enumerate() {
            let expected = alone(&one_by_one, request).await;
            let answer = connection.whole_answer().await;
            let answer = answer
                .unwrap_or_else(|error| panic!("seed {seed}, round {round}, {number}: {error}: {request}"));
            assert_eq!(
                VisibleResponse::of(&answer),
                expected,
                "seed {seed}, round {round}, request {number}: {request}"
            );
        }
    }
}

async fn alone(gateway: &Gateway, request: &str) -> VisibleResponse {
    let mut connection: Raw = gateway.connect_raw().await;
    connection.send(request).await.unwrap();
    VisibleResponse::of(&connection.whole_answer().await.unwrap())
}

#[tokio::test]
async fn a_client_of_http_1_0_is_answered_and_closed_unless_it_wants_to_stay() {
    let gateway = gateway().await;
    let mut connection = gateway.connect_raw().await;
    connection.send(format!("GET {STREAM} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")).await.unwrap();
    let answer = connection.whole_answer().await.unwrap().expect(200);
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("[0]", "keep-alive"));
    connection.send(format!("GET {STREAM} HTTP/1.0\r\n\r\n")).await.unwrap();
    let answer = connection.whole_answer().await.unwrap().expect(200);
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("[0]", "close"));
    connection.end().await.unwrap();
}

#[tokio::test]
async fn a_client_that_sends_no_more_is_still_answered() {
    let gateway = gateway().await;
    for fields in ["", FOR_HYPER] {
        let mut connection = gateway.connect_raw().await;
        connection.send(format!("GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await.unwrap();
        connection.finish().await;
        assert_eq!(connection.whole_answer().await.unwrap().expect(200).text(), "[0]");
    }
}

#[tokio::test]
async fn a_refused_body_is_not_asked_for_and_closes_the_connection() {
    let gateway = gateway().await;
    let head = "Host: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let mut connection = gateway.connect_raw().await;
    connection.send(format!("POST /v1/stream/a//b HTTP/1.1\r\n{head}")).await.unwrap();
    let answer = connection.whole_answer().await.unwrap().expect(400);
    assert_eq!((answer.problem().as_str(), answer.header("connection")), ("stream-name", "close"));
    connection.end().await.unwrap();
}

#[tokio::test]
async fn a_body_after_expect_100_continue_is_requested() {
    let gateway = gateway().await;
    let head = "Host: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    let mut connection = gateway.connect_raw().await;
    connection.send(format!("POST {STREAM} HTTP/1.1\r\n{head}")).await.unwrap();
    connection.whole_answer().await.unwrap().expect(100);
    connection.send("1").await.unwrap();
    connection.whole_answer().await.unwrap().expect(204);
    connection.get(STREAM).await.unwrap();
    assert_eq!(connection.whole_answer().await.unwrap().expect(200).text(), "[0,1]");
}
