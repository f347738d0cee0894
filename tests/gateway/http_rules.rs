//! The requirements of RFC 9110 and RFC 9112 on a server, each with its section, on both HTTP/1 parsers and where they apply
//! over HTTP/2.

use hyper::Method;

use super::http2::Client;
use crate::world::{Gateway, put};

/// A connection option without meaning, which sends a request to hyper instead of the fast path.
const FOR_HYPER: &str = "Connection: keep-alive, x\r\n";

/// The required state of the connection after the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterResponse {
    /// The next request is answered.
    Stays,
    /// The next request is not answered.
    Closes,
    /// Either is allowed.
    Either,
}
use AfterResponse::{Closes, Either, Stays};

/// A requirement: the section, the request (request line, fields, body), the allowed statuses, and what
/// has to be in the head of the response, or with a `!` must not be in it.
struct Rule(&'static str, &'static str, &'static [u16], AfterResponse, &'static [&'static str]);

const HOST: &str = "Host: localhost\r\n";

/// `@` stands for a `Host` field, `J` for the content type of the stream.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule("9112 2.2: an empty line before the request is ignored", "\r\nGET /v1/stream/s HTTP/1.1\r\n@\r\n", &[200], Stays, &[]),
    Rule("9112 2.2: whitespace behind the request line", "GET /v1/stream/s HTTP/1.1\r\n X: y\r\n@\r\n", &[400], Closes, &[]),
    Rule("9112 2.2: a bare CR in a field", "GET /v1/stream/s HTTP/1.1\r\n@X: a\rb\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 2.3: the version is case-sensitive", "GET /v1/stream/s http/1.1\r\n@\r\n", &[400], Closes, &[]),
    Rule("9112 2.3: another major version", "GET /v1/stream/s HTTP/3.0\r\n@\r\n", &[400, 505], Closes, &[]),
    Rule("9112 3: an invalid request line", "GET  /v1/stream/s HTTP/1.1\r\n@\r\n", &[400], Closes, &[]),
    Rule("9112 3: whitespace within the target", "GET /v1/stream/s x HTTP/1.1\r\n@\r\n", &[400], Closes, &[]),
    Rule("9112 3.1: the method is case-sensitive", "get /v1/stream/s HTTP/1.1\r\n@\r\n", &[501], Either, &[]),
    Rule("9112 3.2: no Host", "GET /v1/stream/s HTTP/1.1\r\n\r\n", &[400], Either, &[]),
    Rule("9112 3.2: two Hosts", "GET /v1/stream/s HTTP/1.1\r\n@@\r\n", &[400], Either, &[]),
    Rule("9112 3.2: an invalid Host", "GET /v1/stream/s HTTP/1.1\r\nHost: a b\r\n\r\n", &[400], Either, &[]),
    Rule("9112 3.2: HTTP/1.0 has no Host", "GET /v1/stream/s HTTP/1.0\r\n\r\n", &[200], Closes, &["connection: close"]),
    Rule("9112 3.2.2: the absolute form", "GET http://localhost/v1/stream/s HTTP/1.1\r\n@\r\n", &[200], Stays, &[]),
    Rule("9112 3.2.2: its host wins", "GET http://localhost/v1/stream/s HTTP/1.1\r\nHost: other.example\r\n\r\n", &[200], Stays, &[]),
    Rule("9112 3.2.2: its host wins", "GET http://other.example/v1/stream/s HTTP/1.1\r\n@\r\n", &[421], Either, &[]),
    Rule("9112 3.2.3: CONNECT", "CONNECT localhost:80 HTTP/1.1\r\n@\r\n", &[501], Either, &[]),
    Rule("9112 3.2.4: OPTIONS *", "OPTIONS * HTTP/1.1\r\n@\r\n", &[204], Stays, &["allow: GET, HEAD, POST, PUT, DELETE, OPTIONS"]),
    Rule("9112 3.2.4: the target * of another method", "GET * HTTP/1.1\r\n@\r\n", &[400], Either, &[]),
    Rule("9112 5: names of fields have no case", "GET /v1/stream/s HTTP/1.1\r\nhOsT: localhost\r\n\r\n", &[200], Stays, &[]),
    Rule("9112 5: whitespace around a value is no part of it", "GET /v1/stream/s HTTP/1.1\r\nHost: \t localhost \t \r\n\r\n", &[200], Stays, &[]),
    Rule("9112 5.1: whitespace before the colon", "GET /v1/stream/s HTTP/1.1\r\n@X : y\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 5.1: whitespace before the colon", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length : 1\r\n\r\n1", &[400], Closes, &[]),
    Rule("9112 5.2: a folded line", "GET /v1/stream/s HTTP/1.1\r\n@X: y\r\n z\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 6.1: two lengths", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n", &[400], Closes, &["connection: close"]),
    Rule("9112 6.1: a coding that is not known", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: gzip, chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n", &[501], Closes, &["connection: close"]),
    Rule("9112 6.1: a coding in HTTP/1.0", "POST /v1/stream/s HTTP/1.0\r\n@JConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 6.3: chunked is not the last coding", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked, gzip\r\n\r\n1\r\n1\r\n0\r\n\r\n", &[400, 501], Closes, &[]),
    Rule("9112 6.3: an invalid length", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length: +1\r\n\r\n1", &[400], Closes, &[]),
    Rule("9112 6.3: an invalid length", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length: 99999999999999999999\r\n\r\n1", &[400, 413], Closes, &[]),
    Rule("9112 6.3: an invalid length of a GET", "GET /v1/stream/s HTTP/1.1\r\n@Content-Length: x\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 6.3: different lengths", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length: 1\r\nContent-Length: 2\r\n\r\n12", &[400], Closes, &[]),
    Rule("9112 6.3: different lengths", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length: 1, 2\r\n\r\n12", &[400], Closes, &[]),
    Rule("9112 6.3: no length is no body", "POST /v1/stream/s HTTP/1.1\r\n@J\r\n", &[400], Stays, &[]),
    Rule("9112 6.3: the body of a GET is no request", "GET /v1/stream/s HTTP/1.1\r\n@Content-Length: 31\r\n\r\nDELETE /v1/stream/s HTTP/1.1\r\n\r\n", &[200], Stays, &[]),
    Rule("9112 7.1: chunks, their digits have no case", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: Chunked\r\n\r\nA\r\n1234567890\r\n00\r\n\r\n", &[204], Stays, &[]),
    Rule("9112 7.1: the data is longer than its chunk", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked\r\n\r\n1\r\n12\r\n0\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 7.1: no digits", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked\r\n\r\nx\r\n1\r\n0\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 7.1: a sign", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked\r\n\r\n+1\r\n1\r\n0\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 7.1: a chunk that is too long to count", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\n1\r\n0\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 7.1: LF alone behind the size", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked\r\n\r\n1\n1\r\n0\r\n\r\n", &[400], Closes, &[]),
    Rule("9112 7.1.1: extensions are ignored", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked\r\n\r\n1;a;b=c;d=\"e f\"\r\n1\r\n0;f\r\n\r\n", &[204], Stays, &[]),
    Rule("9112 7.1.2: trailers", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nContent-Length: 7\r\nX: y\r\n\r\n", &[204], Stays, &[]),
    Rule("9112 9.3: close", "GET /v1/stream/s HTTP/1.1\r\n@Connection: close\r\n\r\n", &[200], Closes, &["connection: close"]),
    Rule("9112 9.3: options have no case", "GET /v1/stream/s HTTP/1.1\r\n@Connection: x, ClosE\r\n\r\n", &[200], Closes, &["connection: close"]),
    Rule("9112 9.3: an append of a client that closes", "POST /v1/stream/s HTTP/1.1\r\n@JConnection: close\r\nContent-Length: 1\r\n\r\n1", &[204], Closes, &["connection: close"]),
    Rule("9112 9.3: HTTP/1.0 with keep-alive", "GET /v1/stream/s HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", &[200], Stays, &["connection: keep-alive"]),
    Rule("9112 6.1: no chunks for HTTP/1.0", "GET /v1/stream/closed?offset=-1&live=sse HTTP/1.0\r\n\r\n", &[200], Closes, &["!transfer-encoding", "connection: close"]),
    Rule("9112 6.1: no coding in a 204", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length: 1\r\n\r\n1", &[204], Stays, &["!transfer-encoding", "!content-length"]),
    Rule("9110 4.1: a target of 8 000 bytes", "GET /v1/stream/s?x=~ HTTP/1.1\r\n@\r\n", &[200], Stays, &[]),
    Rule("9110 4.2.4: a user in the authority", "GET http://user@localhost/v1/stream/s HTTP/1.1\r\n@\r\n", &[400], Either, &[]),
    Rule("3986 2.1: half an escape", "GET /v1/stream/%4 HTTP/1.1\r\n@\r\n", &[400], Stays, &[]),
    Rule("9110 13.1.2: any representation, and what a 304 tells", "GET /v1/stream/s HTTP/1.1\r\n@If-None-Match: *\r\n\r\n", &[304], Stays, &["etag:", "cache-control:", "date:"]),
    Rule("9110 5.3: a list on two lines", "GET /v1/stream/s HTTP/1.1\r\n@If-None-Match: \"x\"\r\nIf-None-Match: \"y\"\r\n\r\n", &[200], Stays, &[]),
    Rule("9110 5.5: NUL in a value", "GET /v1/stream/s HTTP/1.1\r\n@X: a\0b\r\n\r\n", &[400], Closes, &[]),
    Rule("9110 5.6.2: a name that is no token", "GET /v1/stream/s HTTP/1.1\r\n@X(y): z\r\n\r\n", &[400], Closes, &[]),
    Rule("9110 6.6.1: each response has a date", "GET /nothing HTTP/1.1\r\n@\r\n", &[404], Stays, &["date: "]),
    Rule("9110 7.8: an unknown protocol is ignored", "GET /v1/stream/s HTTP/1.1\r\n@Connection: upgrade\r\nUpgrade: other/1\r\n\r\n", &[200], Stays, &[]),
    Rule("9110 7.8: Upgrade in HTTP/1.0 is ignored", "GET /v1/stream/s?offset=now&live=websocket HTTP/1.0\r\n@Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n\r\n", &[426], Closes, &["upgrade: websocket"]),
    Rule("9110 7.8: a handshake with a body", "GET /v1/stream/s?offset=now&live=websocket HTTP/1.1\r\n@Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\nContent-Length: 4\r\n\r\nbody", &[400], Stays, &[]),
    Rule("9110 7.8: a handshake with chunks", "GET /v1/stream/s?offset=now&live=websocket HTTP/1.1\r\n@Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n", &[400], Closes, &[]),
    Rule("9110 8.3.1: types have no case", "POST /v1/stream/s HTTP/1.1\r\n@Content-Type: APPLICATION/Json; Charset=UTF-8\r\nContent-Length: 1\r\n\r\n1", &[204], Stays, &[]),
    Rule("9110 8.4: a coding", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Encoding: identity, gzip\r\nContent-Length: 1\r\n\r\n1", &[415], Stays, &["accept-encoding: identity"]),
    Rule("9110 9.1: a known method that is not allowed", "PATCH /v1/stream/s HTTP/1.1\r\n@\r\n", &[405], Stays, &["allow: GET, HEAD, POST, PUT, DELETE, OPTIONS"]),
    Rule("9110 9.1: a newer one", "QUERY /v1/stream/s HTTP/1.1\r\n@\r\n", &[405], Stays, &["allow: GET, HEAD, POST, PUT, DELETE, OPTIONS"]),
    Rule("9110 9.1: an unknown method", "PROPFIND /v1/stream/s HTTP/1.1\r\n@\r\n", &[501], Stays, &[]),
    Rule("9110 9.1: HEAD wherever there is GET", "HEAD /v1/streams?stream=s HTTP/1.1\r\n@\r\n", &[200], Stays, &["content-type: application/json"]),
    Rule("9110 9.3.2: HEAD has no body", "HEAD /pollgate.js HTTP/1.1\r\n@\r\n", &[200], Stays, &["content-length: "]),
    Rule("9110 9.3.2: HEAD has no body", "HEAD /nothing HTTP/1.1\r\n@\r\n", &[404], Stays, &["content-length: "]),
    Rule("9110 9.3.7: OPTIONS", "OPTIONS / HTTP/1.1\r\n@\r\n", &[204], Stays, &["allow: GET, HEAD, OPTIONS"]),
    Rule("9110 9.3.7: OPTIONS in HTTP/1.0", "OPTIONS / HTTP/1.0\r\n\r\n", &[204], Closes, &["allow: GET, HEAD, OPTIONS"]),
    Rule("9110 9.3.8: TRACE", "TRACE /v1/stream/s HTTP/1.1\r\n@\r\n", &[405], Stays, &["allow: "]),
    Rule("9110 10.1.1: Expect in HTTP/1.0 is ignored", "POST /v1/stream/s HTTP/1.0\r\n@JExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1", &[204], Closes, &[]),
    Rule("9110 10.2.1: Allow", "DELETE / HTTP/1.1\r\n@\r\n", &[405], Stays, &["allow: GET, HEAD, OPTIONS"]),
    Rule("9110 13.1.2: weak comparison", "GET /pollgate.js HTTP/1.1\r\n@If-None-Match: W/\"x\" , *\r\n\r\n", &[200, 304], Stays, &[]),
    Rule("9110 13.1.3: no date of modification, no condition", "GET /v1/stream/s HTTP/1.1\r\n@If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n", &[200], Stays, &[]),
    Rule("9110 13.2.1: no condition on an error", "GET /v1/stream/none HTTP/1.1\r\n@If-None-Match: *\r\n\r\n", &[404], Stays, &[]),
    Rule("9110 14.2: an unknown unit of ranges is ignored", "GET /v1/stream/s HTTP/1.1\r\n@Range: pages=1-2\r\n\r\n", &[200], Stays, &[]),
    Rule("9110 14.5: a part in a PUT", "PUT /v1/stream/s HTTP/1.1\r\n@JContent-Range: bytes 0-0/1\r\nContent-Length: 1\r\n\r\n1", &[400], Stays, &[]),
    Rule("9110 15.5.14: too large, and the connection goes on", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length: 2000\r\n\r\n~", &[413], Stays, &["!connection: close"]),
    Rule("9110 15.5.14: too large, and the connection closes", "POST /v1/stream/s HTTP/1.1\r\n@JContent-Length: 200000\r\n\r\n", &[413], Closes, &["connection: close"]),
    Rule("9110 15.5.14: too large in chunks", "POST /v1/stream/s HTTP/1.1\r\n@JTransfer-Encoding: chunked\r\n\r\n7d0\r\n~\r\n0\r\n\r\n", &[413], Either, &[]),
    Rule("9110 15.5.22: 426 names the protocol", "GET /v1/stream/s?offset=now&live=websocket HTTP/1.1\r\n@\r\n", &[426], Stays, &["upgrade: websocket", "connection: upgrade"]),
];

/// The request with its placeholders replaced.
fn request(rule: &Rule) -> String {
    let filled =
        if rule.1.contains("?x=~") { "y".repeat(8000 - "/v1/stream/s?x=".len()) } else { "1".repeat(2000) };
    let request = rule.1.replace("\n@@", &format!("\n{HOST}{HOST}")).replace("\n@", &format!("\n{HOST}"));
    request.replace("\nJ", "\nContent-Type: application/json\r\n").replace('~', &filled)
}

/// What is wrong with the response to a rule, if anything.
fn breach(rule: &Rule, answers: &str) -> Option<String> {
    let Rule(_, _, statuses, then, fields) = rule;
    let (head, behind) = answers.split_once("\r\n\r\n")?;
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    if !statuses.contains(&status) {
        return Some(format!("status {status}"));
    }
    for field in *fields {
        let (field, wanted) = field.strip_prefix('!').map_or((*field, true), |field| (field, false));
        if head.contains(&format!("\r\n{field}")) != wanted {
            return Some(format!("wrong: {field}"));
        }
    }
    let is_bare = rule.1.contains("HEAD ") || matches!(status, 204 | 304);
    if is_bare && !(behind.is_empty() || behind.starts_with("HTTP/1.1 ")) {
        return Some("a body".to_owned());
    }
    let stays = behind.contains("HTTP/1.1 200") && behind.ends_with("the next one");
    match then {
        Stays if !stays => Some("the connection does not go on".to_owned()),
        Closes if stays => Some("the connection goes on".to_owned()),
        // RFC 9112, section 9.6.
        _ if stays == head.contains("connection: close") => Some("it does not say how it goes on".to_owned()),
        _ => None,
    }
}

#[tokio::test]
async fn requests_over_http_1_get_the_responses_that_the_rfcs_require() {
    let gateway = Gateway::start(&["--limit", "body_bytes_max=1000"]).await;
    gateway.send(put("/v1/stream/s").json("[0]")).await.expect(201);
    gateway.send(put("/v1/stream/next").text("the next one")).await.expect(201);
    gateway.send(put("/v1/stream/closed").header("stream-closed", "true").text("x")).await.expect(201);
    let next = format!("GET /v1/stream/next HTTP/1.1\r\n{HOST}\r\n");
    let mut breaches = Vec::new();
    for rule in RULES {
        let request = request(rule);
        let by_hyper = request.trim_start().replacen("\r\n", &format!("\r\n{FOR_HYPER}"), 1);
        // hyper parses HTTP/1.0 anyway.
        let ways = if request.contains("HTTP/1.0") { &[&request][..] } else { &[&request, &by_hyper] };
        for request in ways {
            let mut client = gateway.connect_raw().await;
            // The gateway may close a refused connection before the whole request is written.
            let _ = client.send(format!("{request}{next}")).await;
            client.finish().await;
            let answers = client.rest().await;
            if let Some(breach) = breach(rule, &answers) {
                let shown: String = request.chars().take(300).collect();
                breaches.push(format!("{}: {breach}\n{shown:?}\n{answers:?}", rule.0));
            }
        }
    }
    assert!(breaches.is_empty(), "{} of {} rules:\n{}", breaches.len(), RULES.len(), breaches.join("\n\n"));
}

#[tokio::test]
async fn requests_over_http_2_get_the_responses_that_the_rfcs_require() {
    let gateway = Gateway::start(&["--limit", "body_bytes_max=1000"]).await;
    gateway.send(put("/v1/stream/s").json("[0]")).await.expect(201);
    let client = Client::connect(&gateway).await;
    let propfind = Method::from_bytes(b"PROPFIND").unwrap();
    for (rule, method, target, fields, status) in [
        // hyper's client refuses a response to HEAD with a body.
        ("9110 9.3.2", Method::HEAD, "s", &[][..], 200),
        ("9110 9.3.2", Method::HEAD, "none", &[], 404),
        ("9110 9.3.2", Method::HEAD, "../../pollgate.js", &[], 200),
        ("9110 9.3.2", Method::HEAD, "../streams?stream=s", &[], 200),
        ("9110 9.1", propfind, "s", &[], 501),
        ("9110 9.1", Method::PATCH, "s", &[], 405),
        ("9110 9.3.7", Method::OPTIONS, "s", &[], 204),
        ("9110 10.1.1", Method::POST, "s", &[("expect", "100-continue")], 417),
        ("9110 14.5", Method::PUT, "s", &[("content-range", "bytes 0-0/1")], 400),
        ("9113 8.6", Method::GET, "s?offset=now&live=websocket", &[], 400),
        ("9110 5.3", Method::GET, "s", &[("if-none-match", "\"x\""), ("if-none-match", "\"y\"")], 200),
    ] {
        let body = if matches!(method, Method::POST | Method::PUT) { "1" } else { "" };
        let answer = client.answer_to(method.clone(), target, fields, body).await;
        assert_eq!(answer, status, "{rule}: {method} {target}");
    }
    // The connection stays usable.
    assert_eq!(client.answer_to(Method::GET, "s", &[], "").await, 200);
}
