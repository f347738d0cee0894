//! The audit log: a line of JSON for each stream that is created or deleted, each client that takes over from another one, each
//! refusal for lack of rights, each revocation, and each call of an operator.
//!
//! What strangers do is bounded: in each interval of [`AUDIT_INTERVAL`] a number of lines is written, and further events are counted
//! in one line. Texts are cut. No line contains a token.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use super::LoggedAddress;
use super::lines::LineLog;

/// After this time, events are counted anew.
pub const AUDIT_INTERVAL: Duration = Duration::from_secs(10);

/// The longest text in a line, in characters.
const CHARACTERS_MAX: usize = 256;

/// Lines that wait to be written, in bytes.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditEvent {
    /// A stream was created.
    Created,
    /// A stream was deleted.
    Deleted,
    /// An MQTT client has taken the session over from a connection with the same client id, or a long poll has ended an older one.
    TookOver,
    /// A request or packet was refused for lack of rights.
    Refused,
    /// An operator has revoked tokens.
    Revoked,
    /// An operator has used the admin listener.
    Admin,
}

/// Who has done what.
#[derive(Debug, Clone, Serialize)]
pub struct AuditEntry<'a> {
    /// What has happened.
    pub event: AuditEvent,
    /// The subject: issuer and name. `None`: a client without credentials, or with invalid ones.
    pub who: Option<&'a str>,
    /// The stream, or the filter of streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<&'a str>,
    /// The client id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<&'a str>,
    /// Where the client is.
    pub address: Option<LoggedAddress>,
    /// Why, or what exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

#[derive(Serialize)]
struct AuditLine<'a> {
    time: &'a str,
    #[serde(flatten)]
    entry: AuditEntry<'a>,
}

/// Events that were not written, by their number.
#[derive(Serialize)]
struct Summary<'a> {
    time: &'a str,
    event: &'static str,
    of: &'static str,
    count: u64,
}

/// Events of one kind in the present interval.
#[derive(Debug)]
struct Bound {
    max: u64,
    count: AtomicU64,
}

/// An audit log that is written. Clones share it.
#[derive(Debug, Clone)]
pub struct AuditLog {
    lines: LineLog,
    bounds: Arc<[Bound; 2]>,
}

impl<'a> AuditEntry<'a> {
    /// An entry without details.
    pub fn new(event: AuditEvent) -> Self {
        let [who, stream, client, reason] = [None; 4];
        Self { event, who, stream, client, address: None, reason }
    }

    fn cut(self) -> Self {
        let Self { event, who, stream, client, address, reason } = self;
        Self { event, who: cut(who), stream: cut(stream), client: cut(client), address, reason: cut(reason) }
    }
}

/// The beginning of a text.
fn cut(text: Option<&str>) -> Option<&str> {
    text.map(|text| text.char_indices().nth(CHARACTERS_MAX).map_or(text, |(end, _)| text.split_at(end).0))
}

impl Bound {
    fn new(max: u64) -> Self {
        Self { max, count: AtomicU64::new(0) }
    }

    fn admits(&self) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed) < self.max
    }
}

impl AuditLog {
    /// Writes the log to the end of the file at `path`. In each interval, at most `refusals_max` refusals and `others_max` other
    /// events have lines of their own. `lost` counts the lines that cannot be written.
    pub fn open(path: &Path, refusals_max: u64, others_max: u64, lost: Counter) -> io::Result<Self> {
        let lines = LineLog::open("audit log", Some(path), PENDING_BYTES_MAX, lost)?;
        Ok(Self { lines, bounds: Arc::new([refusals_max, others_max].map(Bound::new)) })
    }

    /// Writes a line, unless there are too many. `time` is the time of day.
    pub fn write(&self, entry: AuditEntry<'_>, time: impl FnOnce() -> String) {
        let [refusals, others] = &*self.bounds;
        let bound = if entry.event == AuditEvent::Refused { refusals } else { others };
        if bound.admits() {
            self.add(&AuditLine { time: &time(), entry: entry.cut() });
        }
    }

    /// Ends an interval: writes how many events had no line of their own. To be called once in [`AUDIT_INTERVAL`].
    pub fn summarize(&self, time: impl Fn() -> String) {
        for (bound, of) in self.bounds.iter().zip(["refused", "others"]) {
            let count = bound.count.swap(0, Ordering::Relaxed).saturating_sub(bound.max);
            if count > 0 {
                self.add(&Summary { time: &time(), event: "not-listed", of, count });
            }
        }
    }

    /// Opens the file again, since the one that is open was renamed.
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// Writes what is pending, and returns when it is written. Later lines are lost.
    pub fn close(&self) {
        self.lines.close();
    }

    fn add(&self, line: &impl Serialize) {
        // A line of texts and numbers can always be serialized.
        let mut bytes = serde_json::to_vec(line).unwrap_or_default();
        bytes.push(b'\n');
        self.lines.add(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_strangers_cause_is_bounded_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let log = AuditLog::open(&path, 2, 100, Counter::default()).unwrap();
        let time = || "now".to_owned();
        let long = "x".repeat(10_000);
        for _ in 0..50 {
            log.write(AuditEntry { stream: Some(&long), ..AuditEntry::new(AuditEvent::Refused) }, time);
        }
        let who = Some("pollgate anna");
        log.write(AuditEntry { who, stream: Some("a"), ..AuditEntry::new(AuditEvent::Created) }, time);
        log.summarize(time);
        log.summarize(time);
        log.write(AuditEntry::new(AuditEvent::Refused), time);
        log.close();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["refused", "refused", "created", "not-listed", "refused"]);
        assert_eq!(lines[0]["stream"].as_str().unwrap().len(), CHARACTERS_MAX);
        let created = json!({"time": "now", "event": "created", "who": who, "stream": "a", "address": null});
        assert_eq!(lines[2], created);
        assert_eq!((&lines[3]["of"], &lines[3]["count"]), (&json!("refused"), &json!(48)));
    }
}
