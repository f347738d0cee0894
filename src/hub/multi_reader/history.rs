//! What only some readers of many streams ask for: to begin with the last messages of a stream, and the times of messages. Both
//! take a further read of the store, so that other reads carry nothing of it.

use std::time::SystemTime;

use crate::hub::Hub;
use crate::stream::{
    Batch, ChangeError, Encoding, Message, MessageLimit, Offset, Position, ReadError, Start, StreamName,
};

/// The farthest that messages are searched for in a stream that is not JSON, in bytes. Positions of such a stream count bytes,
/// so the boundaries of its appends have to be read from the store.
const SEARCH_BYTES_MAX: u64 = 64 << 10;

/// The most messages among these bytes; only empty ones can be more, and then none is searched for.
const SEARCH_MESSAGES_MAX: usize = 64 << 10;

impl Hub {
    /// Returns the start of a read that returns the last `count` messages of a stream, or fewer if the stream keeps fewer. In a
    /// stream that is not JSON, only appends that lie within the last `search_bytes` count, and within the last 64 KiB. With `before`,
    /// these are the last messages before this offset.
    pub async fn start_of_last(
        &self,
        name: &StreamName,
        count: u64,
        search_bytes: usize,
        before: Option<Offset>,
    ) -> Result<Start, ReadError> {
        let stream = match self.describe(name).await {
            Ok(stream) => stream,
            // A stream that is created from now on is read from its beginning.
            Err(ChangeError::Missing(_)) => return Ok(Start::Earliest),
            Err(ChangeError::Failed(failure)) => return Err(failure.into()),
        };
        // Each position has one offset, of this epoch or of an earlier run of the store.
        let end = before.map_or(stream.tail.position, |before| before.position.min(stream.tail.position));
        let earliest = stream.earliest.position;
        let back = |positions: u64| {
            let position = Position(end.0.saturating_sub(positions)).max(earliest);
            Offset { position, ..stream.tail }
        };
        if stream.content_type.is_json() {
            return Ok(Start::At(back(count)));
        }
        let from = back(SEARCH_BYTES_MAX.min(search_bytes as u64));
        // Positions of such a stream count bytes.
        let bytes_max = usize::try_from(end.since(from.position)).unwrap_or(usize::MAX);
        let limit = MessageLimit { bytes_max, count_max: SEARCH_MESSAGES_MAX };
        // The read that follows is the use of the stream.
        let read = self.store.peek(name, Start::At(from), limit, self.clock.now()).await?;
        if read.messages.len() >= SEARCH_MESSAGES_MAX {
            return Ok(Start::At(stream.tail));
        }
        // The first message may be the rest of an append that begins earlier.
        let is_whole = |start: Position| start > from.position || start == earliest;
        let earlier = |message: &&Message| message.next.position <= end;
        let starts = read.messages.iter().rev().filter(earlier).map(|message| message.start);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let first = starts.take(count).take_while(|start| is_whole(start.position)).last();
        Ok(Start::At(first.unwrap_or(Offset { position: end, ..stream.tail })))
    }

    /// Returns the time of day at which each message of a batch was appended. The messages of a text stream are delivered as
    /// one text, which has the time of the last of them. Returns none if the messages have been trimmed meanwhile.
    pub(super) async fn times_of(&self, name: &StreamName, batch: &Batch) -> Vec<SystemTime> {
        let count_max = usize::try_from(batch.messages).unwrap_or(usize::MAX);
        let limit = MessageLimit { bytes_max: usize::MAX, count_max };
        let now = self.clock.now();
        let Ok(read) = self.store.messages(name, Start::At(batch.start), limit, now).await else {
            return Vec::new();
        };
        if read.messages.len() != count_max {
            return Vec::new();
        }
        let wall = self.clock.wall_offset();
        let times = read.messages.iter().map(|message| wall.to_wall(message.at));
        match batch.content_type.encoding() {
            Encoding::Text => times.last().into_iter().collect(),
            Encoding::Json | Encoding::Binary => times.collect(),
        }
    }
}
