//! [`Source`]: what a long poll or a live delivery form reads from, either one stream
//! ([`StreamReader`](super::StreamReader)) or many ([`MultiReader`](super::MultiReader)).
//!
//! A source keeps its own position. Reading and waiting alternate:
//!
//! ```text
//! read -> nothing new -> poll_changed ... Ready -> read -> ...
//! ```
//!
//! A source registers with its streams before it reads them, so an append between a read and the next
//! `poll_changed` makes `poll_changed` ready at once.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::Hub;
use super::clients::Subject;
use super::update::Change;
use crate::stream::{Gap, Offset, ReadError};

/// A reader of one stream or many, with its position. Dropping it removes its waiter.
pub trait Source: Send + Sized + Unpin + 'static {
    /// The result of one read.
    type Batch: Send + Unpin;

    /// What a live delivery form sends to its client: a batch, or the reason why reading ends.
    type Update: From<Self::Batch> + Send;

    /// Returns the hub that the source reads from.
    fn hub(&self) -> &Hub;

    /// Returns the streams that the source reads, for the wait queue.
    fn subject(&self) -> Subject;

    /// Returns the current offset of a source of one stream; shown to operators.
    fn offset(&self) -> Option<Offset>;

    /// Whether a poll may be held. It may not while its client lacks a position of some stream: a client cut
    /// off during the hold would lose the messages that arrive meanwhile.
    fn may_wait(&self) -> bool;

    /// Reads like [`read`](Self::read), if the store knows what follows without waiting for anything.
    fn read_known(&mut self, _bytes_max: usize) -> Option<Self::Batch> {
        None
    }

    /// Reads the next messages, about `bytes_max` bytes, whether there are any or not. The messages count as delivered. Callers
    /// try [`read_known`](Self::read_known) first.
    ///
    /// After an error, or if the future is dropped, the source must not be used again.
    fn read(&mut self, bytes_max: usize) -> impl Future<Output = Result<Self::Batch, ReadError>> + Send;

    /// Waits until a read may return something new. Spurious wake-ups are possible.
    ///
    /// Cancel safe: the waiter stays registered until the source is dropped.
    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Change<Self::Batch>>;

    /// Whether a batch contains something that the reader does not know yet.
    fn is_news(batch: &Self::Batch) -> bool;

    /// Whether no update can follow this one.
    fn is_last(update: &Self::Update) -> bool;

    /// Returns the last update of a live delivery form whose read ended at a gap, if a gap ends it.
    fn gap(gap: Gap) -> Option<Self::Update>;
}

/// Reads the next messages, by a future only if the store has to wait for something.
///
/// # Errors
///
/// The source cannot be read at its position. It must not be used again then, nor after the future was dropped.
pub(super) async fn read_next<S: Source>(source: &mut S, bytes_max: usize) -> Result<S::Batch, ReadError> {
    match source.read_known(bytes_max) {
        Some(batch) => Ok(batch),
        None => source.read(bytes_max).await,
    }
}

/// A pending read, which returns the source with its result.
pub(super) type PendingRead<S> =
    Pin<Box<dyn Future<Output = (S, Result<<S as Source>::Batch, ReadError>)> + Send>>;

/// Begins to read a source that knew nothing; for callers that are not futures.
pub(super) fn read_once<S: Source>(mut source: S, bytes_max: usize) -> PendingRead<S> {
    Box::pin(async move {
        let batch = source.read(bytes_max).await;
        (source, batch)
    })
}
