//! A subscription as its user sees it: items one after the other, and the cursor behind those that were dealt with.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::Stream;

use super::attempt::Form;
use super::cursor::{Cursor, Move};
use super::item::Item;
use super::reader::Delivery;

/// Where a subscription begins.
#[derive(Debug, Clone)]
pub struct Start {
    pub(super) cursor: Option<Cursor>,
    pub(super) earliest: bool,
}

impl Start {
    /// With what is appended from now on: from the first answer of the gateway.
    pub fn now() -> Self {
        Self { cursor: None, earliest: false }
    }

    /// With the earliest message of each stream that is kept.
    pub fn earliest() -> Self {
        Self { cursor: None, earliest: true }
    }

    /// Behind what was read before; streams that the cursor does not know, from now on.
    pub fn after(cursor: Cursor) -> Self {
        Self { cursor: Some(cursor), earliest: false }
    }

    /// Streams that the cursor does not know begin with their earliest message.
    pub fn unknown_from_earliest(self) -> Self {
        Self { earliest: true, ..self }
    }
}

/// Messages of some streams, in order and each once, over whatever the network lets through. Dropping it ends its task
/// and its connection.
#[derive(Debug)]
pub struct Subscription {
    deliveries: mpsc::Receiver<Delivery>,
    items: std::vec::IntoIter<Item>,
    /// What becomes of the cursor once the last of `items` was dealt with.
    moves: Move,
    cursor: Option<Cursor>,
    form: watch::Receiver<Option<Form>>,
    task: JoinHandle<()>,
}

impl Subscription {
    pub(super) fn new(
        deliveries: mpsc::Receiver<Delivery>,
        form: watch::Receiver<Option<Form>>,
        cursor: Option<Cursor>,
        task: JoinHandle<()>,
    ) -> Self {
        Self { deliveries, items: Vec::new().into_iter(), moves: Move::Stay, cursor, form, task }
    }

    /// The next item; `None` only behind [`Item::Refused`]. Cancelling it loses nothing. To ask for the next one means
    /// that the last one was dealt with.
    pub async fn next(&mut self) -> Option<Item> {
        std::future::poll_fn(|context| self.poll_item(context)).await
    }

    /// How far everything was dealt with: a subscription that starts after it is given what lies behind, and perhaps
    /// once more what came together with the last item. `None` before the first answer.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// The form in use, or being tried. `None` before the first try.
    pub fn form(&self) -> Option<Form> {
        *self.form.borrow()
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            if let Some(item) = self.items.next() {
                return Poll::Ready(Some(item));
            }
            std::mem::take(&mut self.moves).apply(&mut self.cursor);
            let Some(delivery) = ready!(self.deliveries.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            (self.items, self.moves) = (delivery.items.into_iter(), delivery.cursor);
        }
    }
}

impl Stream for Subscription {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.get_mut().poll_item(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}
