//! The bytes of a connection, with what hyper does not have: time limits for a head that drips and for a client
//! that does not take what it is sent, and an end that does not take the last answer away.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Phase;
use super::head::HeadWatch;
use crate::http::{DIRECT_BYTES_MAX, Link};
use crate::limits::Limits;

/// How often within the write timeout a stalled client is asked whether it took something. The timeout is exact
/// to one part in so many.
const STALLED_CHECKS_MAX: u32 = 20;

/// How long a connection lingers when the gateway ends: clients that ignore the end must not hold it up.
const LINGER_AT_THE_END: Duration = Duration::from_secs(1);

/// On the stack, while bytes are thrown away.
const LINGER_READ_BYTES: usize = 16 * 1024;

/// How much is read of a request that comes before the one ahead of it is answered; the rest waits in the kernel.
const EARLY_READ_BYTES: usize = 1024;

/// Head and body of a small answer are written as one piece: copying this much costs less than the kernel takes
/// for a second piece.
const JOINED_BYTES_MAX: usize = 1024;

/// A socket that gives up on peers who do.
pub(super) struct Guarded {
    stream: TcpStream,
    /// Read before it was known which protocol the client speaks.
    read_ahead: Bytes,
    /// Of an HTTP/1 connection: HTTP/2 has no one head at a time.
    head: Option<Arc<HeadWatch>>,
    link: Arc<Link>,
    limits: Arc<Limits>,
    phase: watch::Receiver<Phase>,
    head_timer: Timer,
    write_timer: Timer,
    unsent: bool,
    stalled_checks: u32,
    linger_timer: Timer,
}

/// A timer that costs nothing until it is needed.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Guarded {
    pub(super) fn new(
        stream: TcpStream,
        read_ahead: Bytes,
        link: Arc<Link>,
        limits: Arc<Limits>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let [head_timer, write_timer, linger_timer] = Default::default();
        Self {
            stream,
            read_ahead,
            head: None,
            link,
            limits,
            phase,
            head_timer,
            write_timer,
            unsent: false,
            stalled_checks: 0,
            linger_timer,
        }
    }
}

impl Timer {
    /// Ready once `deadline` has passed; a deadline that was set before stays.
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

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.read_ahead.is_empty() {
            let bytes = this.take_ahead(buffer.remaining());
            buffer.put_slice(&bytes);
            this.saw(&bytes);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(outcome) => {
                let bytes = buffer.filled().get(before..).unwrap_or_default();
                this.saw(bytes);
                this.note(&outcome);
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                if !this.head.as_ref().is_some_and(|head| head.is_reading()) {
                    this.head_timer.stop();
                    return Poll::Pending;
                }
                // Most heads come whole; only one that does not needs to know the time.
                let deadline = || Instant::now() + this.limits.head_timeout.get();
                ready!(this.head_timer.poll(context, deadline));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head did not come in time")))
            }
        }
    }
}

impl Guarded {
    /// Reads the heads of HTTP/1 requests along, or no longer.
    pub(super) fn watch(&mut self, head: Option<Arc<HeadWatch>>) {
        self.head = head;
    }

    /// Bytes that were read ahead. Behind the last one the buffer goes too.
    fn take_ahead(&mut self, max: usize) -> Bytes {
        if self.read_ahead.len() <= max {
            return std::mem::take(&mut self.read_ahead);
        }
        self.read_ahead.split_to(max)
    }

