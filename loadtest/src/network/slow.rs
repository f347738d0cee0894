//! A slow line with a long delay: each connection has a limited bandwidth in each direction, and each byte is delayed.

use std::io;

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Duration, Instant, sleep_until};

use super::hop::Clock;
use super::relay::{READ_BYTES, reset};

/// Maximum reads in transit; further data waits at its sender.
const ON_THE_WAY: usize = 64;

/// Limits bandwidth and adds delay.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Slow {
    /// Bandwidth in each direction.
    pub bytes_per_second: f64,
    /// One-way delay.
    pub delay: Clock,
}

impl Slow {
    /// Relays a connection.
    pub(super) async fn carry(&self, mut near: TcpStream, mut far: TcpStream) {
        let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
        if tokio::try_join!(self.way(from_near, to_far), self.way(from_far, to_near)).is_err() {
            reset([near, far]);
        }
    }

    async fn way(&self, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let (sender, receiver) = channel(ON_THE_WAY);
        tokio::try_join!(self.send(from, sender), arrive(to, receiver)).map(drop)
    }

    /// Assigns each read its time of arrival: after the bytes before it at the line's bandwidth, plus the delay.
    async fn send(
        &self,
        mut from: impl AsyncRead + Unpin,
        on_the_way: Sender<(Instant, Bytes)>,
    ) -> io::Result<()> {
        let mut line_is_free = Instant::now();
        loop {
            let mut buffer = vec![0; READ_BYTES];
            let count = from.read(&mut buffer).await?;
            buffer.truncate(count);
            let takes = Duration::from_secs_f64(count as f64 / self.bytes_per_second);
            line_is_free = line_is_free.max(Instant::now()) + takes;
            // The receiver is gone after a write error, which ends this future too.
            let _gone = on_the_way.send((line_is_free + self.delay.0, buffer.into())).await;
            if count == 0 {
                return Ok(());
            }
        }
    }
}

async fn arrive(
    mut to: impl AsyncWrite + Unpin,
    mut on_the_way: Receiver<(Instant, Bytes)>,
) -> io::Result<()> {
    while let Some((due, bytes)) = on_the_way.recv().await {
        sleep_until(due).await;
        to.write_all(&bytes).await?;
    }
    to.shutdown().await
}
