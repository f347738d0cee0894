//! [`Process`]: a child process with its process group; a drop kills the group and all descendants.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ServerError;
use crate::cost::Family;

/// Time limit from the start of a program until it listens.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit to read the rest of an ended program's error output.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Interval of connection attempts to a program that does not report that it listens.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A running child process.
pub struct Process {
    name: String,
    child: Child,
    id: u32,
    output: Option<Lines<BufReader<ChildStdout>>>,
    last_words: Arc<Mutex<String>>,
    /// Task that reads its error output to the end.
    listener: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a program in its own process group, so that Ctrl-C reaches it only through this program.
    pub fn start(program: &Path, arguments: &[String]) -> Result<Self, ServerError> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let spawned = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|error| ServerError::Spawn(name.clone(), error))?;
        let id = child.id().unwrap_or_default();
        let output = child.stdout.take().map(|output| BufReader::new(output).lines());
        let last_words = Arc::new(Mutex::new(String::new()));
        let listener = child.stderr.take().map(|errors| {
            let (mut errors, last_words) = (BufReader::new(errors).lines(), last_words.clone());
            tokio::spawn(async move {
                while let Ok(Some(line)) = errors.next_line().await {
                    *last_words.lock() = line;
                }
            })
        });
        Ok(Self { name, child, id, output, last_words, listener })
    }

    /// Returns the process and its descendants, to measure their cost.
    pub fn family(&self) -> Family {
        Family::of(self.id)
    }

    /// Kills it and waits until it is gone.
    pub(super) async fn end(mut self) {
        self.kill();
        // A failure to wait changes nothing.
        let _status = timeout(START_TIMEOUT, self.child.wait()).await;
    }

    /// Returns the next line of its output; an error if none arrives in time.
    pub async fn line(&mut self) -> Result<String, ServerError> {
        let Some(output) = &mut self.output else { return Err(ServerError::Mute(self.name.clone())) };
        match timeout(START_TIMEOUT, output.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(_) => Err(self.ended().await),
            Err(_) => Err(ServerError::Mute(self.name.clone())),
        }
    }

    /// Waits until it listens at `address`; an error if it ends or does not listen in time.
    pub async fn listens(&mut self, address: SocketAddr) -> Result<(), ServerError> {
        let connects = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            listens = timeout(START_TIMEOUT, connects) => {
                listens.map_err(|_| ServerError::Mute(self.name.clone()))
            }
            _ = self.child.wait() => Err(self.ended().await),
        }
    }

    /// Returns the error of an ended program, with its last words.
    async fn ended(&mut self) -> ServerError {
        let status = timeout(START_TIMEOUT, self.child.wait()).await;
        // Its error output is in the pipe when it ends. A descendant may keep the pipe open.
        if let Some(listener) = self.listener.take() {
            let _heard_or_not = timeout(LAST_WORDS, listener).await;
        }
        let words = self.last_words.lock().clone();
        match status {
            Ok(Ok(status)) if words.is_empty() => ServerError::Ended(self.name.clone(), status.to_string()),
            _ => ServerError::Ended(self.name.clone(), words),
        }
    }

    /// Kills its group, and descendants in groups of their own.
    fn kill(&self) {
        // Once it has been waited for, another process may have its id.
        let family = self.child.id().map(|id| Family::of(id).members());
        let descendants = family.into_iter().flatten().skip(1);
        let descendants: Vec<_> =
            descendants.filter_map(|id| Pid::from_raw(i32::try_from(id).ok()?)).collect();
        if let Some(group) = i32::try_from(self.id).ok().and_then(Pid::from_raw) {
            // It may already have ended.
            let _gone = kill_process_group(group, Signal::KILL);
        }
        for descendant in descendants {
            let _gone = kill_process(descendant, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the first line that a program prints to its output or, if that is empty, to its error output.
pub(super) fn first_line(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(arguments).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

/// Returns the version of a Debian package whose program does not tell its own.
pub(super) fn package_version(package: &str) -> Option<String> {
    first_line(Path::new("/usr/bin/dpkg-query"), &["-W", "-f", "${Version}\n", package])
}
