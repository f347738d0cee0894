//! [`Unconfirmed`]: messages of QoS 0 that a connection has passed to the store and that are not synced yet. Nobody waits for
//! their acknowledgement, so the connection goes on with the next packet, and one sync serves many of them. They are appended in
//! the order in which they begin.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::Broker;
use super::publish::{Publication, Refusal};
use crate::stream::StreamName;

/// Maximum number of messages, and of bytes of their payloads.
const MESSAGES_MAX: usize = 256;
const BYTES_MAX: usize = 64 * 1024;

type Appending = Pin<Box<dyn Future<Output = Confirmed> + Send>>;

/// The messages of one connection.
#[derive(Default)]
pub(super) struct Unconfirmed(
    /// `None` if there are none, since most connections have none.
    Option<Box<Unsynced>>,
);

#[derive(Default)]
struct Unsynced {
    appends: FuturesUnordered<Appending>,
    bytes: usize,
}

/// A message that is appended or refused.
pub(super) struct Confirmed {
    pub(super) name: StreamName,
    /// The topic as the client wrote it.
    pub(super) topic: Box<str>,
    bytes: usize,
    /// Whether the stream was created.
    pub(super) outcome: Result<bool, Refusal>,
}

impl Unconfirmed {
    /// Whether there is room for a message of `bytes`.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let has_room = |all: &Unsynced| all.appends.len() < MESSAGES_MAX && all.bytes + bytes <= BYTES_MAX;
        self.0.as_deref().is_none_or(has_room)
    }

    /// Begins to append a message. Returns it if that is already over.
    pub(super) fn begin(
        &mut self,
        broker: Arc<Broker>,
        publisher: Arc<str>,
        name: StreamName,
        topic: Box<str>,
        publication: Publication,
    ) -> Option<Confirmed> {
        let bytes = publication.payload.len();
        let mut append: Appending = Box::pin(async move {
            let outcome = broker.append(&publisher, &name, publication).await;
            Confirmed { name, topic, bytes, outcome }
        });
        // The first poll passes the message to the store.
        let confirmed = (&mut append).now_or_never();
        if confirmed.is_none() {
            let unsynced = self.0.get_or_insert_default();
            unsynced.bytes += bytes;
            unsynced.appends.push(append);
        }
        confirmed
    }

    /// Waits for the next message that is appended or refused. `None`: there are no more.
    pub(super) async fn next(&mut self) -> Option<Confirmed> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Poll form of [`next`](Self::next).
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Confirmed>> {
        let Some(unsynced) = &mut self.0 else { return Poll::Ready(None) };
        let confirmed = ready!(unsynced.appends.poll_next_unpin(context));
        unsynced.bytes -= confirmed.as_ref().map_or(0, |confirmed| confirmed.bytes);
        self.0.take_if(|unsynced| unsynced.appends.is_empty());
        Poll::Ready(confirmed)
    }
}
