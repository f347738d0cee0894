//! [`NewsQueue`]: the news of one connection that wait to be told.
//!
//! They wait while tails are read after a lost connection, and whenever the engine sends faster than the gateway tells. Their messages
//! wait only for streams with readers here, and within a bound, as readers can read what the news lack.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use super::argument::has_records;
use super::news;
use super::shared::SharedStore;

/// Bytes of news with messages that wait to be told. Further ones wait without their messages.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Receives what a [`NewsSender`] has sent.
pub(super) struct NewsQueue {
    pushes: mpsc::UnboundedReceiver<PushInfo>,
    waiting: Arc<AtomicUsize>,
}

/// Where the connection puts what the engine sends.
pub(super) struct NewsSender {
    store: Weak<SharedStore>,
    pushes: mpsc::UnboundedSender<PushInfo>,
    waiting: Arc<AtomicUsize>,
}

/// A queue for the news of one connection.
pub(super) fn news_queue(store: Weak<SharedStore>) -> (NewsSender, NewsQueue) {
    let (sender, pushes) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    (NewsSender { store, pushes: sender, waiting: waiting.clone() }, NewsQueue { pushes, waiting })
}

impl NewsSender {
    /// Queues what the engine has sent. Fails if nobody receives it any more.
    pub(super) fn send(&self, mut push: PushInfo) -> Result<(), redis::aio::SendError> {
        if push.kind == PushKind::SMessage
            && let [Value::BulkString(channel), Value::BulkString(message)] = &mut *push.data
            && has_records(channel)
        {
            let has_room = self.waiting.load(Ordering::Relaxed) < WAITING_BYTES_MAX;
            let store = self.store.upgrade().filter(|_| has_room);
            news::drop_records(message, |stream| store.is_some_and(|store| store.attached.has(stream)));
        }
        self.waiting.fetch_add(size_of_message(&push), Ordering::Relaxed);
        self.pushes.send(push).map_err(|_| redis::aio::SendError)
    }
}

impl NewsQueue {
    /// The next news. `None`: the connection has ended.
    ///
    /// Cancel safe: nothing is lost.
    pub(super) async fn recv(&mut self) -> Option<PushInfo> {
        let push = self.pushes.recv().await?;
        self.waiting.fetch_sub(size_of_message(&push), Ordering::Relaxed);
        Some(push)
    }
}

fn size_of_message(push: &PushInfo) -> usize {
    match push.data.get(1) {
        Some(Value::BulkString(message)) => message.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::argument::MOVES;
    use super::super::shared::tests::unconnected;
    use super::*;
    use crate::stream::StreamName;

    fn push(channel: &str, message: &str) -> PushInfo {
        let data = [channel, message].map(|text| Value::BulkString(text.into()));
        PushInfo { kind: PushKind::SMessage, data: data.into() }
    }

    #[tokio::test]
    async fn messages_wait_for_readers_alone_and_within_a_bound() {
        let store = unconnected();
        store.attached.attach(&StreamName::parse("read").unwrap());
        let (sender, mut queue) = news_queue(Arc::downgrade(&store));
        let mut queued = async |channel: &str, message: &str| {
            sender.send(push(channel, message)).unwrap();
            let text = queue.recv().await.unwrap().data.remove(1);
            redis::from_redis_value::<String>(text).unwrap()
        };
        let of = |name: &str, records: &str| format!("0\n1f\n0\n1\n\n{name}\n{records}");
        assert_eq!(queued(MOVES, &of("read", "*1\r\n")).await, of("read", "*1\r\n"));
        assert_eq!(queued(MOVES, &of("other", "*1\r\n")).await, of("other", ""));
        let note = "told\nsession\n1\n2\n3\n4\n5\n6";
        assert_eq!(queued("news", note).await, note);

        let large = of("read", &"x".repeat(WAITING_BYTES_MAX));
        let small = of("read", "*1\r\n");
        [&large, &small].into_iter().for_each(|message| sender.send(push(MOVES, message)).unwrap());
        let mut sizes = Vec::new();
        for _ in 0..2 {
            sizes.push(size_of_message(&queue.recv().await.unwrap()));
        }
        assert_eq!(sizes, [large.len(), of("read", "").len()]);
        sender.send(push(MOVES, &small)).unwrap();
        assert_eq!(size_of_message(&queue.recv().await.unwrap()), small.len());
    }
}
