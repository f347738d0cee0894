//! Measures the server's CPU time per short poll, relative to a bare hyper server that answers with a fixed text. The project's
//! goal is a ratio of at most 1.2.
//!
//! `cargo bench --bench short_poll`; `-- --no-check` prints the figures and does not fail. About a minute and a half. Rounds of
//! both servers alternate, so that other load of the machine affects both alike. The result is the median of the ratios within
//! each round.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench may panic"
)]

mod figures;
#[path = "../tests/world/mod.rs"]
mod world;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};

use figures::{cpu_micros, median};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use world::{Gateway, get, post, put};

const RATIO_MAX: f64 = 1.2;
const ROUNDS: usize = 9;
const REQUESTS: usize = 100_000;
const CONNECTIONS: usize = 16;
const MESSAGE_BYTES: usize = 100;

/// The argument that makes this program run the bare server instead of the bench.
const HELLO: &str = "hello";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    if given(HELLO) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(serve_hello());
    } else if given("--bench") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ratio = runtime.block_on(compare());
        if ratio > RATIO_MAX && !given("--no-check") {
            eprintln!("a short poll costs {ratio:.2} times a bare answer; at most {RATIO_MAX} is allowed");
            return ExitCode::FAILURE;
        }
    }
    // `cargo test --all-targets` passes no argument, so nothing is measured there.
    ExitCode::SUCCESS
}

/// Runs all rounds and prints the figures. Returns the larger of the two ratios.
async fn compare() -> f64 {
    let (_hello, hello_id, hello_address) = start_hello().await;
    let gateway = Gateway::start(&[]).await;
    let (at_tail, with_message) = targets(&gateway).await;
    let kinds = [
        ("bare hyper", Load::new(hello_id, hello_address, "/")),
        ("at the tail", Load::new(gateway.id(), gateway.address, &at_tail)),
        ("one message", Load::new(gateway.id(), gateway.address, &with_message)),
    ];
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for ((_, load), costs) in kinds.iter().zip(&mut costs) {
            costs.push(load.round().await);
        }
    }
    println!("server CPU per request, median of {ROUNDS} rounds of {REQUESTS} requests:");
    let mut ratio_max: f64 = 0.0;
    for ((name, _), costs_of_kind) in kinds.iter().zip(&costs) {
        let ratio = median(costs_of_kind.iter().zip(&costs[0]).map(|(cost, bare)| cost / bare).collect());
        let micros = median(costs_of_kind.clone());
        println!("  {name:12} {micros:6.2} us  ratio {ratio:.3}");
        ratio_max = ratio_max.max(ratio);
    }
    ratio_max
}

/// Creates a stream with a few messages. Returns the targets of a poll that finds nothing and of one that finds one message.
async fn targets(gateway: &Gateway) -> (String, String) {
    let stream = "/v1/stream/room/1";
    gateway.send(put(stream).json("")).await.expect(201);
    let message = format!("\"{}\"", "x".repeat(MESSAGE_BYTES - 2));
    let mut offsets = Vec::new();
    for _ in 0..4 {
        let appended = gateway.send(post(stream).json(&message)).await.expect(204);
        offsets.push(format!("{stream}?offset={}", appended.next_offset()));
    }
    let (tail, before) = (offsets.pop().unwrap(), offsets.pop().unwrap());
    assert_eq!(gateway.send(get(&tail)).await.expect(200).text(), "[]");
    assert_eq!(gateway.send(get(&before)).await.expect(200).text(), format!("[{message}]"));
    (tail, before)
}

/// Repeats one request on connections that stay open.
struct Load {
    process: u32,
    address: SocketAddr,
    request: String,
}

impl Load {
    fn new(process: u32, address: SocketAddr, target: &str) -> Self {
        let fields = format!("Host: {address}\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n");
        Self { process, address, request: format!("GET {target} HTTP/1.1\r\n{fields}\r\n") }
    }

    /// Returns the server's CPU microseconds per request; connecting is not counted.
    async fn round(&self) -> f64 {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = TcpStream::connect(self.address).await.unwrap();
            connection.set_nodelay(true).unwrap();
            ask(&mut connection, &self.request, 10).await;
            connections.push(connection);
        }
        let before = cpu_micros(self.process);
        let polling = connections.into_iter().map(|mut connection| {
            let request = self.request.clone();
            tokio::spawn(async move {
                ask(&mut connection, &request, REQUESTS / CONNECTIONS).await;
                connection
            })
        });
        // The connections stay open until the CPU time is read.
        let polling: Vec<_> = polling.collect();
        let mut open = Vec::new();
        for connection in polling {
            open.push(connection.await.unwrap());
        }
        (cpu_micros(self.process) - before) / REQUESTS as f64
    }
}

async fn ask(connection: &mut TcpStream, request: &str, times: usize) {
    let mut answer = Vec::with_capacity(4096);
    for _ in 0..times {
        connection.write_all(request.as_bytes()).await.unwrap();
        answer.clear();
        while !is_whole(&answer) {
            assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0, "the server closed");
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = memchr::memmem::find(answer, b"\r\n\r\n") else { return false };
    let (head, body) = (std::str::from_utf8(&answer[..head]).unwrap(), &answer[head + 4..]);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() == length.parse::<usize>().unwrap()
}

async fn start_hello() -> (Child, u32, SocketAddr) {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    let mut child = command.arg(HELLO).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    let id = child.id().unwrap();
    (child, id, line.trim().parse().unwrap())
}

/// The bare server: hyper's own cost for a fixed response.
async fn serve_hello() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let hello = |_: Request<Incoming>| async {
        let mut answer = Response::new(Full::new(Bytes::from_static(b"hello\n")));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok::<_, Infallible>(answer)
    };
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let mut settings = http1::Builder::new();
            settings.timer(TokioTimer::new());
            let _ended = settings.serve_connection(TokioIo::new(stream), service_fn(hello)).await;
        });
    }
}
