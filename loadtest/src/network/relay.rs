//! Bytes on their way between two connections, unchanged.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// Of one read.
pub(super) const READ_BYTES: usize = 8 * 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

/// Carries bytes both ways, and each end's end of sending, until both have ended. `seen` is told of whatever passes.
pub(super) async fn relay(
    near: &mut (impl AsyncRead + AsyncWrite + Unpin),
    far: &mut (impl AsyncRead + AsyncWrite + Unpin),
    seen: impl Fn(Direction),
) -> io::Result<()> {
    let ((from_near, to_near), (from_far, to_far)) = (split(near), split(far));
    let up = pump(from_near, to_far, || seen(Direction::Up));
    let down = pump(from_far, to_near, || seen(Direction::Down));
    tokio::try_join!(up, down).map(drop)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seen: impl Fn(),
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        seen();
        match buffer.get(..count) {
            Some([]) | None => return to.shutdown().await,
            Some(bytes) => to.write_all(bytes).await?,
        }
    }
}

/// The same for two connections of which nothing else is wanted: a reset of one is a reset of the other.
pub(super) async fn pass(mut near: TcpStream, mut far: TcpStream) {
    if relay(&mut near, &mut far, |_| ()).await.is_err() {
        reset([near, far]);
    }
}

/// Both stay open, and what either sends goes nowhere; each is closed when its own end has ended it, or all with
/// the middlebox.
pub(super) async fn silence(near: TcpStream, far: TcpStream) {
    tokio::join!(swallow(near), swallow(far));
}

async fn swallow(mut from: TcpStream) {
    let mut buffer = vec![0; READ_BYTES];
    while from.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// Ends connections by RST.
pub(super) fn reset(connections: impl IntoIterator<Item = TcpStream>) {
    for connection in connections {
        // What is closed already needs no reset.
        let _closed = connection.set_zero_linger();
    }
}

/// When something was last seen.
#[derive(Debug)]
pub(super) struct Seen(Mutex<Instant>);

impl Seen {
    /// Just now.
    pub(super) fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Again just now.
    pub(super) fn again(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Waits until it has not been seen for so long.
    pub(super) async fn not_for(&self, time: Duration) {
        loop {
            let due = *self.0.lock() + time;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }
}
