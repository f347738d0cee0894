//! Counts the bytes, requests and connections of a client, without changing them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::packets::{Headers, Unacknowledged};
use crate::model::energy::PacketEvent;

/// Sums over all readers of a process, since its start.
#[derive(Debug, Default)]
pub struct Totals {
    up: AtomicU64,
    down: AtomicU64,
    headers_up: AtomicU64,
    headers_down: AtomicU64,
    connections: AtomicU64,
    requests: AtomicU64,
    empty_answers: AtomicU64,
}

/// Values of [`Totals`] at one time.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct TotalsAt {
    /// Payload bytes from clients.
    pub up: u64,
    /// Payload bytes to clients.
    pub down: u64,
    /// Bytes of packet headers from clients.
    pub headers_up: u64,
    /// Bytes of packet headers to clients.
    pub headers_down: u64,
    /// Connections opened.
    pub connections: u64,
    /// Requests sent.
    pub requests: u64,
    /// Answers without a message.
    pub empty_answers: u64,
}

impl Totals {
    /// Returns the current sums.
    pub fn now(&self) -> TotalsAt {
        let of = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        TotalsAt {
            up: of(&self.up),
            down: of(&self.down),
            headers_up: of(&self.headers_up),
            headers_down: of(&self.headers_down),
            connections: of(&self.connections),
            requests: of(&self.requests),
            empty_answers: of(&self.empty_answers),
        }
    }
}

impl TotalsAt {
    /// Returns the difference from `before`.
    pub fn since(self, before: Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    fn with(self, other: Self, both: fn(u64, u64) -> u64) -> Self {
        Self {
            up: both(self.up, other.up),
            down: both(self.down, other.down),
            headers_up: both(self.headers_up, other.headers_up),
            headers_down: both(self.headers_down, other.headers_down),
            connections: both(self.connections, other.connections),
            requests: both(self.requests, other.requests),
            empty_answers: both(self.empty_answers, other.empty_answers),
        }
    }
}

impl std::ops::Add for TotalsAt {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }
}

/// Adds one reader's counts to the totals, and keeps the trace of its packets if it is traced.
#[derive(Debug)]
pub struct Meter {
    totals: Arc<Totals>,
    trace: Option<Mutex<Vec<(Instant, bool, u64)>>>,
}

impl Meter {
    /// Creates a meter that adds to `totals`. A `traced` one keeps the time of each packet.
    pub fn new(totals: Arc<Totals>, traced: bool) -> Self {
        Self { totals, trace: traced.then(Mutex::default) }
    }

    /// Counts a request.
    pub fn request(&self) {
        self.totals.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer without a message.
    pub fn empty_answer(&self) {
        self.totals.empty_answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the packets of a traced client between `start` and `start + horizon`; `None` if it is not traced.
    pub fn packets(&self, start: Instant, horizon: Duration) -> Option<Vec<PacketEvent>> {
        let trace = self.trace.as_ref()?.lock();
        let inside = trace.iter().filter_map(|(at, up, bytes)| {
            let at = at.checked_duration_since(start).filter(|at| *at < horizon)?;
            Some(PacketEvent { at, up: *up, bytes: u32::try_from(*bytes).unwrap_or(u32::MAX) })
        });
        Some(inside.collect())
    }

    fn add(&self, headers: Headers, up: u64, down: u64) {
        let Totals { headers_up, headers_down, .. } = &*self.totals;
        for (sum, bytes) in [
            (&self.totals.up, up),
            (&self.totals.down, down),
            (headers_up, headers.up),
            (headers_down, headers.down),
        ] {
            sum.fetch_add(bytes, Ordering::Relaxed);
        }
        let Some(trace) = &self.trace else { return };
        let at = Instant::now();
        let packets = [(true, up + headers.up), (false, down + headers.down)];
        trace
            .lock()
            .extend(packets.into_iter().filter(|(_, bytes)| *bytes > 0).map(|(up, bytes)| (at, up, bytes)));
    }
}

/// A connection whose bytes are counted by a [`Meter`].
#[derive(Debug)]
pub struct Metered<IO> {
    io: IO,
    meter: Arc<Meter>,
    unacknowledged: Unacknowledged,
}

impl<IO> Metered<IO> {
    /// Counts the opening of the connection at once.
    pub fn new(io: IO, meter: Arc<Meter>) -> Self {
        meter.totals.connections.fetch_add(1, Ordering::Relaxed);
        meter.add(Headers::OPENING, 0, 0);
        Self { io, meter, unacknowledged: Unacknowledged::default() }
    }

    fn burst(&mut self, up: bool, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let bytes = bytes as u64;
        let headers = self.unacknowledged.burst(up, bytes, Instant::now());
        let (sent, received) = if up { (bytes, 0) } else { (0, bytes) };
        self.meter.add(headers, sent, received);
    }
}

impl<IO> Drop for Metered<IO> {
    fn drop(&mut self) {
        self.meter.add(Headers::CLOSING, 0, 0);
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(task, into))?;
        self.burst(false, into.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<IO> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(task, bytes))?;
        self.burst(true, written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(task, pieces))?;
        self.burst(true, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(task)
    }
}
