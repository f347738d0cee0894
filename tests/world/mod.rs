//! Helpers of the scenarios: a gateway in its own process, and clients that see every byte it sends.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its part of the world")]

mod client;
pub mod command;
mod kind;
pub mod mqtt;
mod origin;
mod ports;
mod process;
pub mod provider;
mod publisher;
mod raw;
mod reader;
mod sse;
mod stopwatch;
mod webhooks;
mod websocket;
pub mod workers;

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

pub use client::{Answer, Connection, Request, delete, get, head, options, post, put, request};
pub use kind::Kind;
pub use origin::{Origin, Received, Reply};
pub use ports::reserved_port;
pub use process::{Gateway, is_release_build, program, send_signal};
pub use publisher::Publisher;
pub use raw::Raw;
pub use reader::{Batch, Form, Place, Reader, Refusal, next_line};
pub use sse::{Event, Events, Parser};
pub use stopwatch::{Stopwatch, Took, on_time};
pub use webhooks::{Webhook, WebhookServer};
pub use websocket::{Close, WebSocket, frame, handshake};

/// Hang detector: time limit for a condition to become true. It is no statement about the speed of a machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Held by a test that loads the machine or measures it, so that no other such test of its binary runs meanwhile.
pub async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Waits until `condition` is true. Panics with `what` after [`PATIENCE`].
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
