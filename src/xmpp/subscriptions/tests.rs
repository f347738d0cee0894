//! Subscriptions that change while others are stored.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::*;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::CountedMemory;
use crate::stream::{Epoch, Position};

#[tokio::test]
async fn a_subscription_that_is_removed_while_another_one_is_stored_does_not_come_back() {
    let store = Arc::new(CountedMemory::keeping_sessions());
    let (limits, metrics) = (Arc::new(Limits::default()), Arc::new(Metrics::new()));
    let hub = Arc::new(Hub::new(store.clone(), limits.clone(), metrics.clone(), Clock::start()));
    let auth = Authenticator::open();
    let subscriptions = JidSubscriptions::load(&hub, &limits, &auth, metrics.xmpp().clone()).await.unwrap();
    let offset = Offset { epoch: Epoch(1), position: Position(0) };
    let key =
        |jid| SubscriptionKey { stream: StreamName::parse("news").unwrap(), jid: Jid::parse(jid).unwrap() };
    let [kept, removed] = [key("a@x"), key("b@x")];
    for key in [&kept, &removed] {
        subscriptions.add(key.clone(), &Arc::new(Grants::everything()), offset).await.unwrap();
        subscriptions.with(|table| table.note_unsaved(key));
    }
    // While the first one is stored, the second one is removed.
    store.polls.store(1, Ordering::Relaxed);
    let mut save = pin!(subscriptions.save());
    assert!(save.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(subscriptions.remove(&removed).await.unwrap());
    save.await.unwrap();
    let stored: Vec<_> = restored(&hub).await.unwrap().into_iter().map(|(key, ..)| key).collect();
    assert_eq!(stored, [kept]);
}
