//! Measures what a token adds to a short poll after its first use: the server's CPU time, and what the check allocates. The bars are
//! 1 us and nothing.
//!
//! `cargo bench --bench token`; `-- --no-check` prints the figures and does not fail. Half a minute. Rounds of two gateways
//! alternate, one without `--auth` and one with it, so that other load of the machine affects both alike.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench may panic"
)]
#![allow(clippy::disallowed_methods, reason = "a token has the time of day")]

mod figures;
#[path = "../tests/world/mod.rs"]
mod world;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use figures::{cpu_micros, median};
use pollgate::auth::{AuthSettings, Authenticator};
use pollgate::stream::Principal;
use tikv_jemalloc_ctl::thread;
use world::{Gateway, put};

const MICROS_MAX: f64 = 1.0;
const ROUNDS: usize = 15;
const REQUESTS: usize = 20_000;
const CHECKS: usize = 100_000;

/// The allocator of the command, which counts what each thread allocates.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    // `cargo test --all-targets` passes no argument, so nothing is measured there.
    if !given("--bench") {
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    pollgate(&["keygen", key.to_str().unwrap()]);
    let rights = ["--create", "#", "--append", "#", "--read", "#"];
    let token = pollgate(&[&["token", "--key-file", key.to_str().unwrap()], &rights[..]].concat());
    let bytes = bytes_of_checks(&key, &token);
    println!("{CHECKS} checks of a known token allocate {bytes} bytes");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let micros = runtime.block_on(micros_of_token(&key, &token));
    if (micros > MICROS_MAX || bytes != 0) && !given("--no-check") {
        eprintln!(
            "a token costs {micros:.2} us and {bytes} bytes; at most {MICROS_MAX} us and nothing are allowed"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn pollgate(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pollgate")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Returns the bytes that this thread allocates for checks of a token that was verified before.
fn bytes_of_checks(key: &Path, token: &str) -> u64 {
    let authenticator = Authenticator::new(&AuthSettings::read(key).unwrap()).unwrap();
    let value = format!("Bearer {token}");
    let check = || {
        authenticator.authorization(Some(value.as_bytes()), Principal::default(), SystemTime::now()).unwrap()
    };
    let allocated = thread::allocatedp::read().unwrap();
    (0..CHECKS / 10).for_each(|_| drop(check()));
    let before = allocated.get();
    (0..CHECKS).for_each(|_| drop(check()));
    allocated.get() - before
}

/// Prints the figures of all rounds. Returns how many microseconds of CPU time a token adds to a request.
async fn micros_of_token(key: &Path, token: &str) -> f64 {
    let (open, protected) =
        (Gateway::start(&[]).await, Gateway::start(&["--auth", key.to_str().unwrap()]).await);
    let field = format!("Authorization: Bearer {token}\r\n");
    let mut loads = Vec::new();
    for (gateway, name) in [(&open, "without --auth"), (&protected, "with a token")] {
        let bearer = format!("Bearer {token}");
        let create = put("/v1/stream/s").json("").header("authorization", &bearer);
        let tail = gateway.send(create).await.expect(201).next_offset();
        let request = format!(
            "GET /v1/stream/s?offset={tail} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.14.1\r\n{field}Accept: */*\r\n\r\n"
        );
        loads.push(Load {
            name,
            process: gateway.id(),
            address: gateway.address,
            request,
            costs: Vec::new(),
        });
    }
    for _ in 0..ROUNDS {
        for load in &mut loads {
            load.round();
        }
    }
    for load in &loads {
        println!("{:14} {:6.2} us of CPU time per short poll", load.name, median(load.costs.clone()));
    }
    let more = loads[1].costs.iter().zip(&loads[0].costs).map(|(with, without)| with - without);
    let more = median(more.collect());
    println!("a token costs {more:.2} us, the median of {ROUNDS} rounds of {REQUESTS} requests");
    more
}

/// Repeats one request on one connection.
struct Load {
    name: &'static str,
    process: u32,
    address: SocketAddr,
    request: String,
    /// The server's CPU time per request of each round, in microseconds.
    costs: Vec<f64>,
}

impl Load {
    fn round(&mut self) {
        let mut connection = TcpStream::connect(self.address).unwrap();
        connection.set_nodelay(true).unwrap();
        self.ask(&mut connection, 100);
        let before = cpu_micros(self.process);
        self.ask(&mut connection, REQUESTS);
        self.costs.push((cpu_micros(self.process) - before) / REQUESTS as f64);
    }

    fn ask(&self, connection: &mut TcpStream, times: usize) {
        let mut answer = [0; 4096];
        for _ in 0..times {
            connection.write_all(self.request.as_bytes()).unwrap();
            let mut length = 0;
            // `[]` is the body of a poll at the tail.
            while !answer[..length].ends_with(b"\r\n\r\n[]") {
                let read = connection.read(&mut answer[length..]).unwrap();
                assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer[..length]));
                length += read;
            }
        }
    }
}
