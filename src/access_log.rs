//! The access log: a line of JSON for each HTTP request to the gateway, written when its response is complete or its client has
//! left.
//!
//! Requests never wait for the file: they add their line to a buffer of bounded size, which a thread writes. Lines that do not
//! fit into it are counted and lost. The file may be renamed or removed at any time, as programs that rotate logs do; a new one
//! is created within a second of the next line.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::time::Instant;

/// How often it is checked that the file is still at its path, and how often a failed write is logged.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// An access log that is written. Clones share it.
#[derive(Debug, Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    is_pending: Condvar,
    bytes_max: usize,
    lost: Counter,
}

/// Lines that are not written yet.
#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    /// No line follows, and the thread ends.
    is_closed: bool,
}

/// Where the lines are written.
enum Sink {
    StandardOutput,
    File { path: PathBuf, file: File, checked: Instant },
}

/// A request in the access log. Its line is written when this is dropped.
#[derive(Debug)]
pub struct AccessEntry {
    log: AccessLog,
    since: Instant,
    line: Line,
}

/// The fields of a line.
#[derive(Debug, Serialize)]
struct Line {
    /// When the request was received.
    time: String,
    address: Option<LoggedAddress>,
    method: String,
    /// The request target: path and query.
    path: String,
    form: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// `None` if the client reset its connection before the response.
    status: Option<u16>,
    /// Bytes of the body, or of the messages of a WebSocket.
    bytes: u64,
    /// From the complete request to the response; for a live form to its end.
    held_ms: u64,
}

/// The address of a client.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum LoggedAddress {
    /// Address and port from which the client is connected.
    Peer(SocketAddr),
    /// The address that a proxy in front of the gateway tells.
    Told(IpAddr),
}

/// The parts of a request that its line shows.
#[derive(Debug, Clone, Copy)]
pub struct LoggedRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The operation or delivery form.
    pub form: &'static str,
    /// The client id, if the request has one.
    pub client: Option<&'a str>,
}

impl AccessLog {
    /// Writes the log to the end of the file at `path`, which is created if it does not exist, or to standard output. At most
    /// `bytes_max` bytes wait to be written; `lost` counts the lines that do not fit or cannot be written.
    pub fn open(path: Option<&Path>, bytes_max: usize, lost: Counter) -> io::Result<Self> {
        let mut sink = match path {
            None => Sink::StandardOutput,
            Some(path) => {
                Sink::File { path: path.to_owned(), file: append_to(path)?, checked: Instant::now() }
            }
        };
        let (pending, is_pending) = Default::default();
        let shared = Arc::new(Shared { pending, is_pending, bytes_max, lost });
        let of_writer = shared.clone();
        let writer = thread::Builder::new().name("access log".into());
        let writer = writer.spawn(move || of_writer.write_all(&mut sink))?;
        Ok(Self { shared, writer: Arc::new(Mutex::new(Some(writer))) })
    }

    /// Begins the entry of a request that was received at `time`.
    pub fn begin(&self, request: LoggedRequest<'_>, time: String) -> AccessEntry {
        let LoggedRequest { method, target, form, client } = request;
        let line = Line {
            time,
            address: None,
            method: method.to_owned(),
            path: target.to_owned(),
            form,
            client: client.map(str::to_owned),
            status: None,
            bytes: 0,
            held_ms: 0,
        };
        AccessEntry { log: self.clone(), since: Instant::now(), line }
    }

    /// Writes what is pending, and returns when it is written. Later lines are lost.
    pub fn close(&self) {
        self.shared.pending.lock().is_closed = true;
        self.shared.is_pending.notify_one();
        if let Some(writer) = self.writer.lock().take() {
            // The thread does not panic; if it did, there is nothing left to write.
            let _ended = writer.join();
        }
    }
}

impl Shared {
    fn add(&self, line: &[u8]) {
        let mut pending = self.pending.lock();
        if pending.is_closed || pending.lines.len() + line.len() > self.bytes_max {
            self.lost.inc();
            return;
        }
        let was_empty = pending.lines.is_empty();
        pending.lines.extend_from_slice(line);
        drop(pending);
        if was_empty {
            self.is_pending.notify_one();
        }
    }

