//! The access log: a line of JSON for each HTTP request to the gateway, written when its response is complete or its client has
//! left. [`audit`] is the log of what changes rights and streams. A thread writes the file of each (`lines`).

pub mod audit;
mod lines;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::time::Instant;

use lines::LineLog;

/// An access log that is written. Clones share it.
#[derive(Debug, Clone)]
pub struct AccessLog(LineLog);

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
        LineLog::open("access log", path, bytes_max, lost).map(Self)
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

    /// Opens the file again, since the one that is open was renamed.
    pub fn reopen(&self) {
        self.0.reopen();
    }

    /// Writes what is pending, and returns when it is written. Later lines are lost.
    pub fn close(&self) {
        self.0.close();
    }
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
        self.log.0.add(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
}
