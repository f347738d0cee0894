//! [`AppendQueue`]: the appends that wait for a call of the engine.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::reply::EngineReply;
use crate::stream::{Append, Failure, StreamName};

/// Bounds of one call, which holds up all others: appends, and bytes of messages.
const CALL_APPENDS_MAX: usize = 64;
const CALL_BYTES_MAX: usize = 256 * 1024;

/// The appends that wait for a call, by stream. A stream has an entry as long as a call of it is under way.
#[derive(Debug, Default)]
pub(super) struct AppendQueue(Mutex<HashMap<StreamName, VecDeque<QueuedAppend>>>);

/// One append, and where its verdict goes.
#[derive(Debug)]
pub(super) struct QueuedAppend {
    pub(super) append: Box<Append>,
    pub(super) now: SystemTime,
    pub(super) verdict: oneshot::Sender<(Box<Append>, Result<EngineReply, Failure>)>,
}

impl AppendQueue {
    /// Adds an append. Returns whether the caller has to see to it that a call is made.
    pub(super) fn push(&self, name: &StreamName, append: QueuedAppend) -> bool {
        let mut streams = self.0.lock();
        let is_first = !streams.contains_key(name);
        streams.entry(name.clone()).or_default().push_back(append);
        is_first
    }

    /// Takes the appends of the next call; `None` if there are none, and the stream has no entry any more.
    pub(super) fn next(&self, name: &StreamName) -> Option<Vec<QueuedAppend>> {
        let mut streams = self.0.lock();
        let waiting = streams.get_mut(name)?;
        let mut bytes = 0;
        let fits = waiting.iter().take(CALL_APPENDS_MAX).take_while(|waiting| {
            bytes += waiting.append.payload.len();
            bytes <= CALL_BYTES_MAX
        });
        let count = fits.count().max(1).min(waiting.len());
        let batch: Vec<_> = waiting.drain(..count).collect();
        if batch.is_empty() {
            streams.remove(name);
            return None;
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{ContentType, Payload};

    #[test]
    fn a_call_takes_what_waits_within_its_bounds_and_an_empty_queue_ends() {
        let (queue, name) = (AppendQueue::default(), StreamName::parse("s").unwrap());
        let push = |bytes: usize| {
            let append = Append::of(ContentType::octet_stream(), Payload::raw(vec![0; bytes].into()));
            let (verdict, _) = oneshot::channel();
            queue.push(&name, QueuedAppend { append: append.into(), now: SystemTime::UNIX_EPOCH, verdict })
        };
        let next = || queue.next(&name).map(|batch| batch.len());
        assert!(push(CALL_BYTES_MAX + 1), "the first append has to make a call");
        assert_eq!(next(), Some(1), "an append that exceeds the bounds alone");
        assert!(!push(CALL_BYTES_MAX / 2));
        assert!(!push(CALL_BYTES_MAX / 2));
        assert!(!push(1));
        assert_eq!((next(), next()), (Some(2), Some(1)));
        (0..=CALL_APPENDS_MAX).for_each(|_| assert!(!push(1)));
        assert_eq!((next(), next(), next()), (Some(CALL_APPENDS_MAX), Some(1), None));
        assert!(push(1), "the queue has ended, so a new call is needed");
    }
}
