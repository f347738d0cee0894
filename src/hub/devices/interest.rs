//! [`Interest`]: a stream that a device reads, and its offset. [`FilterInterest`]: a filter, and the time up to which the device has read the
//! streams that match it. Both tell whether there are unread messages.

use std::time::SystemTime;

use super::readers::Readers;
use crate::stream::{Filter, Offset, Position, Start, StreamName};

/// A stream that a device reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Interest {
    pub(super) stream: StreamName,
    /// The offset of the last poll. `None`: the beginning.
    pub(super) offset: Option<Offset>,
    /// The last known tail. `None`: the stream does not exist.
    pub(super) tail: Option<Offset>,
}

/// A filter with wildcards whose streams a device reads. Their offsets are not kept: a device that polls one of them, or connects over
/// MQTT, reads all of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FilterInterest {
    pub(super) filter: Filter,
    /// When the newest message was appended that the device has read. `None`: it has read none.
    pub(super) read_up_to: Option<SystemTime>,
    /// When the newest message was appended, as far as it is known.
    pub(super) news: Option<SystemTime>,
}

/// Tells up to where a session has read a stream, and its client has acknowledged that; `None`: it has not subscribed to it.
pub(super) type ReadUpTo<'a> = &'a dyn Fn(&StreamName) -> Option<Start>;

impl Interest {
    /// Whether something lies behind the offset. A stream that was lost or created again has another epoch, which the device has
    /// to be told of.
    pub(super) fn is_pending(&self) -> bool {
        self.tail.is_some_and(|tail| is_behind(self.offset, tail))
    }

    /// The stream and its tail, if something lies behind the offset.
    pub(super) fn news(&self) -> Option<(StreamName, Position)> {
        self.is_pending().then_some(())?;
        Some((self.stream.clone(), self.tail?.position))
    }

    /// Takes over the last known tail. Returns whether it is another one than before with something unread.
    pub(super) fn follow(&mut self, readers: &Readers) -> bool {
        let tail = readers.tail(&self.stream).flatten();
        std::mem::replace(&mut self.tail, tail) != tail && self.is_pending()
    }

    /// Notes a poll from `start`. Returns whether that is another offset than before.
    pub(super) fn polled(&mut self, start: Start) -> bool {
        let offset = match start {
            Start::At(offset) => Some(offset),
            Start::Earliest => None,
            Start::Tail => self.tail.or(self.offset),
        };
        std::mem::replace(&mut self.offset, offset) != offset
    }
}

/// Whether something lies between an offset, `None` for the beginning, and the tail.
fn is_behind(offset: Option<Offset>, tail: Offset) -> bool {
    match offset {
        None | Some(Offset::ZERO) => tail.position > Position::default(),
        Some(offset) => tail.epoch != offset.epoch || tail.position > offset.position,
    }
}

impl FilterInterest {
    pub(super) fn is_pending(&self) -> bool {
        self.news > self.read_up_to
    }

    /// Takes over when the newest message was appended. Returns whether that is another time than before, and the message is unread.
    pub(super) fn follow(&mut self, readers: &Readers) -> bool {
        let news = readers.news(&self.filter);
        std::mem::replace(&mut self.news, news) != news && self.is_pending()
    }

    /// The device has read all that is known. Returns whether that is more than before.
    pub(super) fn is_read(&mut self) -> bool {
        let was_pending = self.is_pending();
        self.read_up_to = self.read_up_to.max(self.news);
        was_pending
    }

    /// A session that reads streams of the filter has ended at these offsets, see [`Device::session_ended`]. Returns whether that
    /// is another state than before.
    pub(super) fn session_ended(&mut self, readers: &Readers, read_up_to: ReadUpTo<'_>) -> bool {
        let is_unread = |stream: &StreamName, tail| match read_up_to(stream) {
            None => false,
            Some(Start::At(offset)) => is_behind(Some(offset), tail),
            Some(Start::Earliest) => is_behind(None, tail),
            Some(Start::Tail) => false,
        };
        match readers.news_before_unread(&self.filter, is_unread) {
            None => self.is_read(),
            before => std::mem::replace(&mut self.read_up_to, before) != before,
        }
    }
}
