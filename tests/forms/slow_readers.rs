//! Readers of 1 KB a second beside fast ones: what they cost the gateway, and the fast ones.

mod latency;
mod memory;

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::world::{Form, Gateway, Publisher, Raw, handshake, until};

const READERS: usize = 100;

/// A reader in any form, before it has read any of the response. SSE and NDJSON ignore the fields of the handshake.
async fn ask(mut raw: Raw, publisher: &Publisher, form: Form, offset: &str) -> Raw {
    let target = format!("{}?live={}&offset={offset}", publisher.place.path, form.name());
    raw.send(handshake(&target) + "\r\n").await.unwrap();
    raw
}

/// Reads 1 KB a second, on a socket with small buffers.
struct Slow(JoinHandle<()>);

impl Slow {
    async fn start(gateway: &Gateway, publisher: &Publisher, form: Form, offset: &str) -> Self {
        let mut raw = ask(Raw::open_narrow(gateway.address).await, publisher, form, offset).await;
        Self(tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                raw.take(1024).await;
            }
        }))
    }

    /// Checks that it was served until now, and disconnects it.
    fn was_served(self) {
        assert!(!self.0.is_finished(), "a reader that reads was cut");
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until the gateway sends nothing more: the buffers of every slow reader are full.
async fn until_all_are_full(gateway: &Gateway) {
    let sent = async || {
        let mut sum = 0.0;
        for form in Form::LIVE {
            sum += gateway.metric(&format!("pollgate_live_bytes_total{{form=\"{}\"}}", form.name())).await;
        }
        sum
    };
    let before = std::cell::Cell::new(-1.0);
    until("readers that take no more", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = sent().await;
        before.replace(now) == now
    })
    .await;
}
