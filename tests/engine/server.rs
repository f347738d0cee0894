//! [`Engine`]: a Redis or Valkey server of its own for each test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::world::{Gateway, PATIENCE, until};

/// A server on a socket in a directory of its own. A drop kills it.
pub struct Engine {
    server: Child,
    directory: TempDir,
    arguments: Vec<String>,
}

impl Engine {
    /// Starts a server with additional arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let server = spawn(&directory, &arguments);
        let engine = Self { server, directory, arguments };
        engine.listens().await;
        engine
    }

    /// Starts a server that keeps nothing over a restart.
    pub async fn volatile() -> Self {
        Self::start(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server that syncs each change before it answers.
    pub async fn durable() -> Self {
        Self::start(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).await
    }

    async fn listens(&self) {
        until("the engine listens", async || self.connect().is_ok()).await;
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.directory.path().join("socket"))
    }

    /// The URL for `--store`.
    pub fn url(&self) -> String {
        format!("redis+unix://{}/socket", self.directory.path().display())
    }

    /// Sends a command and returns the first line of its answer, and of a list its last line.
    pub fn command(&self, command: &str) -> String {
        let mut connection = self.connect().unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut lines = BufReader::new(connection).lines().map(|line| line.unwrap());
        let first = lines.next().expect("an answer");
        match first.strip_prefix('*') {
            // Each item is a number, or a length and a text.
            Some(count) => {
                let count: usize = count.parse().unwrap();
                (0..count).fold(first.clone(), |_, _| {
                    let item = lines.next().expect("an item");
                    if item.starts_with('$') { lines.next().expect("a text") } else { item }
                })
            }
            None => first,
        }
    }

    /// Stops the server, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.server.id() as i32).expect("a process id"), signal).unwrap();
    }

    /// Kills the server as a crash would.
    pub fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Starts it again on the files that it has left.
    pub async fn restart(&mut self) {
        self.server = spawn(&self.directory, &self.arguments);
        self.listens().await;
    }

    /// Starts a gateway on the engine.
    pub async fn gateway(&self, name: &str) -> Gateway {
        self.gateway_with(name, &[]).await
    }

    /// Starts a gateway with additional arguments, and waits until it follows the news.
    pub async fn gateway_with(&self, name: &str, arguments: &[&str]) -> Gateway {
        let url = self.url();
        let arguments = [&["--store", url.as_str(), "--gateway-name", name], arguments].concat();
        let subscribers = self.subscribers();
        let gateway = Gateway::start(&arguments).await;
        until("the gateway follows the news", async || self.subscribers() > subscribers).await;
        gateway
    }

    /// Number of connections that follow the news of the last partition.
    pub fn subscribers(&self) -> usize {
        let answer = self.command("PUBSUB SHARDNUMSUB pollgate:{127}:news");
        answer.rsplit(':').next().and_then(|count| count.trim().parse().ok()).unwrap_or_default()
    }
}

fn spawn(directory: &TempDir, arguments: &[String]) -> Child {
    let binary = std::env::var("ENGINE_BINARY").unwrap_or_else(|_| "redis-server".to_owned());
    let server = Command::new(&binary)
        .args(["--port", "0", "--unixsocket", "socket", "--dir"])
        .arg(directory.path())
        .args(arguments)
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .spawn();
    server.unwrap_or_else(|error| panic!("cannot start {binary}: {error}; apt-get install redis-server"))
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.server.kill();
        let _status = self.server.wait();
    }
}
