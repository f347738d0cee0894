//! Response bodies: empty, bytes, pieces of the log, or a live form.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio_stream::Stream;

use crate::access_log::AccessEntry;

/// Largest frame into which small pieces are joined. A client that does not read holds this much user memory.
pub(in crate::http) const FRAME_BYTES_MAX: usize = 32 * 1024;

/// A response body.
pub struct Body(BodyKind);

enum BodyKind {
    Full(Option<Bytes>),
    Pieces { pieces: std::vec::IntoIter<Bytes>, left: usize },
    LiveRead(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body {
    /// An empty body.
    pub fn empty() -> Self {
        Self(BodyKind::Full(None))
    }

    /// A body of `bytes`.
    pub fn full(bytes: Bytes) -> Self {
        Self(BodyKind::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// A body of `pieces` in their order. Small pieces are joined into frames as the body is written.
    pub(in crate::http) fn pieces(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(Bytes::len).sum();
        Self(BodyKind::Pieces { pieces: pieces.into_iter(), left })
    }

    /// Returns all bytes if they are in one piece of at most `bytes_max` bytes, else the unchanged body.
    pub(in crate::http) fn into_small(self, bytes_max: usize) -> Result<Bytes, Self> {
        match self.0 {
            BodyKind::Full(bytes) if bytes.as_ref().is_none_or(|bytes| bytes.len() <= bytes_max) => {
                Ok(bytes.unwrap_or_default())
            }
            kind => Err(Self(kind)),
        }
    }

    /// A body of unknown length that ends with `stream`.
    pub(in crate::http) fn live(stream: Pin<Box<dyn Stream<Item = Bytes> + Send>>) -> Self {
        Self(BodyKind::LiveRead(stream))
    }
}

impl Body {
    /// Counts the bytes of the body in the entry of its request. The entry of a live form is complete when the form ends.
    pub(in crate::http) fn log(&mut self, mut entry: AccessEntry) {
        match &mut self.0 {
            BodyKind::Full(bytes) => entry.add_bytes(bytes.as_ref().map_or(0, Bytes::len)),
            BodyKind::Pieces { left, .. } => entry.add_bytes(*left),
            BodyKind::LiveRead(stream) => {
                let stream = std::mem::replace(stream, Box::pin(tokio_stream::empty()));
                self.0 = BodyKind::LiveRead(logged(stream, Some(entry)));
            }
        }
    }
}

/// Counts the bytes of a live form in the entry of its request, and completes the entry when the form ends.
pub(in crate::http) fn logged(
    stream: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    entry: Option<AccessEntry>,
) -> Pin<Box<dyn Stream<Item = Bytes> + Send>> {
    match entry {
        None => stream,
        Some(mut entry) => Box::pin(stream.inspect(move |bytes| entry.add_bytes(bytes.len()))),
    }
}

/// Returns the next frame: a large piece as it is, or several small ones joined.
fn next_frame(pieces: &mut std::vec::IntoIter<Bytes>) -> Option<Bytes> {
    let first = pieces.next()?;
    let joins =
        |size: usize, next: Option<&Bytes>| next.is_some_and(|next| size + next.len() <= FRAME_BYTES_MAX);
    if !joins(first.len(), pieces.as_slice().first()) {
        return Some(first);
    }
    let mut frame = BytesMut::with_capacity(FRAME_BYTES_MAX);
    frame.extend_from_slice(&first);
    while joins(frame.len(), pieces.as_slice().first())
        && let Some(piece) = pieces.next()
    {
        frame.extend_from_slice(&piece);
    }
    Some(frame.freeze())
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut self.get_mut().0 {
            BodyKind::Full(bytes) => bytes.take(),
            BodyKind::Pieces { pieces, left } => {
                let frame = next_frame(pieces);
                *left -= frame.as_ref().map_or(0, Bytes::len);
                frame
            }
            BodyKind::LiveRead(stream) => std::task::ready!(stream.as_mut().poll_next(context)),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Full(bytes) => bytes.is_none(),
            BodyKind::Pieces { left, .. } => *left == 0,
            BodyKind::LiveRead(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            BodyKind::Pieces { left, .. } => SizeHint::with_exact(*left as u64),
            BodyKind::LiveRead(_) => SizeHint::default(),
        }
    }
}
