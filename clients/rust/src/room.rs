//! Room for messages that wait to be published: bounds their number and their bytes, over all producers of a client.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Free places and bytes. Who waits for room gets it in the order of waiting, so that messages stay in order.
#[derive(Debug)]
pub(crate) struct Room {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: u32,
}

/// Room of one message, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _message: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Room {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        let messages = messages_max.clamp(1, Semaphore::MAX_PERMITS);
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).max(1);
        let bytes = Arc::new(Semaphore::new(bytes_max as usize));
        Self { messages: Arc::new(Semaphore::new(messages)), bytes, bytes_max }
    }

    /// Takes room for a message of this length, if there is some and nobody waits for it.
    pub(crate) fn try_take(&self, length: usize) -> Option<Place> {
        let message = self.messages.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(self.permits(length)).ok()?;
        Some(Place { _message: message, _bytes: bytes })
    }

    /// Waits for room. `None` never comes, as the room is never closed.
    pub(crate) async fn take(&self, length: usize) -> Option<Place> {
        let message = self.messages.clone().acquire_owned().await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(self.permits(length)).await.ok()?;
        Some(Place { _message: message, _bytes: bytes })
    }

    /// A message that is longer than the bound takes all of it.
    fn permits(&self, length: usize) -> u32 {
        u32::try_from(length).unwrap_or(u32::MAX).min(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_and_bytes_are_bounded_and_a_long_message_waits_for_all_the_room() {
        let room = Room::new(3, 10);
        let first = room.try_take(6).unwrap();
        assert!(room.try_take(5).is_none(), "too many bytes");
        let others = [room.try_take(2).unwrap(), room.try_take(2).unwrap()];
        assert!(room.try_take(0).is_none(), "too many messages");
        drop(others);
        let mut long = polled_by_hand(room.take(1000));
        assert!(long.poll().is_none());
        assert!(room.try_take(1).is_none(), "nobody overtakes who waits");
        drop(first);
        assert!(long.poll().is_some());
    }

    /// A future that is polled by hand.
    struct Polled<F>(std::pin::Pin<Box<F>>);

    fn polled_by_hand<F: Future>(future: F) -> Polled<F> {
        Polled(Box::pin(future))
    }

    impl<F: Future> Polled<F> {
        fn poll(&mut self) -> Option<F::Output> {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match self.0.as_mut().poll(&mut context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            }
        }
    }
}
