//! What a long poll or a live form reads from: one stream ([`StreamReader`](super::StreamReader)) or many
//! ([`MultiReader`](super::MultiReader)).
//!
//! A source keeps its own position. Reading and waiting alternate:
//!
//! ```text
//! read -> nothing new -> poll_changed ... Ready -> read -> ...
//! ```
//!
//! A source registers with the streams before it reads them, so an append between a read and the next `poll_changed`
//! makes that ready at once.

use std::task::{Context, Poll};

use super::Hub;
use super::clients::Subject;
use super::update::Change;
use crate::stream::{Gap, Offset, ReadError};

/// One stream or many, with the position of their reader. Dropping it leaves no waiter behind.
pub trait Source: Send + Sized + 'static {
    /// What one read brings.
    type Batch: Send;

    /// What a live form tells its client: a batch, or how reading ends.
    type Update: From<Self::Batch> + Send;

    /// The hub that it reads from.
    fn hub(&self) -> &Hub;

    /// What it reads, for the wait queue.
    fn subject(&self) -> Subject;

    /// The offset that it reads from, for operators, if it is a single one.
    fn offset(&self) -> Option<Offset>;

    /// Whether a poll may be held before its client was told a position. What comes while such a client is cut off would
    /// be lost to it.
    fn may_wait(&self) -> bool;

    /// Promises that the task of this source polls it as soon as it wakes and does nothing else: then a publisher may let
    /// it read first.
    fn read_before_publisher_returns(&mut self);

    /// Reads on, about `bytes_max` bytes, without waiting for messages. The messages count as delivered.
    ///
    /// After an error, or if the future is dropped, the source is of no more use.
    fn read(&mut self, bytes_max: usize) -> impl Future<Output = Result<Self::Batch, ReadError>> + Send;

    /// Waits until a read may bring something new. It may be ready for nothing.
    ///
    /// Cancel safe: the waiter stays registered until the source is dropped.
    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Change<Self::Batch>>;

    /// Whether a batch has something that its reader does not know yet.
    fn is_news(batch: &Self::Batch) -> bool;

    /// Whether nothing can follow an update.
    fn is_last(update: &Self::Update) -> bool;

    /// The last update of a live form whose read ended at a gap.
    fn gap(gap: Gap) -> Option<Self::Update>;
}
