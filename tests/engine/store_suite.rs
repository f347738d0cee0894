//! Stores for the suite of all stores, each with an engine of its own.

use std::sync::LazyLock;

use pollgate::budget::Budget;
use pollgate::metrics::EngineMetrics;
use pollgate::store::{NewsRoom, Redis, RedisOptions};
use tokio::runtime::{Builder, Runtime};

use crate::server::Engine;
use crate::suite::Made;

/// The tasks of all stores run here, as tests call from runtimes of their own.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

/// Creates an empty store.
pub fn make() -> Made {
    let engine = RUNTIME.handle().clone();
    let engine = std::thread::spawn(move || engine.block_on(Engine::volatile())).join().unwrap();
    let options = RedisOptions {
        url: engine.url(),
        ca_file: None,
        password_file: None,
        gateway: "a".to_owned(),
        follows_engine_clock: false,
        news_room: NewsRoom { bytes_max: 1 << 20, stream_bytes_max: 1 << 16 },
        metrics: EngineMetrics::default(),
    };
    let store = Redis::new(options, Budget::unlimited(), RUNTIME.handle().clone()).unwrap();
    Made { store: Box::new(store), needs: Some(Box::new(engine)) }
}
