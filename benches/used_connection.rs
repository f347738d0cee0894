//! Compares a connection that has sent requests which the fast path does not parse (PUT, HEAD, OPTIONS, a chunked POST) with a
//! fresh one: time and CPU time from a publish to the answer of a held poll, and memory of a held poll.
//!
//! `cargo bench --bench used_connection`; about half a minute. Uses a gateway process with the store in memory, and one client
//! thread in a closed loop with blocking sockets: it publishes, reads both answers, polls again. Blocks of 500 exchanges
//! alternate between the two kinds of connections; the first block of each is a warm-up. Fails if a ratio is above 1.05.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock of the machine")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const STREAM: &str = "/v1/stream/s";
const BLOCKS: usize = 24;
const EXCHANGES: usize = 500;
const HELD: usize = 8000;
const RATIO_MAX: f64 = 1.05;

/// Time for the memory allocator to return free memory to the system.
const SETTLING: Duration = Duration::from_secs(3);

struct Gateway {
    process: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start() -> Self {
        let any = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory"];
        let mut process = Command::new(env!("CARGO_BIN_EXE_pollgate"))
            .args(any)
            .args(["--limit", "connections_per_second_max=100000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening http://").unwrap().parse().unwrap();
        Self { process, address }
    }

    /// Returns the CPU time of all threads in nanoseconds.
    fn processor_time(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let statistics =
            tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap());
        statistics.map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Returns the anonymous memory in bytes.
    fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

struct Connection(TcpStream);

impl Connection {
    fn open(gateway: &Gateway, used: bool) -> Self {
        let stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Self(stream);
        if used {
            let json = "Host: localhost\r\nContent-Type: application/json\r\n";
            connection.exchange(&format!("PUT {STREAM} HTTP/1.1\r\n{json}Content-Length: 0\r\n\r\n"));
            connection.exchange(&format!("HEAD {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            connection.exchange(&format!("OPTIONS {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let chunks = "Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n";
            connection.exchange(&format!("POST {STREAM} HTTP/1.1\r\n{json}{chunks}"));
        }
        connection
    }

    fn send(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).unwrap();
    }

    /// Reads one response and returns its next offset.
    fn answer(&mut self) -> String {
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = self.0.read(&mut buffer).unwrap();
            assert!(count > 0, "the gateway closed the connection");
            read.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&read);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
            let length = field("content-length: ").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                assert!(head.starts_with("HTTP/1.1 2"), "{head}");
                return field("stream-next-offset: ").unwrap_or_default().to_owned();
            }
        }
    }

    fn exchange(&mut self, request: &str) -> String {
        self.send(request);
        self.answer()
    }

    fn poll(&mut self, offset: &str) {
        let target = format!("{STREAM}?offset={offset}&live=long-poll&timeout=55");
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
}

/// Returns the median time from a publish to both answers, and the server's CPU time per exchange, in microseconds.
fn block(gateway: &Gateway, publisher: &mut Connection, reader: &mut Connection) -> (f64, f64) {
    let json = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n1";
    let publish = format!("POST {STREAM} HTTP/1.1\r\n{json}");
    let (mut times, before) = (Vec::new(), gateway.processor_time());
    reader.poll("now");
    for _ in 0..EXCHANGES {
        // Long enough for the poll to be held.
        std::thread::sleep(Duration::from_micros(300));
        let sent = Instant::now();
        publisher.send(&publish);
        let next = reader.answer();
        publisher.answer();
        times.push(sent.elapsed().as_secs_f64() * 1e6);
        reader.poll(&next);
    }
    publisher.exchange(&publish);
    reader.answer();
    let processor = (gateway.processor_time() - before) as f64 / 1e3 / EXCHANGES as f64;
    (median(&mut times), processor)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the bytes of memory per held poll.
fn held_memory(used: bool) -> f64 {
    let gateway = Gateway::start();
    Connection::open(&gateway, true);
    // Memory that the first crowd leaves behind must not count for the second.
    drop(crowd(&gateway, used));
    std::thread::sleep(SETTLING);
    let before = gateway.memory();
    let crowd = crowd(&gateway, used);
    std::thread::sleep(SETTLING);
    (gateway.memory() - before) as f64 / crowd.len() as f64
}

fn crowd(gateway: &Gateway, used: bool) -> Vec<Connection> {
    let open = |_| {
        let mut connection = Connection::open(gateway, used);
        connection.poll("now");
        connection
    };
    (0..HELD).map(open).collect()
}

fn main() -> ExitCode {
    let gateway = Gateway::start();
    let mut kinds = [false, true].map(|used| {
        // The stream is created by a used connection.
        Connection::open(&gateway, true);
        (Connection::open(&gateway, used), Connection::open(&gateway, used))
    });
    let mut figures = [const { (Vec::new(), Vec::new()) }; 2];
    for number in 0..2 * BLOCKS {
        let (publisher, reader) = &mut kinds[number % 2];
        let (time, processor) = block(&gateway, publisher, reader);
        if number >= 2 {
            figures[number % 2].0.push(time);
            figures[number % 2].1.push(processor);
        }
    }
    drop(gateway);
    let [fresh, used] =
        figures.map(|(mut times, mut processor)| (median(&mut times), median(&mut processor)));
    let (fresh_memory, used_memory) = (held_memory(false), held_memory(true));
    println!("{:<34} {:>10} {:>10} {:>7}", "", "fresh", "used", "ratio");
    let mut worst = 0.0_f64;
    for (name, fresh, used) in [
        ("publish to both answers, p50, us", fresh.0, used.0),
        ("processor time an exchange, us", fresh.1, used.1),
        ("memory of a held poll, bytes", fresh_memory, used_memory),
    ] {
        println!("{name:<34} {fresh:>10.1} {used:>10.1} {:>7.3}", used / fresh);
        worst = worst.max(used / fresh);
    }
    if worst > RATIO_MAX {
        println!("a used connection costs more than {RATIO_MAX} times a fresh one");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
