//! Sends subscribers what their streams have: each message is read from the log when there is room for it on the link.

use minidom::Element;

use super::PubsubService;
use super::items::EVENT;
use super::service::gap_element;
use super::subscriptions::DueSubscription;
use super::xml::{CLIENT, WithAttribute, element};
use crate::auth::{Action, authorize};
use crate::stream::{Gap, GapReason, Message, MessageLimit, Offset, ReadError, Start};

/// A stanza for a subscriber.
pub(super) struct Notification {
    pub(super) stanza: Element,
    /// Where its subscription goes on behind it.
    pub(super) next: Offset,
}

/// Messages of one stream that are sent before it is the turn of others.
const MESSAGES_A_TURN: usize = 64;

impl PubsubService {
    /// Returns the stanzas for the next messages of a subscription, and notes them as sent.
    pub(super) async fn deliver(&self, due: &DueSubscription) -> Vec<Notification> {
        let (stream, jid) = (&due.key.stream, &due.key.jid);
        if authorize(&due.grants, Action::Read, stream).is_err() || !self.auth.stands(&due.grants) {
            self.end(due).await;
            return Vec::new();
        }
        let limit = MessageLimit { bytes_max: self.limits.tail_bytes_max, count_max: MESSAGES_A_TURN };
        match self.hub.messages(stream, Start::At(due.offset), limit).await {
            Ok(batch) => {
                self.hub.trace_delivery("xmpp", stream, due.offset.position, batch.next.position);
                let notification = |message: &Message| Notification {
                    stanza: self.notification(stream, message, &batch.content_type, jid),
                    next: message.next,
                };
                let mut notifications: Vec<_> = batch.messages.iter().map(notification).collect();
                if let Some(last) = notifications.last_mut() {
                    last.next = batch.next;
                }
                self.metrics.notified.inc_by(notifications.len() as u64);
                self.subscriptions.with(|table| {
                    table.sent(due, batch.next);
                    if !batch.up_to_date {
                        table.make_due(&due.key);
                    }
                });
                notifications
            }
            Err(ReadError::Gap(gap)) => {
                self.go_on(due, gap.earliest);
                vec![Notification { stanza: self.gap(due, &gap), next: gap.earliest }]
            }
            Err(ReadError::BehindTail) => {
                // The store has lost what was sent, as after a power cut.
                match self.hub.tail_of(stream).await {
                    Ok(Some(tail)) => self.go_on(due, tail),
                    Ok(None) | Err(_) => self.subscriptions.retry(due.key.clone()),
                }
                Vec::new()
            }
            Err(ReadError::Missing(_)) => {
                self.end(due).await;
                let delete = element("delete", EVENT).with("node", stream.local()).build();
                let stanza = self.message(due, element("event", EVENT).append(delete).build());
                vec![Notification { stanza, next: due.offset }]
            }
            // Skipping what cannot be read would lose it silently.
            Err(ReadError::Failed(error)) => {
                tracing::error!(%stream, %error, "cannot read a stream for an XMPP subscription; will retry");
                self.subscriptions.retry(due.key.clone());
                Vec::new()
            }
        }
    }

    /// Goes on with another offset than the next one.
    fn go_on(&self, due: &DueSubscription, offset: Offset) {
        self.subscriptions.with(|table| {
            table.sent(due, offset);
            table.make_due(&due.key);
        });
    }

    async fn end(&self, due: &DueSubscription) {
        if let Err(error) = self.subscriptions.remove(&due.key).await {
            tracing::error!(%error, "cannot store the end of an XMPP subscription");
        }
    }

    /// The stanza that tells a subscriber of messages that are gone.
    fn gap(&self, due: &DueSubscription, gap: &Gap) -> Element {
        match gap.reason {
            GapReason::Trimmed { missed } | GapReason::Damaged { missed } => {
                self.metrics.missed.inc_by(missed);
            }
            GapReason::Epoch => {
                self.metrics.epochs_changed.inc();
            }
        }
        self.message(due, gap_element(gap).with("node", due.key.stream.local()).build())
    }

    fn message(&self, due: &DueSubscription, content: Element) -> Element {
        let message =
            element("message", CLIENT).with("from", self.name.as_str()).with("to", due.key.jid.as_str());
        message.append(content).build()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::auth::{Authenticator, Grants};
    use crate::clock::{Clock, in_time};
    use crate::hub::Hub;
    use crate::limits::Limits;
    use crate::metrics::Metrics;
    use crate::store::CountedMemory;
    use crate::stream::{Append, ContentType, Principal, StreamName};
    use crate::xmpp::jid::Jid;
    use crate::xmpp::subscriptions::SubscriptionKey;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_could_not_be_read_is_read_again_without_another_message() {
        let (store, limits) = (Arc::new(CountedMemory::default()), Arc::new(Limits::default()));
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::start());
        let hub = Arc::new(Hub::new(store.clone(), limits.clone(), metrics.clone(), clock));
        let stream = StreamName::parse("a").unwrap();
        let append = || {
            let text = ContentType::parse("text/plain").unwrap();
            Append::of_any_type("x".into(), text, limits.json_depth_max).or_create()
        };
        let tail = hub.publish(&stream, append()).await.unwrap().tail;
        let (name, auth) = (Jid::parse("s.example").unwrap(), Arc::new(Authenticator::open()));
        let metrics = metrics.xmpp().clone();
        let service = PubsubService::of_client(
            (hub.clone(), limits.clone()),
            metrics,
            clock,
            auth,
            name,
            Principal::GATEWAY,
        );
        let key = SubscriptionKey { stream: stream.clone(), jid: Jid::parse("a@b").unwrap() };
        service.subscriptions.add(key, &Arc::new(Grants::everything()), tail).await.unwrap();
        hub.publish(&stream, append()).await.unwrap();
        let next = async || {
            while !service.subscriptions.with(|table| table.has_due()) {
                in_time("a stream to read", service.subscriptions.changed(9)).await;
            }
            let due = service.subscriptions.with(|table| table.take_due()).unwrap();
            service.deliver(&due).await.len()
        };
        store.fails_to_read.store(true, Ordering::Relaxed);
        let since = Instant::now();
        assert_eq!([next().await, next().await], [0, 0]);
        store.fails_to_read.store(false, Ordering::Relaxed);
        assert_eq!(next().await, 1);
        assert_eq!(since.elapsed(), Duration::from_secs(2));
    }
}
