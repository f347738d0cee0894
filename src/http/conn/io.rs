//! The socket of a connection: [`GuardedStream`] wraps a TCP stream with what hyper lacks: a write timeout for clients that
//! stopped reading (`write`), detection of clients that disconnect while bytes of theirs are unread, returning bytes that were
//! read, and a shutdown that does not destroy the last response on its way (`write`).

mod write;

use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::state::{ConnectionState, Phase};
use super::transport::Transport;
use crate::limits::Limits;

/// Size of the read buffer on the stack, and so of the longest request that the fast path parses, body included.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// How many bytes a TLS client may send while a response is pending and its end is watched for.
const EARLY_BYTES_MAX: usize = 4 * 1024;

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
    read_ahead: ReadAhead,
    /// Number of received bytes still to discard: the rest of an unneeded request body.
    skipped: u32,
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
    stalled_checks: u8,
    linger_timer: Timer,
}

/// Bytes that were read and returned. Takes one pointer while there are none, as for most connections that wait.
struct ReadAhead(Option<Box<Bytes>>);

impl From<Bytes> for ReadAhead {
    fn from(bytes: Bytes) -> Self {
        Self((!bytes.is_empty()).then(|| Box::new(bytes)))
    }
}

impl Deref for ReadAhead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| bytes)
    }
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
            read_ahead: read_ahead.into(),
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
        match &mut self.read_ahead.0 {
            Some(bytes) if bytes.len() > max => bytes.split_to(max),
            ahead => ahead.take().map_or_else(Bytes::new, |bytes| *bytes),
        }
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
                self.read_ahead = Bytes::copy_from_slice(&self.read_ahead).into();
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
            self.read_ahead = Bytes::copy_from_slice(rest).into();
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
            let skipped = self.skipped.min(u32::try_from(read).unwrap_or(u32::MAX));
            self.skipped -= skipped;
            if (skipped as usize) < read || read == 0 {
                return Poll::Ready(Ok(buffer.filled().get(skipped as usize..).unwrap_or_default()));
            }
        }
    }

    /// Returns bytes that were read and not used. Copies them, so that the reader's large buffer can be freed.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.read_ahead = Bytes::from([bytes, &self.read_ahead].concat()).into();
        }
    }

    /// Skips the next `count` bytes that the client sends, which are a short rest of a body: the connection closes after a longer one.
    pub(super) fn skip(&mut self, count: u64) {
        let ahead = self.read_ahead.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        self.take_read_ahead(ahead);
        self.skipped = u32::try_from(count - ahead as u64).unwrap_or(u32::MAX);
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

    /// Completes if the client has sent something, or has closed the connection.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.read_ahead.is_empty() || self.has_hidden_bytes || self.has_ended {
            return Poll::Ready(());
        }
        self.stream.tcp().poll_read_ready(context).map(drop)
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

    /// [`poll_left`](Self::poll_left) with TLS: the end of a session is a record, so all records before it must be read. A client that
    /// pipelines more than a few requests is no longer watched.
    // Never inlined, as its buffer would enlarge the stack frame of every connection without TLS.
    #[inline(never)]
    fn poll_left_tls(
        &mut self,
        context: &mut Context<'_>,
        leaves_by: LeavesBy,
    ) -> Poll<io::Result<LeavesBy>> {
        while !self.has_ended && self.read_ahead.len() < EARLY_BYTES_MAX {
            let mut bytes = [MaybeUninit::uninit(); EARLY_BYTES_MAX];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match ready!(self.poll_read_wanted(context, &mut buffer)) {
                Err(_) => return Poll::Ready(Ok(LeavesBy::Reset)),
                Ok([]) => self.has_ended = true,
                Ok(read) => self.read_ahead = Bytes::from([&*self.read_ahead, read].concat()).into(),
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
}

#[cfg(test)]
mod tests;
