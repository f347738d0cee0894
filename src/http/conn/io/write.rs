//! Writes to a client, with a timeout for one that stopped reading, and the shutdown of a connection.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::GuardedStream;
use crate::http::conn::state::Phase;

/// How often a stalled write is retried within the write timeout. The timeout is accurate to one of these intervals.
const STALLED_CHECKS_MAX: u8 = 20;

/// How long a connection lingers while the server closes, so that clients that stay connected do not delay the drain.
const LINGER_WHILE_CLOSING: Duration = Duration::from_secs(1);

/// Size of the stack buffer for bytes that are discarded.
const LINGER_READ_BYTES: usize = 16 * 1024;

/// Vectored writes up to this size are copied into one piece, which costs less than a second piece in the kernel.
const JOINED_BYTES_MAX: usize = 1024;

impl GuardedStream {
    /// Writes all of `bytes`, and advances it past the written ones.
    pub(in crate::http::conn) fn poll_write_all(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            let written = ready!(Pin::new(&mut *self).poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Resets the write timeout after a write has succeeded or failed.
    fn write_ended(&mut self, outcome: &io::Result<usize>) {
        self.set_unsent(false);
        self.write_timer.stop();
        self.stalled_checks = 0;
        self.note_timeout(outcome);
    }

    fn set_unsent(&mut self, unsent: bool) {
        if self.unsent != unsent {
            self.unsent = unsent;
            self.state.set_unsent(unsent);
        }
    }

    /// Completes a write; fails once the client has read nothing for the write timeout, or at the next retry while memory is
    /// critical.
    ///
    /// The kernel wakes a writer only when a third of its buffer is free, which can take a slow reader longer than the timeout.
    /// So `again` retries the write at intervals, to see whether there is any room.
    fn complete_write(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
        again: impl Fn(SockRef<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = outcome {
            self.write_ended(&outcome);
            return Poll::Ready(outcome);
        }
        self.set_unsent(true);
        loop {
            let next_check =
                || Instant::now() + self.limits.write_timeout.get() / u32::from(STALLED_CHECKS_MAX);
            ready!(self.write_timer.poll(context, next_check));
            self.write_timer.stop();
            // With TLS, the kernel is not asked: a client that takes no third of the send buffer within the timeout counts as stalled.
            match self.stream.raw_writes().map_or(Err(io::ErrorKind::WouldBlock.into()), &again) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stalled_checks += 1,
                outcome => {
                    self.write_ended(&outcome);
                    return Poll::Ready(outcome);
                }
            }
            if self.stalled_checks >= STALLED_CHECKS_MAX || self.state.owner().budget().is_critical() {
                self.state.set_stalled();
                let stalled = "the client has stopped reading";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, stalled)));
            }
        }
    }
}

/// Copies the slices into `buffer`, one after the other. `None`: they do not fit.
fn join<'a>(slices: &[io::IoSlice<'_>], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut end = 0;
    for slice in slices {
        buffer.get_mut(end..end + slice.len())?.copy_from_slice(slice);
        end += slice.len();
    }
    buffer.get(..end)
}

impl AsyncWrite for GuardedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.complete_write(context, outcome, |socket| socket.send(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut joined = [0; JOINED_BYTES_MAX];
        if let Some(bytes) = join(slices, &mut joined) {
            return self.poll_write(context, bytes);
        }
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.complete_write(context, outcome, |socket| socket.send_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    /// Shuts down the sending side, then discards what the client sends until it closes its side too, or until the linger
    /// timeout. A socket that is closed with unread bytes resets the connection, and the reset can destroy the last response on
    /// its way (RFC 9112, section 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.linger_timer.runs() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let closing = *this.phase.borrow() >= Phase::Closing;
        let linger = this.limits.linger_timeout.get();
        let linger = if closing { linger.min(LINGER_WHILE_CLOSING) } else { linger };
        let deadline = || Instant::now() + linger;
        while this.linger_timer.poll(context, deadline).is_pending() {
            let mut discarded = [MaybeUninit::uninit(); LINGER_READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut discarded);
            let outcome = ready!(this.poll_receive(context, &mut buffer));
            if outcome.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
