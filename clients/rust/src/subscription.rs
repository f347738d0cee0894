//! The subscription as its user sees it: items in order, and the resume token behind those that were handled.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::Stream;

use crate::attempt::Form;
use crate::item::Item;
use crate::reader::Delivery;
use crate::resume_token::{ResumeToken, TokenChange};

/// Reads streams: each message once, in the order of its stream, over whatever the network lets through. Dropping it
/// closes its connection. It is also a [`Stream`] of items.
#[derive(Debug)]
pub struct Subscription {
    deliveries: mpsc::Receiver<Delivery>,
    items: std::vec::IntoIter<Item>,
    /// Change of the resume token, once the last of `items` was handled.
    moves: TokenChange,
    token: Option<ResumeToken>,
    form: watch::Receiver<Option<Form>>,
    task: JoinHandle<()>,
}

impl Subscription {
    pub(crate) fn new(
        deliveries: mpsc::Receiver<Delivery>,
        form: watch::Receiver<Option<Form>>,
        token: Option<ResumeToken>,
        task: JoinHandle<()>,
    ) -> Self {
        Self { deliveries, items: Vec::new().into_iter(), moves: TokenChange::Unchanged, token, form, task }
    }

    /// Waits for the next item. `None` only behind [`Item::Refused`] or [`Item::Untrusted`].
    ///
    /// Calling it means that the item before was handled; see [`resume_token`](Self::resume_token). It is cancel safe:
    /// no item is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Item> {
        std::future::poll_fn(|context| self.poll_item(context)).await
    }

    /// The position behind the handled items. A subscription that starts after it gets all items that were not handled,
    /// and may get again those that arrived in one envelope with the last one. `None` before the first response.
    pub fn resume_token(&self) -> Option<&ResumeToken> {
        self.token.as_ref()
    }

    /// The form that is used or tried. `None` before the first attempt.
    pub fn form(&self) -> Option<Form> {
        *self.form.borrow()
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            if let Some(item) = self.items.next() {
                return Poll::Ready(Some(item));
            }
            std::mem::take(&mut self.moves).apply(&mut self.token);
            let Some(delivery) = ready!(self.deliveries.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            (self.items, self.moves) = (delivery.items.into_iter(), delivery.token);
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
