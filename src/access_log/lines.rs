//! A file of lines, or standard output, that a thread writes.
//!
//! Nobody waits for the file: lines are added to a buffer of bounded size. Lines that do not fit into it are counted and lost. The
//! file may be renamed or removed at any time, as programs that rotate logs do; a new one is created within a second of the next
//! line, or when the log is told to.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

/// How often it is checked that the file is still at its path, and how often a failed write is logged.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Lines that are written. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct LineLog {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    /// What the log is called in warnings.
    name: &'static str,
    pending: Mutex<Pending>,
    is_pending: Condvar,
    bytes_max: usize,
    lost: Counter,
}

/// What the thread has to do.
#[derive(Debug, Default)]
struct Pending {
    /// Lines that are not written yet.
    lines: Vec<u8>,
    /// The file is opened again.
    reopens: bool,
    /// No line follows, and the thread ends.
    is_closed: bool,
}

/// Where the lines are written.
enum Sink {
    StandardOutput,
    File { path: PathBuf, file: File, checked: Instant },
}

impl LineLog {
    /// Writes to the end of the file at `path`, which is created if it does not exist, or to standard output. At most `bytes_max`
    /// bytes wait to be written; `lost` counts the lines that do not fit or cannot be written.
    pub(super) fn open(
        name: &'static str,
        path: Option<&Path>,
        bytes_max: usize,
        lost: Counter,
    ) -> io::Result<Self> {
        let mut sink = match path {
            None => Sink::StandardOutput,
            Some(path) => {
                Sink::File { path: path.to_owned(), file: append_to(path)?, checked: Instant::now() }
            }
        };
        let (pending, is_pending) = Default::default();
        let shared = Arc::new(Shared { name, pending, is_pending, bytes_max, lost });
        let of_writer = shared.clone();
        let writer = thread::Builder::new().name(name.into());
        let writer = writer.spawn(move || of_writer.write_all(&mut sink))?;
        Ok(Self { shared, writer: Arc::new(Mutex::new(Some(writer))) })
    }

    /// Adds a line, which ends with a line feed.
    pub(super) fn add(&self, line: &[u8]) {
        self.shared.add(line);
    }

    /// Opens the file again, since the one that is open was renamed.
    pub(super) fn reopen(&self) {
        self.shared.pending.lock().reopens = true;
        self.shared.is_pending.notify_one();
    }

    /// Writes what is pending, and returns when it is written. Later lines are lost.
    pub(super) fn close(&self) {
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
            while pending.lines.is_empty() && !pending.is_closed && !pending.reopens {
                self.is_pending.wait(&mut pending);
            }
            std::mem::swap(&mut lines, &mut pending.lines);
            let (reopens, is_closed) = (std::mem::take(&mut pending.reopens), pending.is_closed);
            drop(pending);
            let outcome = if reopens { sink.reopen() } else { Ok(()) };
            if lines.is_empty() && is_closed {
                return;
            }
            if let Err(error) = outcome.and_then(|()| sink.write(&lines)) {
                self.lost.inc_by(lines.iter().filter(|byte| **byte == b'\n').count() as u64);
                if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, "cannot write the {}; lines are lost", self.name);
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

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File { path, file, .. } = self {
            *file = append_to(path)?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_the_others_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let lost = Counter::default();
        let log = LineLog::open("test log", Some(&path), 10, lost.clone()).unwrap();
        let pending = log.shared.pending.lock();
        let threads: Vec<_> = (0..20)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || log.add(b"line\n"))
            })
            .collect();
        drop(pending);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        log.close();
        log.add(b"late\n");
        let written = read(&path);
        assert!(written.lines().all(|line| line == "line"), "{written}");
        assert_eq!(written.lines().count() as u64 + lost.get(), 21, "the last one comes after the close");
        assert!(lost.get() >= 1);
    }

    #[test]
    fn a_file_that_was_renamed_is_followed_by_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let (path, renamed) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut sink =
            Sink::File { path: path.clone(), file: append_to(&path).unwrap(), checked: Instant::now() };
        sink.write(b"1\n").unwrap();
        fs::rename(&path, &renamed).unwrap();
        if let Sink::File { checked, .. } = &mut sink {
            *checked -= CHECK_INTERVAL;
        }
        sink.write(b"2\n").unwrap();
        assert_eq!((read(&renamed), read(&path)), ("1\n".to_owned(), "2\n".to_owned()));
    }

    #[test]
    fn a_log_that_is_told_to_creates_its_file_again_before_the_next_line() {
        let directory = tempfile::tempdir().unwrap();
        let (path, renamed) = (directory.path().join("log"), directory.path().join("log.1"));
        let log = LineLog::open("test log", Some(&path), 100, Counter::default()).unwrap();
        log.add(b"1\n");
        while read(&path).is_empty() {
            thread::yield_now();
        }
        fs::rename(&path, &renamed).unwrap();
        log.reopen();
        log.add(b"2\n");
        log.close();
        assert_eq!((read(&renamed), read(&path)), ("1\n".to_owned(), "2\n".to_owned()));
    }
}
