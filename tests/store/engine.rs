//! The store in Redis, each with an engine of its own.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use pollgate::store::{Redis, RedisOptions};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::directory::directory;
use crate::suite::Made;

/// The tasks of all stores run here, as tests call from runtimes of their own.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

/// A server that ends with this value.
struct Engine {
    server: Child,
    directory: TempDir,
}

impl Engine {
    /// Starts the server of `ENGINE_BINARY`, which is `redis-server` by default, on a socket in a directory.
    fn start() -> Self {
        let directory = directory();
        let binary = std::env::var("ENGINE_BINARY").unwrap_or_else(|_| "redis-server".to_owned());
        let server = Command::new(&binary)
            .args(["--port", "0", "--unixsocket", "socket", "--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path())
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {binary}: {error}; apt-get install redis-server"));
        let engine = Self { server, directory };
        for _ in 0..2000 {
            if UnixStream::connect(engine.directory.path().join("socket")).is_ok() {
                return engine;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{binary} does not start");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.server.kill();
        let _status = self.server.wait();
    }
}

/// Creates an empty store.
pub fn make() -> Made {
    let engine = Engine::start();
    let url = format!("redis+unix://{}/socket", engine.directory.path().display());
    let options = RedisOptions { url, gateway: "a".to_owned(), follows_engine_clock: false };
    let store = Redis::new(options, RUNTIME.handle().clone()).unwrap();
    Made { store: Box::new(store), needs: Some(Box::new(engine)) }
}
