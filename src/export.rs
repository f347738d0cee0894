//! Exports the streams of a store as lines of JSON, piece by piece, so that an export of any size takes little memory.
//!
//! Each stream is exported as it is at one moment: a line with its settings and its writers, and a line for each of its messages
//! up to its tail at that moment. Whatever was acknowledged before the export began is in it. Sources come before their forks,
//! which are exported without the messages that they share. The last line says that the export is complete.
//! [`maintenance`](crate::maintenance) imports it.

pub(crate) mod line;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use tokio::task::yield_now;

use crate::clock::{Clock, WallOffset};
use crate::stream::{
    Branch, Encoding, FORK_DEPTH_MAX, Failure, Gap, GapReason, MessageLimit, Missing, Offset, Position,
    ReadError, Snapshot, Start, Store, StreamName,
};
use line::{EndLine, ForkNote, MessageLine, StreamLine};

/// The maximum of one read; a larger message is read alone.
const READ_MAX: MessageLimit = MessageLimit { bytes_max: 256 * 1024, count_max: 1000 };

/// A piece of the export is returned once it has this size.
const PIECE_BYTES: usize = 64 * 1024;

/// An export that is under way.
pub struct Exporter {
    store: Arc<dyn Store>,
    clock: Clock,
    offset: WallOffset,
    /// Streams of this depth of forks are exported, from sources to forks.
    depth: u8,
    /// The greatest depth that was seen.
    deepest: u8,
    names: VecDeque<StreamName>,
    /// The name after which the next page begins; `None`: there is no further page at this depth.
    after: Option<StreamName>,
    is_last_page: bool,
    current: Option<OpenStream>,
    /// The exported streams that have forks.
    sources: HashMap<StreamName, ExportedRange>,
    count: TransferCount,
    is_over: bool,
}

/// How much an export or import has transferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferCount {
    /// Number of streams.
    pub streams: usize,
    /// Number of messages.
    pub messages: usize,
}

impl fmt::Display for TransferCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} streams and {} messages", self.streams, self.messages)
    }
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The streams cannot be listed.
    #[error("cannot list the streams: {0}")]
    List(Failure),
    /// A stream cannot be read.
    #[error("stream {stream}: {error}")]
    Read {
        /// The name of the stream.
        stream: StreamName,
        /// Why reading failed.
        error: ReadError,
    },
    /// A line cannot be written.
    #[error(transparent)]
    Line(#[from] io::Error),
}

/// The stream that is being exported.
struct OpenStream {
    name: StreamName,
    encoding: Encoding,
    start: Start,
    /// The tail up to which the stream is exported.
    end: Position,
    has_forks: bool,
    exported: ExportedRange,
}

/// Which positions of a stream are in the export.
#[derive(Debug, Clone, Copy)]
struct ExportedRange {
    /// The first position from which on nothing is missing.
    first: Position,
    end: Position,
    /// Difference between a position and its distance from the first message in the export.
    ahead: u64,
}

