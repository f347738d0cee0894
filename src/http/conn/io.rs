//! The socket of a connection: [`GuardedStream`] wraps a TCP stream with what hyper lacks: a timeout for writing to a client that stopped reading, notice of
//! a client that leaves while bytes of it are unread, returning bytes that were read, and a shutdown that does not destroy the
//! last response on its way.

use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::state::{ConnectionState, Phase};
use super::transport::Transport;
use crate::limits::Limits;

/// Size of the read buffer on the stack, and so of the longest request that the fast path parses, body included.
const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// How often a stalled write is retried within the write timeout. The timeout is accurate to one of these intervals.
const STALLED_CHECKS_MAX: u32 = 20;

/// How long a connection lingers while the server closes, so that clients that stay connected do not delay the drain.
const LINGER_WHILE_CLOSING: Duration = Duration::from_secs(1);

/// Size of the stack buffer for bytes that are discarded.
const LINGER_READ_BYTES: usize = 16 * 1024;

/// Vectored writes up to this size are copied into one piece, which costs less than a second piece in the kernel.
const JOINED_BYTES_MAX: usize = 1024;

/// How a client ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeavesBy {
    /// A FIN. The client will send no more; it may be gone, or it may wait for responses.
    Fin,
    /// A reset. The client is gone.
    Reset,
}

/// A TCP stream whose writes fail once the client has read nothing for the write timeout.
pub struct GuardedStream {
    stream: Transport,
    /// Bytes that were read and returned; they are read again before the socket is.
    read_ahead: Bytes,
    /// How many of the next received bytes to discard: the rest of a request body that nobody needs.
    skipped: u64,
    /// The kernel may have bytes although tokio's readiness says otherwise, because `poll_left` has cleared it.
    has_hidden_bytes: bool,
    /// The client has ended its TLS session.
    has_ended: bool,
    state: Arc<ConnectionState>,
    limits: Arc<Limits>,
    phase: watch::Receiver<Phase>,
    write_timer: Timer,
    /// Copy of `ConnectionState::unsent` that can be compared without touching shared memory.
    unsent: bool,
    stalled_checks: u32,
    linger_timer: Timer,
}

/// Timer whose allocation is deferred until the first poll.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl GuardedStream {
    /// Wraps `stream`; `read_ahead` was already read from it.
    pub fn new(
        stream: Transport,
        read_ahead: Bytes,
        state: Arc<ConnectionState>,
        limits: Arc<Limits>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let [write_timer, linger_timer] = Default::default();
        Self {
            stream,
            read_ahead,
            skipped: 0,
            has_hidden_bytes: false,
            has_ended: false,
            state,
            limits,
            phase,
            write_timer,
            unsent: false,
            stalled_checks: 0,
            linger_timer,
        }
    }
}

impl Timer {
    /// Completes at the deadline. `deadline` is called only if the timer does not run yet.
    fn poll(&mut self, context: &mut Context<'_>, deadline: impl FnOnce() -> Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline())));
        sleep.as_mut().poll(context)
    }

    fn stop(&mut self) {
        self.0 = None;
    }

    fn runs(&self) -> bool {
        self.0.is_some()
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.read_ahead.is_empty() {
            buffer.put_slice(&this.take_read_ahead(buffer.remaining()));
            return Poll::Ready(Ok(()));
        }
        let outcome = ready!(this.poll_receive(context, buffer));
        this.note_timeout(&outcome);
        Poll::Ready(outcome)
    }
}

impl GuardedStream {
    /// Takes up to `max` of the returned bytes; frees their buffer with the last one.
    fn take_read_ahead(&mut self, max: usize) -> Bytes {
        if self.read_ahead.len() <= max {
            return std::mem::take(&mut self.read_ahead);
        }
        self.read_ahead.split_to(max)
    }

    /// Reads bytes into a buffer on the stack and passes them to `parse`, which returns its result and how many bytes it
    /// consumed. The other bytes are read again later. `None`: the client has closed the connection.
    pub(super) fn poll_parse<T>(
        &mut self,
        context: &mut Context<'_>,
        parse: impl FnOnce(&[u8]) -> (T, usize),
    ) -> Poll<io::Result<Option<T>>> {
        if !self.read_ahead.is_empty() {
            let (parsed, consumed) = parse(&self.read_ahead);
            self.take_read_ahead(consumed);
            if !self.read_ahead.is_empty() && self.read_ahead.len() < consumed {
                // A short rest would keep the whole buffer of the connection's first bytes alive.
                self.read_ahead = Bytes::copy_from_slice(&self.read_ahead);
            }
            return Poll::Ready(Ok(Some(parsed)));
        }
        let mut bytes = [MaybeUninit::uninit(); REQUEST_BYTES_MAX];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        let read = ready!(self.poll_read_wanted(context, &mut buffer))?;
        if read.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let (parsed, consumed) = parse(read);
        debug_assert!(consumed <= read.len());
        let rest = read.get(consumed..).unwrap_or_default();
        if !rest.is_empty() {
            self.read_ahead = Bytes::copy_from_slice(rest);
        }
        Poll::Ready(Ok(Some(parsed)))
    }

