//! A subscription as its user sees it: items one after the other, and the resume token behind those that were dealt with.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::Stream;

use crate::attempt::Form;
use crate::item::Item;
use crate::reader::Delivery;
use crate::resume_token::{Move, ResumeToken};

/// Where a subscription begins.
#[derive(Debug, Clone)]
pub struct Start {
    pub(crate) token: Option<ResumeToken>,
    pub(crate) earliest: bool,
}

impl Start {
    /// With what is appended from now on: from the first answer of the gateway.
    pub fn now() -> Self {
        Self { token: None, earliest: false }
    }

    /// With the earliest message of each stream that is kept.
    pub fn earliest() -> Self {
        Self { token: None, earliest: true }
    }

    /// Behind what was read before; streams that the resume token does not know, from now on.
    pub fn after(token: ResumeToken) -> Self {
        Self { token: Some(token), earliest: false }
    }

    /// Streams that the resume token does not know begin with their earliest message.
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
    /// What becomes of the resume token once the last of `items` was dealt with.
    moves: Move,
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
        Self { deliveries, items: Vec::new().into_iter(), moves: Move::Stay, token, form, task }
    }

    /// The next item; `None` only behind [`Item::Refused`] or [`Item::Untrusted`]. Cancelling it loses nothing. To ask for the next one means
    /// that the last one was dealt with.
    pub async fn next(&mut self) -> Option<Item> {
        std::future::poll_fn(|context| self.poll_item(context)).await
    }

    /// How far everything was dealt with: a subscription that starts after it is given what lies behind, and perhaps
    /// once more what came together with the last item. `None` before the first answer.
    pub fn resume_token(&self) -> Option<&ResumeToken> {
        self.token.as_ref()
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
