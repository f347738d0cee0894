//! [`Wire`]: a connection that reads and writes packets. An idle connection holds no buffers.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::yield_now;

use super::codec::{Breach, Incoming, OutgoingPacket, PacketReader, Version, decode, encode};

/// Size of the read buffer on the stack, in bytes.
const READ_BYTES: usize = 4096;

/// While this many bytes wait to be written, nothing is read from the client, so that responses cannot pile
/// up.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1024;

/// The connection of a client, as packets.
pub(super) struct Wire<S> {
    io: S,
    /// `None`: nothing is received or queued.
    buffers: Option<Box<WireBuffers>>,
    flushed: bool,
    /// The protocol version of the client; `None` before its CONNECT.
    pub(super) version: Option<Version>,
    /// Maximum size of a packet from the client, in bytes. No packet of the protocol is larger than 256 MiB.
    received_bytes_max: u32,
    /// Maximum size of a packet to the client, in bytes.
    sent_bytes_max: u32,
}

/// Bytes on their way.
#[derive(Default)]
struct WireBuffers {
    /// Received bytes.
    frames: PacketReader,
    /// Queued packets.
    out: BytesMut,
    /// Number of bytes of `out` that may be written.
    released: usize,
}

/// What [`Wire::progress`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireProgress {
    Read,
    Written,
    /// The client has closed its sending side.
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Wraps a new connection.
    pub(super) fn new(io: S, received_bytes_max: usize) -> Self {
        Self {
            io,
            buffers: None,
            flushed: true,
            version: None,
            received_bytes_max: packet_bytes(received_bytes_max),
            sent_bytes_max: u32::MAX,
        }
    }

    /// Sets the maximum sizes of packets from and to the client, in bytes.
    pub(super) fn limit(&mut self, received_bytes_max: usize, sent_bytes_max: usize) {
        (self.received_bytes_max, self.sent_bytes_max) =
            (packet_bytes(received_bytes_max), packet_bytes(sent_bytes_max));
    }

    /// Frees the buffers if they are empty. Called before the connection waits.
    pub(super) fn shrink(&mut self) {
        self.buffers.take_if(|buffers| buffers.out.is_empty() && buffers.frames.unread() == 0);
    }

    /// Whether nothing is received and unhandled.
    pub(super) fn has_no_input(&self) -> bool {
        self.buffers.as_ref().is_none_or(|buffers| buffers.frames.unread() == 0)
    }

    /// Returns the next received packet. Returns `None` while the client does not read what it is sent.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Breach> {
        if self.unwritten() >= UNWRITTEN_BYTES_MAX { Ok(None) } else { self.next_received() }
    }

    /// Returns the next received packet, also while the client does not read what it is sent.
    pub(super) fn next_received(&mut self) -> Result<Option<Incoming>, Breach> {
        let Some(buffers) = &mut self.buffers else { return Ok(None) };
        let Some(frame) = buffers.frames.next(self.received_bytes_max as usize)? else { return Ok(None) };
        decode(frame, self.version).map(Some)
    }

    /// Queues a packet for the next `progress`. Returns false if the packet is larger than the client
    /// accepts; it is not queued then.
    pub(super) fn put(&mut self, packet: &OutgoingPacket<'_>) -> bool {
        self.flushed = false;
        let version = self.version.unwrap_or(Version::V3);
        let out = &mut self.buffers.get_or_insert_default().out;
        encode(packet, version, self.sent_bytes_max as usize, out)
    }

    /// Whether the client accepts a packet of this size.
    pub(super) fn fits(&self, packet: &OutgoingPacket<'_>) -> bool {
        let version = self.version.unwrap_or(Version::V3);
        encode(packet, version, self.sent_bytes_max as usize, &mut BytesMut::new())
    }

    /// Memory held for an incomplete packet, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers.frames.capacity())
    }

    /// Removes the queued packets that `progress` has not been called for yet.
    pub(super) fn take_back(&mut self) {
        if let Some(buffers) = &mut self.buffers {
            buffers.out.truncate(buffers.released);
        }
    }

    /// Returns the number of bytes still to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers.out.len())
    }

    /// Whether everything has been written and flushed.
    pub(super) fn is_idle(&self) -> bool {
        self.flushed && self.unwritten() == 0
    }

    /// Writes queued packets or reads, whichever is possible first. Cancel safe.
    pub(super) async fn progress(&mut self) -> io::Result<WireProgress> {
        poll_fn(|context| self.poll_progress(context)).await
    }

    /// Poll form of [`progress`](Self::progress).
    pub(super) fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<io::Result<WireProgress>> {
        if let Some(buffers) = &mut self.buffers {
            buffers.released = buffers.out.len();
        }
        if !self.is_idle()
            && let Poll::Ready(written) = self.poll_write(context)
        {
            return Poll::Ready(written.map(|()| WireProgress::Written));
        }
        if self.unwritten() < UNWRITTEN_BYTES_MAX { self.poll_read(context) } else { Poll::Pending }
    }

    /// Reads bytes that have arrived, without waiting. Returns their number; 0 at the end of the connection,
    /// `None` if nothing has arrived.
    pub(super) async fn read_arrived(&mut self) -> Option<usize> {
        for is_second in [false, true] {
            let unread = |wire: &Self| wire.buffers.as_ref().map_or(0, |buffers| buffers.frames.unread());
            let before = unread(self);
            let read = poll_fn(|context| Poll::Ready(self.poll_read(context))).await;
            match read {
                Poll::Ready(Ok(WireProgress::Read | WireProgress::Written)) => {
                    return Some(unread(self) - before);
                }
                Poll::Ready(Ok(WireProgress::Ended) | Err(_)) => return Some(0),
                // Lets the runtime look at its sockets: bytes may have arrived that it does not know of yet.
                Poll::Pending if !is_second => yield_now().await,
                Poll::Pending => {}
            }
        }
        None
    }

    /// Writes all queued packets and closes the connection.
    pub(super) async fn close(mut self) -> io::Result<()> {
        while !self.is_idle() {
            poll_fn(|context| self.poll_write(context)).await?;
        }
        self.io.shutdown().await
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(WireBuffers { out, released, .. }) =
            self.buffers.as_deref_mut().filter(|buffers| !buffers.out.is_empty())
        {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
            *released = out.len();
            if !out.is_empty() {
                return Poll::Ready(Ok(()));
            }
            *out = BytesMut::new();
        }
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<WireProgress>> {
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Ok(WireProgress::Ended));
        }
        self.buffers.get_or_insert_default().frames.put(buffer.filled());
        Poll::Ready(Ok(WireProgress::Read))
    }
}

/// A maximum size of packets, in bytes.
fn packet_bytes(max: usize) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX)
}