    /// Has `hear` look at what the client sends, from a buffer that is there only for that: it says what it makes of it and
    /// how much of it that was. The rest stays to be read. `None`: the client has left.
    pub(super) fn poll_heard<T>(
        &mut self,
        context: &mut Context<'_>,
        hear: impl FnOnce(&[u8]) -> (T, usize),
    ) -> Poll<io::Result<Option<T>>> {
        if !self.read_ahead.is_empty() {
            let (heard, taken) = hear(&self.read_ahead);
            self.take_ahead(taken);
            return Poll::Ready(Ok(Some(heard)));
        }
        let mut bytes = [MaybeUninit::uninit(); DIRECT_BYTES_MAX];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Ok(None));
        }
        let (heard, taken) = hear(buffer.filled());
        let rest = buffer.filled().get(taken..).unwrap_or_default();
        if !rest.is_empty() {
            self.read_ahead = Bytes::copy_from_slice(rest);
        }
        Poll::Ready(Ok(Some(heard)))
    }

    /// Gives bytes back that were read and not used. They are copied: the buffer that they are in is large.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.read_ahead = Bytes::from([bytes, &self.read_ahead].concat());
    }

    /// Writes all that is left of `bytes`.
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

    /// Waits for what the client does while it is owed an answer: `true` once it has sent something, which stays to
    /// be read; `false` once it has left.
    pub(super) fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.read_ahead.is_empty() {
            let mut bytes = [MaybeUninit::uninit(); EARLY_READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            self.read_ahead = Bytes::copy_from_slice(buffer.filled());
        }
        Poll::Ready(Ok(!self.read_ahead.is_empty()))
    }

    fn saw(&mut self, bytes: &[u8]) {
        let head = self.head.as_ref().filter(|_| !bytes.is_empty());
        if head.is_some_and(|head| head.read(bytes)) {
            self.head_timer.stop();
        }
    }

    /// The kernel has the same limit (`TCP_USER_TIMEOUT`), so it may be the first to give up.
    fn note<T>(&self, outcome: &io::Result<T>) {
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.link.set_stalled();
        }
    }

    /// The kernel took something, or never will.
    fn took(&mut self, outcome: &io::Result<usize>) {
        self.set_unsent(false);
        self.write_timer.stop();
        self.stalled_checks = 0;
        self.note(outcome);
    }

    fn set_unsent(&mut self, unsent: bool) {
        // The link is elsewhere in memory, and most of the time there is nothing to tell it.
        if self.unsent != unsent {
            self.unsent = unsent;
            self.link.set_unsent(unsent);
        }
    }

    /// What came of a write: an error once the client has taken nothing for the limit.
    ///
    /// The kernel wakes a writer when a third of its buffer is free, which a slow reader may need longer for than
    /// the limit. So whether there is any room is asked for now and then, by writing.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
        again: impl Fn(SockRef<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = outcome {
            self.took(&outcome);
            return Poll::Ready(outcome);
        }
        self.set_unsent(true);
        loop {
            let next_check = || Instant::now() + self.limits.write_timeout.get() / STALLED_CHECKS_MAX;
            ready!(self.write_timer.poll(context, next_check));
            self.write_timer.stop();
            match again(SockRef::from(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stalled_checks += 1,
                outcome => {
                    self.took(&outcome);
                    return Poll::Ready(outcome);
                }
            }
            if self.stalled_checks >= STALLED_CHECKS_MAX {
                self.link.set_stalled();
                let stalled = "the client does not take what it is sent";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, stalled)));
            }
        }
    }
}

/// The slices one behind the other, if there is room for them.
fn join<'a>(slices: &[io::IoSlice<'_>], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut end = 0;
    for slice in slices {
        buffer.get_mut(end..end + slice.len())?.copy_from_slice(slice);
        end += slice.len();
    }
    buffer.get(..end)
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(context, outcome, |socket| socket.send(bytes))
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
        this.written(context, outcome, |socket| socket.send_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    /// Says that nothing more will be written, and reads until the client has said so too. A socket that is
    /// closed with bytes unread resets the connection, and the reset can destroy the last answer on its way (RFC
    /// 9112, section 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.linger_timer.runs() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let at_the_end = *this.phase.borrow() >= Phase::Closing;
        let linger = this.limits.linger_timeout.get();
        let linger = if at_the_end { linger.min(LINGER_AT_THE_END) } else { linger };
        let deadline = || Instant::now() + linger;
        while this.linger_timer.poll(context, deadline).is_pending() {
            let mut thrown_away = [MaybeUninit::uninit(); LINGER_READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut thrown_away);
            let outcome = ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer));
            if outcome.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
