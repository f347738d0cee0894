//! Room for messages that wait to be published: bounds their number and their bytes, over all producers of a client.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits for messages and for their bytes. Both semaphores are fair, so that messages which wait for room stay in order.
#[derive(Debug)]
pub(crate) struct Room {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: u32,
}

/// Room of one message, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _message: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Room {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        let messages = messages_max.clamp(1, Semaphore::MAX_PERMITS);
        let bytes_max = u32::try_from(bytes_max.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let bytes = Arc::new(Semaphore::new(bytes_max as usize));
        Self { messages: Arc::new(Semaphore::new(messages)), bytes, bytes_max }
    }

    /// Takes room for a message of this length, if there is some and no other message waits for it.
    pub(crate) fn try_acquire(&self, length: usize) -> Option<Permit> {
        let message = self.messages.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(self.permits(length)).ok()?;
        Some(Permit { _message: message, _bytes: bytes })
    }

    /// Waits for room. Returns `None` only if a semaphore is closed, which does not happen.
    pub(crate) async fn acquire(&self, length: usize) -> Option<Permit> {
        let message = self.messages.clone().acquire_owned().await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(self.permits(length)).await.ok()?;
        Some(Permit { _message: message, _bytes: bytes })
    }

    /// A message that is longer than the bound takes all of it.
    fn permits(&self, length: usize) -> u32 {
        u32::try_from(length).unwrap_or(u32::MAX).min(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn messages_and_bytes_are_bounded_and_a_long_message_waits_for_all_the_room() {
        let room = Room::new(3, 10);
        let first = room.try_acquire(6).unwrap();
        assert!(room.try_acquire(5).is_none(), "too many bytes");
        let others = [room.try_acquire(2).unwrap(), room.try_acquire(2).unwrap()];
        assert!(room.try_acquire(0).is_none(), "too many messages");
        drop(others);
        let mut long = Box::pin(room.acquire(1000));
        assert!(timeout(Duration::ZERO, &mut long).await.is_err());
        assert!(room.try_acquire(1).is_none(), "a message does not overtake one that waits");
        drop(first);
        assert!(long.await.is_some());
    }
}
