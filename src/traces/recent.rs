//! [`RecentMessages`]: the trace contexts of the messages that were traced last, by stream and position.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::SpanContext;

/// Messages that are remembered; a further one replaces the oldest.
const MESSAGES_MAX: usize = 4096;

/// The longest name of a stream whose messages are remembered, in bytes: those of all of them take at most 4 MiB.
const NAME_BYTES_MAX: usize = 1024;

/// A message that was traced.
#[derive(Debug, Clone)]
pub(super) struct PublishedMessage {
    /// The position behind it.
    pub(super) end: u64,
    /// The span of its publish.
    pub(super) context: SpanContext,
    pub(super) stored_at: SystemTime,
}

/// See the [module](self) documentation.
#[derive(Debug, Default)]
pub(super) struct RecentMessages {
    streams: HashMap<Arc<str>, StreamMessages>,
    /// The stream of each remembered message, the oldest first.
    order: VecDeque<Arc<str>>,
}

/// The remembered messages of one stream, in the order of their positions.
#[derive(Debug)]
struct StreamMessages {
    epoch: u64,
    messages: VecDeque<PublishedMessage>,
}

impl StreamMessages {
    /// The number of messages that end at `position` or before.
    fn up_to(&self, position: u64) -> usize {
        self.messages.partition_point(|message| message.end <= position)
    }
}

impl RecentMessages {
    /// Remembers a message. Those of an earlier epoch are forgotten: the stream was created again.
    pub(super) fn push(&mut self, stream: &str, epoch: u64, message: PublishedMessage) {
        if stream.len() > NAME_BYTES_MAX {
            return;
        }
        let name = match self.streams.get_key_value(stream) {
            Some((name, _)) => name.clone(),
            None => Arc::from(stream),
        };
        let new = || StreamMessages { epoch, messages: VecDeque::new() };
        let known = self.streams.entry(name.clone()).or_insert_with(new);
        if known.epoch != epoch {
            *known = new();
        }
        known.messages.insert(known.up_to(message.end), message);
        self.order.push_back(name);
        while self.order.len() > MESSAGES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(known) = self.streams.get_mut(&oldest) {
                known.messages.pop_front();
                if known.messages.is_empty() {
                    self.streams.remove(&oldest);
                }
            }
        }
    }

    /// The messages of a stream that end behind `from`, up to `to`.
    pub(super) fn between(&self, stream: &str, from: u64, to: u64) -> Vec<PublishedMessage> {
        let Some(known) = self.streams.get(stream) else { return Vec::new() };
        let (first, end) = (known.up_to(from), known.up_to(to));
        known.messages.iter().take(end).skip(first).cloned().collect()
    }

    /// The message of a stream that ends at `tail`.
    pub(super) fn last(&self, stream: &str, tail: u64) -> Option<PublishedMessage> {
        let known = self.streams.get(stream)?;
        let last = known.messages.get(known.up_to(tail).checked_sub(1)?)?;
        (last.end == tail).then(|| last.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(end: u64) -> PublishedMessage {
        PublishedMessage { end, context: SpanContext::NONE, stored_at: SystemTime::UNIX_EPOCH }
    }

    fn ends(recent: &RecentMessages, stream: &str, from: u64, to: u64) -> Vec<u64> {
        recent.between(stream, from, to).iter().map(|message| message.end).collect()
    }

    #[test]
    fn messages_are_found_by_their_positions_in_any_order_of_their_publishes() {
        let mut recent = RecentMessages::default();
        for end in [1, 3, 2, 5] {
            recent.push("a", 7, message(end));
        }
        recent.push("b", 7, message(4));
        assert_eq!(ends(&recent, "a", 0, 9), [1, 2, 3, 5]);
        assert_eq!(ends(&recent, "a", 1, 3), [2, 3]);
        assert!(ends(&recent, "a", 3, 4).is_empty());
        assert!(ends(&recent, "c", 0, 9).is_empty());
        assert_eq!(recent.last("a", 3).map(|message| message.end), Some(3));
        assert!(recent.last("a", 4).is_none(), "a message behind it was not traced");
        assert!(recent.last("b", 3).is_none());
        recent.push("a", 8, message(1));
        assert_eq!(ends(&recent, "a", 0, 9), [1], "the stream was created again");
    }

    #[test]
    fn the_oldest_message_makes_room_and_long_names_take_none() {
        let mut recent = RecentMessages::default();
        recent.push("old", 1, message(1));
        for end in 0..MESSAGES_MAX as u64 {
            recent.push("a", 1, message(end));
        }
        assert_eq!((recent.order.len(), recent.streams.len()), (MESSAGES_MAX, 1));
        recent.push(&"x".repeat(NAME_BYTES_MAX + 1), 1, message(1));
        assert_eq!(recent.order.len(), MESSAGES_MAX);
        for stream in 0..2 * MESSAGES_MAX {
            recent.push(&stream.to_string(), 1, message(1));
        }
        assert_eq!((recent.order.len(), recent.streams.len()), (MESSAGES_MAX, MESSAGES_MAX));
    }
}
