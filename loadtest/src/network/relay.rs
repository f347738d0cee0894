//! Relays bytes between two connections, unchanged.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// Maximum bytes per read.
pub(super) const READ_BYTES: usize = 8 * 1024;

/// Direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

/// Relays bytes and half-closes in both directions, until both ends have closed. Calls `seen` with what each read has brought.
pub(super) async fn relay(
    near: &mut (impl AsyncRead + AsyncWrite + Unpin),
    far: &mut (impl AsyncRead + AsyncWrite + Unpin),
    seen: impl Fn(Direction, &[u8]),
) -> io::Result<()> {
    let ((from_near, to_near), (from_far, to_far)) = (split(near), split(far));
    let up = pump(from_near, to_far, |bytes| seen(Direction::Up, bytes));
    let down = pump(from_far, to_near, |bytes| seen(Direction::Down, bytes));
    tokio::try_join!(up, down).map(drop)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seen: impl Fn(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let bytes = buffer.get(..count).unwrap_or_default();
        seen(bytes);
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(bytes).await?;
    }
}

/// Relays two connections without further conditions; a reset of one resets the other.
pub(super) async fn pass(mut near: TcpStream, mut far: TcpStream, seen: impl Fn(Direction, &[u8])) {
    if relay(&mut near, &mut far, seen).await.is_err() {
        reset([near, far]);
    }
}

/// Keeps both connections open and drops all their bytes. Each is closed when its peer closes it, or with the middlebox.
pub(super) async fn silence(near: TcpStream, far: TcpStream) {
    tokio::join!(swallow(near), swallow(far));
}

async fn swallow(mut from: TcpStream) {
    let mut buffer = vec![0; READ_BYTES];
    while from.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// Closes connections with RST.
pub(super) fn reset(connections: impl IntoIterator<Item = TcpStream>) {
    for connection in connections {
        // A connection that is already closed needs no reset.
        let _closed = connection.set_zero_linger();
    }
}

/// Time of the last activity.
#[derive(Debug)]
pub(super) struct LastActivity(Mutex<Instant>);

impl LastActivity {
    /// Starts with activity now.
    pub(super) fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Records activity.
    pub(super) fn again(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Waits until there was no activity for `time`.
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