impl Exporter {
    /// Begins an export of all streams of `store`.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            offset: clock.wall_offset(),
            depth: 0,
            deepest: 0,
            names: VecDeque::new(),
            after: None,
            is_last_page: false,
            current: None,
            sources: HashMap::new(),
            count: TransferCount::default(),
            is_over: false,
        }
    }

    /// How much was exported so far.
    pub fn count(&self) -> TransferCount {
        self.count
    }

    /// The next piece of the export, of whole lines; `None` after the last one. After an error the export is not complete and
    /// has no further piece.
    pub async fn next(&mut self) -> Option<Result<Bytes, ExportError>> {
        let mut piece = BytesMut::new();
        while !self.is_over && piece.len() < PIECE_BYTES {
            if let Err(error) = self.step(&mut piece).await {
                self.is_over = true;
                return Some(Err(error));
            }
        }
        (!piece.is_empty()).then(|| Ok(piece.freeze()))
    }

    /// The last line of an export that ends early, so that nobody takes it for a complete one.
    pub fn broken_off(&self, why: String) -> Bytes {
        let mut line = BytesMut::new();
        let TransferCount { streams, messages } = self.count;
        // A line in memory cannot fail.
        let _written = write_line(&mut line, &EndLine { end: false, streams, messages, error: Some(why) });
        line.freeze()
    }

    async fn step(&mut self, out: &mut BytesMut) -> Result<(), ExportError> {
        if let Some(current) = self.current.take() {
            return self.read_on(current, out).await;
        }
        if let Some(name) = self.names.pop_front() {
            return self.begin(name, out).await;
        }
        if !self.is_last_page {
            let page = self.store.page("", self.after.as_ref(), self.clock.now()).await;
            let page = page.map_err(ExportError::List)?;
            self.names = page.streams.into_iter().map(|(name, _)| name).collect();
            (self.is_last_page, self.after) = (page.next.is_none(), page.next);
            // A page without streams to export must not hold up other tasks.
            yield_now().await;
            return Ok(());
        }
        if self.depth < self.deepest.min(FORK_DEPTH_MAX) {
            (self.depth, self.is_last_page) = (self.depth + 1, false);
            return Ok(());
        }
        self.is_over = true;
        let TransferCount { streams, messages } = self.count;
        Ok(write_line(out, &EndLine { end: true, streams, messages, error: None })?)
    }

    /// Begins with a stream if it has the depth that is exported now.
    async fn begin(&mut self, name: StreamName, out: &mut BytesMut) -> Result<(), ExportError> {
        let snapshot = match self.store.snapshot(&name, self.clock.now()).await {
            Ok(snapshot) => snapshot,
            // The stream has ended since its page was read.
            Err(ReadError::Missing(Missing::NotFound | Missing::Deleted)) => return Ok(()),
            Err(error) => return Err(ExportError::Read { stream: name, error }),
        };
        self.deepest = self.deepest.max(snapshot.depth);
        if snapshot.depth != self.depth {
            return Ok(());
        }
        let Snapshot { description, .. } = &snapshot;
        let (earliest, tail) = (description.earliest, description.tail);
        let branch = snapshot.branch.as_ref().and_then(|branch| self.branch_off(branch, earliest.position));
        let (start, fork, exported) = match branch {
            Some((note, source, start)) => {
                // Messages of the fork alone may be trimmed, too.
                let trimmed = earliest.position.since(start.position);
                let first =
                    source.first.max(if trimmed > 0 { earliest.position } else { Position::default() });
                let ahead = source.ahead + trimmed;
                (
                    if trimmed > 0 { earliest } else { start },
                    Some(note),
                    ExportedRange { first, end: tail.position, ahead },
                )
            }
            None => {
                let first = earliest.position;
                (earliest, None, ExportedRange { first, end: tail.position, ahead: first.0 })
            }
        };
        write_line(out, &StreamLine::of(&name, &snapshot, fork, self.offset))?;
        self.count.streams += 1;
        self.current = Some(OpenStream {
            name,
            encoding: description.content_type.encoding(),
            start: Start::At(start),
            end: tail.position,
            has_forks: snapshot.has_forks,
            exported,
        });
        Ok(())
    }

    /// Finds where a fork branches off, if its source is in the export with everything that the fork shares with it. Any other
    /// fork is exported as a stream of its own, with all of its messages.
    fn branch_off(&self, branch: &Branch, earliest: Position) -> Option<(ForkNote, ExportedRange, Offset)> {
        let source = *self.sources.get(&branch.source)?;
        let at = branch.at.position;
        let shares_all = source.first <= earliest.min(at) && at <= source.end;
        let note =
            ForkNote { source: branch.source.as_str().to_owned(), at: at.0.checked_sub(source.ahead)? };
        shares_all.then_some((note, source, branch.at))
    }

    /// Writes the next messages of a stream.
    async fn read_on(&mut self, mut current: OpenStream, out: &mut BytesMut) -> Result<(), ExportError> {
        let name = &current.name;
        let read = match current.start {
            // Nothing is left, and the stream may have ended meanwhile.
            Start::At(offset) if offset.position >= current.end => {
                if current.has_forks {
                    self.sources.insert(current.name, current.exported);
                }
                return Ok(());
            }
            start => self.store.peek(name, start, READ_MAX, self.clock.now()).await,
        };
        let chunk = match read {
            Ok(chunk) => chunk,
            // The stream has ended, and another one has its name.
            Err(ReadError::Gap(Gap { reason: GapReason::Epoch, .. })) => return Ok(()),
            Err(ReadError::Gap(gap)) => {
                tracing::warn!(
                    stream = %name, reason = ?gap.reason, next = %gap.earliest,
                    "messages are missing from the export; it continues at the next message"
                );
                // Distances from the first message are not known any more, so forks are exported with all of their messages.
                (current.start, current.has_forks) = (Start::At(gap.earliest), false);
                self.current = Some(current);
                return Ok(());
            }
            // A stream that ends during the export is in it with the messages that were read before.
            Err(ReadError::Missing(_)) => return Ok(()),
            Err(error) => return Err(ExportError::Read { stream: current.name, error }),
        };
        for message in chunk.messages.iter().filter(|message| message.start.position < current.end) {
            write_line(out, &MessageLine::of(message, current.encoding, self.offset))?;
            self.count.messages += 1;
        }
        current.start = Start::At(chunk.next);
        self.current = Some(current);
        Ok(())
    }
}

fn write_line(out: &mut BytesMut, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(out.writer(), line)?;
    out.put_u8(b'\n');
    Ok(())
}
