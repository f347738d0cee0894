//! A connection as packets: reads and writes bytes, and keeps as little as possible while nothing happens.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::codec::{Breach, Incoming, OutgoingPacket, PacketReader, Version, decode, encode};

/// Read at once, on the stack.
const READ_BYTES: usize = 4096;

/// As long as so much is not taken by the client, nothing more is read from it: answers can not pile up.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1024;

/// A connection of a client.
pub(super) struct Wire<S> {
    io: S,
    frames: PacketReader,
    out: BytesMut,
    /// How much of `out` may be written.
    released: usize,
    flushed: bool,
    /// What the client speaks, once it has said so.
    pub(super) version: Option<Version>,
    /// The largest packet that it may send.
    pub(super) received_bytes_max: usize,
    /// The largest packet that it takes.
    pub(super) sent_bytes_max: usize,
}

/// What has happened on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireProgress {
    Read,
    Written,
    /// The client sends nothing more.
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A new connection.
    pub(super) fn new(io: S, received_bytes_max: usize) -> Self {
        Self {
            io,
            frames: PacketReader::default(),
            out: BytesMut::new(),
            released: 0,
            flushed: true,
            version: None,
            received_bytes_max,
            sent_bytes_max: usize::MAX,
        }
    }

    /// The next packet, if it has been read, and if the client takes what it is sent.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Breach> {
        if self.out.len() >= UNWRITTEN_BYTES_MAX {
            return Ok(None);
        }
        let Some(frame) = self.frames.next(self.received_bytes_max)? else { return Ok(None) };
        decode(frame, self.version).map(Some)
    }

    /// Lets a packet be written by the next `progress`. Whether it is small enough for the client; else it is not.
    pub(super) fn put(&mut self, packet: &OutgoingPacket<'_>) -> bool {
        self.flushed = false;
        let version = self.version.unwrap_or(Version::V3);
        encode(packet, version, self.sent_bytes_max, &mut self.out)
    }

    /// Memory that is held for a packet that is not whole yet, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.frames.capacity()
    }

    /// Takes back the packets that no `progress` was asked to write yet.
    pub(super) fn take_back(&mut self) {
        self.out.truncate(self.released);
    }

    /// The bytes that are still to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.out.len()
    }

    /// Whether all was written.
    pub(super) fn is_idle(&self) -> bool {
        self.out.is_empty() && self.flushed
    }

    /// Writes, and reads. Cancel safe.
    pub(super) async fn progress(&mut self) -> io::Result<WireProgress> {
        self.released = self.out.len();
        poll_fn(|context| {
            if !self.is_idle()
                && let Poll::Ready(written) = self.poll_write(context)
            {
                return Poll::Ready(written.map(|()| WireProgress::Written));
            }
            if self.out.len() < UNWRITTEN_BYTES_MAX { self.poll_read(context) } else { Poll::Pending }
        })
        .await
    }

    /// Writes all that is to be written, and says that nothing follows.
    pub(super) async fn close(mut self) -> io::Result<()> {
        while !self.is_idle() {
            poll_fn(|context| self.poll_write(context)).await?;
        }
        self.io.shutdown().await
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.released = self.out.len();
            if !self.out.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.out = BytesMut::new();
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
        self.frames.put(buffer.filled());
        Poll::Ready(Ok(WireProgress::Read))
    }
}