    /// Writes lines until the log is closed.
    fn write_all(&self, sink: &mut Sink) {
        let mut lines = Vec::new();
        let mut warned: Option<Instant> = None;
        loop {
            let mut pending = self.pending.lock();
            while pending.lines.is_empty() && !pending.is_closed {
                self.is_pending.wait(&mut pending);
            }
            std::mem::swap(&mut lines, &mut pending.lines);
            drop(pending);
            if lines.is_empty() {
                return;
            }
            if let Err(error) = sink.write(&lines) {
                self.lost.inc_by(lines.iter().filter(|byte| **byte == b'\n').count() as u64);
                if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, "cannot write the access log; lines are lost");
                }
            }
            lines.clear();
        }
    }
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::StandardOutput => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File { path, file, checked } => {
                if checked.elapsed() >= CHECK_INTERVAL {
                    *checked = Instant::now();
                    if !is_at(file, path) {
                        *file = append_to(path)?;
                    }
                }
                file.write_all(lines)
            }
        }
    }
}

/// Whether a file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Opens a file for appending. Only its owner and group can read it, because names of streams may be confidential.
fn append_to(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o640).open(path)
}

impl AccessEntry {
    /// Sets the address of the client.
    pub fn set_address(&mut self, address: Option<LoggedAddress>) {
        self.line.address = address;
    }

    /// Whether the address of the client is set.
    pub fn has_address(&self) -> bool {
        self.line.address.is_some()
    }

    /// Sets the status of the response.
    pub fn set_status(&mut self, status: u16) {
        self.line.status = Some(status);
    }

    /// Counts bytes that are sent to the client.
    pub fn add_bytes(&mut self, bytes: usize) {
        self.line.bytes += bytes as u64;
    }
}

impl Drop for AccessEntry {
    fn drop(&mut self) {
        self.line.held_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A line of texts and numbers can always be serialized.
        let mut line = serde_json::to_vec(&self.line).unwrap_or_default();
        line.push(b'\n');
        self.log.shared.add(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: LoggedRequest<'static> =
        LoggedRequest { method: "GET", target: "/v1/stream/a?offset=\"\n", form: "short-poll", client: None };

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_line_says_what_was_asked_and_answered() {
        let directory = directory();
        let path = directory.path().join("log");
        let log = AccessLog::open(Some(&path), 1 << 20, Counter::default()).unwrap();
        let mut entry = log.begin(REQUEST, "2025-01-01T00:00:00.000Z".into());
        entry.set_address(Some(LoggedAddress::Peer(([127, 0, 0, 1], 80).into())));
        entry.set_status(200);
        entry.add_bytes(7);
        drop(entry);
        drop(log.begin(LoggedRequest { client: Some("phone"), ..REQUEST }, String::new()));
        log.close();
        let lines = lines(&path);
        assert_eq!((&lines[0]["path"], &lines[0]["status"]), (&REQUEST.target.into(), &200.into()));
        assert_eq!((&lines[0]["address"], &lines[0]["bytes"]), (&"127.0.0.1:80".into(), &7.into()));
        assert!(lines[0]["held_ms"].is_u64() && lines[0].get("client").is_none(), "{}", lines[0]);
        assert!(
            lines[1]["status"].is_null() && lines[1]["client"] == "phone",
            "a client that left: {}",
            lines[1]
        );
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_the_others_are_whole() {
        let directory = directory();
        let path = directory.path().join("log");
        let lost = Counter::default();
        let log = AccessLog::open(Some(&path), 1000, lost.clone()).unwrap();
        let pending = log.shared.pending.lock();
        let threads: Vec<_> = (0..20)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || drop(log.begin(REQUEST, String::new())))
            })
            .collect();
        drop(pending);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        log.close();
        drop(log.begin(REQUEST, String::new()));
        assert_eq!(lines(&path).len() as u64 + lost.get(), 21, "the last one comes after the close");
        assert!(lost.get() >= 1);
    }

    #[test]
    fn a_file_that_was_renamed_is_followed_by_a_new_one() {
        let directory = directory();
        let path = directory.path().join("log");
        let mut sink =
            Sink::File { path: path.clone(), file: append_to(&path).unwrap(), checked: Instant::now() };
        sink.write(b"1\n").unwrap();
        fs::rename(&path, directory.path().join("log.1")).unwrap();
        if let Sink::File { checked, .. } = &mut sink {
            *checked -= CHECK_INTERVAL;
        }
        sink.write(b"2\n").unwrap();
        assert_eq!((lines(&directory.path().join("log.1")), lines(&path)), (vec![1.into()], vec![2.into()]));
    }
}