    /// Reads from the socket and drops the bytes to be skipped. No bytes: the client has closed the connection.
    fn poll_read_wanted<'b>(
        &mut self,
        context: &mut Context<'_>,
        buffer: &'b mut ReadBuf<'_>,
    ) -> Poll<io::Result<&'b [u8]>> {
        loop {
            buffer.clear();
            ready!(self.poll_receive(context, buffer))?;
            let read = buffer.filled().len();
            let skipped = usize::try_from(self.skipped).unwrap_or(usize::MAX).min(read);
            self.skipped -= skipped as u64;
            if skipped < read || read == 0 {
                return Poll::Ready(Ok(buffer.filled().get(skipped..).unwrap_or_default()));
            }
        }
    }

    /// Returns bytes that were read and not used. Copies them, so that the reader's large buffer can be freed.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.read_ahead = Bytes::from([bytes, &self.read_ahead].concat());
        }
    }

    /// Skips the next `count` bytes that the client sends.
    pub(super) fn skip(&mut self, count: u64) {
        let ahead = self.read_ahead.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        self.take_read_ahead(ahead);
        self.skipped = count - ahead as u64;
    }

    /// Writes all of `bytes`, and advances it past the written ones.
    pub(super) fn poll_write_all(
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

    /// Reads from the socket, also bytes whose readiness `poll_left` has cleared.
    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.has_hidden_bytes {
            let room = buffer.initialize_unfilled();
            let room_bytes = room.len();
            match (&*SockRef::from(self.stream.tcp())).read(room) {
                Ok(read) => {
                    // As in tokio: a read that does not fill the buffer has taken all bytes that the kernel had.
                    self.has_hidden_bytes = read == room_bytes;
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_hidden_bytes = false,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }

    /// Completes with how the client has left, while a response to it is pending. A FIN completes it only if `leaves_by` is
    /// [`LeavesBy::Fin`]. Bytes that the client sends meanwhile stay in the kernel.
    ///
    /// A socket with unread bytes is readable, which would hide a FIN after them. So the readiness for these bytes is
    /// cleared, and the next event of the socket wakes the task: more bytes, or the end, whose readiness stays set.
    pub(super) fn poll_left(
        &mut self,
        context: &mut Context<'_>,
        leaves_by: LeavesBy,
    ) -> Poll<io::Result<LeavesBy>> {
        if self.stream.is_encrypted() {
            return self.poll_left_tls(context, leaves_by);
        }
        loop {
            let stream = self.stream.tcp();
            ready!(stream.poll_read_ready(context))?;
            let readiness = stream.ready(Interest::READABLE | Interest::WRITABLE).now_or_never();
            let readiness = readiness.transpose()?;
            if readiness.is_some_and(|ready| ready.is_read_closed()) {
                let is_reset = readiness.is_some_and(|ready| ready.is_write_closed());
                return match leaves_by {
                    _ if is_reset => Poll::Ready(Ok(LeavesBy::Reset)),
                    LeavesBy::Fin => Poll::Ready(Ok(LeavesBy::Fin)),
                    LeavesBy::Reset => Poll::Pending,
                };
            }
            self.has_hidden_bytes = true;
            let would_block = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _cleared = stream.try_io(Interest::READABLE, would_block);
        }
    }

    /// The same with TLS: the end of a session is a record, so everything before it has to be read. A client that sends more than a
    /// few requests ahead is no longer watched.
    // Never inlined, as its buffer would enlarge the stack frame of every connection without TLS.
    #[inline(never)]
    fn poll_left_tls(
        &mut self,
        context: &mut Context<'_>,
        leaves_by: LeavesBy,
    ) -> Poll<io::Result<LeavesBy>> {
        while !self.has_ended && self.read_ahead.len() < REQUEST_BYTES_MAX {
            let mut bytes = [MaybeUninit::uninit(); REQUEST_BYTES_MAX];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match ready!(self.poll_read_wanted(context, &mut buffer)) {
                Err(_) => return Poll::Ready(Ok(LeavesBy::Reset)),
                Ok([]) => self.has_ended = true,
                Ok(read) => self.read_ahead = Bytes::from([&*self.read_ahead, read].concat()),
            }
        }
        match leaves_by {
            LeavesBy::Fin if self.has_ended => Poll::Ready(Ok(LeavesBy::Fin)),
            _ => Poll::Pending,
        }
    }

    /// Tells a client that has ended its TLS session that the gateway ends it too.
    pub(super) fn answer_end(&mut self) {
        self.stream.answer_end();
    }

    /// Marks the client as stalled if the kernel has timed out: it enforces the same limit (`TCP_USER_TIMEOUT`).
    fn note_timeout<T>(&self, outcome: &io::Result<T>) {
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.state.set_stalled();
        }
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
            let next_check = || Instant::now() + self.limits.write_timeout.get() / STALLED_CHECKS_MAX;
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

#[cfg(test)]
mod tests;
