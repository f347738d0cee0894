//! A subscription: from which message on a client gets a stream, and which retained messages it gets first.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;

use super::codec::{Outgoing, Reason, RetainHandling, Subscribe, SubscriptionOptions};
use super::connection::Connection;
use crate::stream::{Filter, Quality, Start};

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// Takes subscriptions, each by itself, and says what was granted. Their streams are sent from here on.
    pub(super) async fn subscribe(&mut self, Subscribe { id, filters }: Subscribe) {
        let mut granted = Vec::with_capacity(filters.len());
        for (filter, options) in filters {
            granted.push(match filter {
                Ok(filter) => self.add(filter, options).await,
                Err(reason) => Err(reason),
            });
        }
        self.wire.put(&Outgoing::Suback(id, granted));
    }

    async fn add(&mut self, filter: Filter, options: SubscriptionOptions) -> Result<Quality, Reason> {
        let subscriptions = self.session.subscriptions();
        let max = self.broker.limits.mqtt_subscriptions_max;
        if subscriptions.len() >= max && subscriptions.get(&filter).is_none() {
            return Err(Reason::QuotaExceeded);
        }
        let is_new = self.session.subscribe(filter.clone(), options);
        // Marked from now on, and only then looked at: what comes in between is seen twice rather than never.
        self.subscriber.add(filter.clone());
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        for stream in self.broker.hub.names_matching(&filter) {
            consume_budget().await;
            if !self.session.has_cursor(&stream) {
                let Ok(description) = self.broker.hub.describe(&stream).await else { continue };
                self.session.set_cursor(stream.clone(), Start::At(description.tail));
            }
            if wants_retained {
                self.session.queue_retained(stream, options);
            }
        }
        Ok(options.quality)
    }
}
