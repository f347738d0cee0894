//! Fuzzes HTTP/1 requests: no input makes a parser panic, and a request that the fast path accepts has the same meaning and the
//! same end in hyper.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{join, sink};
use tokio::sync::mpsc;

use super::body::Body;
use super::fast_path::Parsed;
use super::hyper_request::{bytes_not_decoded, settings};
use super::response::Framing;
use super::state::{ConnectionState, OpenConnection};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::fuzz::{Target, Verdict, fuzz};
use crate::http::api::gateway::Gateway;
use crate::http::api::operation::{GatewayRequest, OnStream, Operation};
use crate::http::{AccessPolicy, HoldPolicy};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::Memory;
use crate::stream::Principal;

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b"%2F",
    b"%00",
    b"%",
    b"//",
    b"..",
    b"?offset=-1",
    b"&live=long-poll",
    b"&live=sse",
    b"&timeout=5",
    b"&client=c",
    b"?create=1",
    b"Content-Length: 1\r\n",
    b"Content-Length: 1, 1\r\n",
    b"Content-Length: +1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\n",
    b"Content-Type: application/json\r\n",
    b"Producer-Id: p\r\n",
    b"Producer-Epoch: 0\r\n",
    b"Producer-Seq: 0\r\n",
    b"Prefer: wait=3\r\n",
    b"Host: localhost\r\n",
    b"Host: evil.example\r\n",
    b"Host: 127.0.0.1:80\r\n",
    b"Host:\r\n",
    b"Origin: https://page.example\r\n",
    b"Origin: null\r\n",
    b"If-None-Match: *\r\n",
    b"HTTP/1.0",
    b"http://localhost",
    b"http://evil.example",
    b"GET ",
    b"POST ",
    b"[1,2]",
    b"{\"a\":[]}",
];

fn seeds() -> Vec<Vec<u8>> {
    let with_body = |head: &str, body: &str| format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let json = "POST /v1/stream/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let requests = [
        "GET /v1/stream/s HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /v1/stream/s?offset=-1 HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: \"e:1\"\r\n\r\n".to_owned(),
        "GET /v1/stream/a%2Fb/c?offset=now&live=long-poll&timeout=5&client=c HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        "GET /v1/streams?stream=a&stream=b&from=earliest&live=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        with_body(json, "[1,2,{\"a\":null}]"),
        with_body(&format!("{json}Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: 0\r\n"), "3"),
        with_body("POST /v1/stream/new?create=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n", "text"),
        with_body("PUT /v1/stream/s HTTP/1.1\r\nHost: localhost\r\nStream-TTL: 60\r\n", ""),
        format!("{json}Transfer-Encoding: chunked\r\n\r\n2\r\n10\r\n0\r\n\r\n"),
        format!("{}{json}Content-Length: 1\r\n\r\n7", "GET /v1/stream/s HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        "DELETE /v1/stream/s HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ];
    requests.into_iter().map(String::into_bytes).collect()
}

/// Usually sets the first length to the number of bytes after the head.
fn mend(mut bytes: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    let found = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let (Some(length), Some(end)) = (found(b"Content-Length: "), found(b"\r\n\r\n")) else { return bytes };
    let value = length + "Content-Length: ".len();
    if value < end && random.u8(..3) > 0 {
        let digits = bytes[value..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let body = bytes.len() - end - 4;
        bytes.splice(value..value + digits, body.to_string().into_bytes());
    }
    bytes
}

fn gateway() -> Gateway {
    let (limits, metrics, clock) = (Arc::new(Limits::default()), Arc::new(Metrics::new()), Clock::start());
    let hub = Hub::new(Arc::new(Memory::new()), limits.clone(), metrics.clone(), clock);
    let holds = HoldPolicy { default: Duration::from_secs(25), max: Duration::from_secs(55) };
    let access =
        AccessPolicy::new(Ipv4Addr::LOCALHOST.into(), &[], &["https://page.example".to_owned()]).unwrap();
    Gateway::new(Arc::new(hub), limits, holds, metrics, clock, access, mpsc::channel(1).0)
}

/// A connection that holds nothing of a server.
struct Nothing;

impl OpenConnection for Nothing {}

fn state() -> ConnectionState {
    ConnectionState::new(Nothing, &Budget::unlimited().owner(Principal::GATEWAY))
}

#[test]
fn http_heads() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let _entered = runtime.enter();
    let gateway = gateway();
    let target = Target {
        name: "http_head",
        seeds: seeds(),
        words: WORDS,
        mend,
        inputs: 20_000,
        allocated_max: (64 * 1024, 64),
    };
    let state = state();
    fuzz(&target, |bytes| {
        let slow = runtime.block_on(through_hyper(&gateway, bytes));
        fastrand::seed(0);
        if let Parsed::Request(request, consumed) = gateway.try_parse(bytes, &state) {
            has_one_length(&bytes[..consumed]);
            let fast = (described(&request), consumed);
            assert_eq!(Some(&fast), slow.as_ref());
            for cut in [consumed - 1, consumed / 2, bytes.len() % consumed] {
                let begun = &bytes[..cut];
                assert!(
                    matches!(gateway.try_parse(begun, &state), Parsed::Other),
                    "{cut} bytes are no whole request"
                );
            }
        }
        if slow.is_some() { Verdict::Accepted } else { Verdict::Refused }
    });
}

/// A request of the fast path has at most one length field, and no chunked coding.
fn has_one_length(request: &[u8]) {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    // The head ends at an empty line, whichever line ends it has.
    let head: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
    let is_named = |line: &str, name| line.split(':').next().is_some_and(|field| field.trim() == name);
    let count = |name| head.iter().filter(|line| is_named(line, name)).count();
    assert!(count("content-length") <= 1 && count("transfer-encoding") == 0, "{head:?}");
}

/// Returns how hyper and the routes understand the first request in `bytes`, and how many bytes it took.
async fn through_hyper(gateway: &Gateway, bytes: &[u8]) -> Option<(String, usize)> {
    let (received, state) = (Mutex::new(None), state());
    let service = service_fn(async |request: Request<Incoming>| {
        // Resets the seed, since holds are jittered.
        fastrand::seed(0);
        let framing = Framing::of(&request);
        let (request, unread) = gateway.receive(request, framing, None, &state).await;
        *received.lock() = Some((described(&request), unread));
        pending::<Result<Response<Body>, Infallible>>().await
    });
    let io = TokioIo::new(join(bytes, sink()));
    let mut connection = settings(&gateway.limits).serve_connection(io, service);
    let receive = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => received.lock().take().map_or(Poll::Pending, |request| Poll::Ready(Some(request))),
    });
    let (request, unread) = receive.await?;
    let parts = connection.into_parts();
    let left = parts.io.into_inner().reader().len() + parts.read_buf.len();
    let skipped = unread.map_or(0, bytes_not_decoded) as usize;
    Some((request, bytes.len() - left + skipped))
}

/// Formats a request for comparison.
fn described(GatewayRequest { operation, log }: &GatewayRequest) -> String {
    let operation = match operation {
        Ok(Operation::Read(read)) => format!("{read:?}"),
        Ok(Operation::OnStream(name, OnStream::Append(append))) => format!("append to {name}: {append:?}"),
        Ok(other) => format!("another operation on {:?}", other.stream()),
        Err(error) => format!("{error:?}"),
    };
    format!("{:?} {:?} {:?} {operation}", log.form, log.framing, log.origin)
}
