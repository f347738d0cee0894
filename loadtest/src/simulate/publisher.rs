//! Publishes to one phone at random times, by the Rust client beside the gateway.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use pollgate::server::Running;
use pollgate_client::{BuildError, Client};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::phone::{Text, stream};
use crate::wire::pair;

/// Messages of one phone that the gateway has acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Published {
    count: AtomicU64,
    refused: AtomicU64,
}

impl Published {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Messages that were not acknowledged.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// A client beside the gateway: without a network between them.
pub(super) fn beside(gateway: Arc<Running>) -> Result<Client, BuildError> {
    let connect = move |_: &str, _| direct(gateway.clone());
    Client::builder("http://localhost").connector(connect).build()
}

async fn direct(gateway: Arc<Running>) -> io::Result<TcpStream> {
    let (own, gateway_end) = pair()?;
    gateway.serve(gateway_end, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000))).await;
    Ok(own)
}

/// Publishes messages on average `every` so often, at the times of a Poisson process, until `end`.
pub(crate) async fn publish(
    client: Client,
    phone: u32,
    every: Duration,
    mut random: Rng,
    (began, end): (Instant, Instant),
    published: Arc<Published>,
) {
    let producer = client.producer(&stream(phone), "application/json");
    let mut next = began;
    loop {
        next += every.mul_f64(-(1.0 - random.f64()).ln());
        if next >= end {
            return;
        }
        sleep_until(next).await;
        let at = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let text = serde_json::to_string(&Text { number: published.count(), at }).unwrap_or_default();
        match producer.publish(text).await {
            Ok(_) => published.count.fetch_add(1, Ordering::Relaxed),
            Err(_) => published.refused.fetch_add(1, Ordering::Relaxed),
        };
    }
}
