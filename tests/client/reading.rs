//! Helpers of the scenarios: clients with short timeouts, and messages that are numbers.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pollgate_client::{
    Builder, Client, Data, Event, Form, Item, Producer, Reason, ResumeToken, Settings, Subscription,
};
use tokio::time::timeout;

use crate::world::PATIENCE;

/// Timeouts that are short enough for a test.
pub(crate) fn settings() -> Settings {
    Settings {
        envelope_timeout: Duration::from_millis(1000),
        envelope_timeout_max: Duration::from_secs(3),
        stable_after: Duration::from_secs(1),
        hold: Duration::from_secs(3),
        answer_timeout: Duration::from_secs(2),
        interval: Duration::from_millis(50),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(500),
        reprobe_after: Duration::from_secs(2),
        reprobe_max: Duration::from_secs(4),
        heartbeat_min: Duration::from_secs(1),
        ..Settings::default()
    }
}

/// Returns the same settings for networks in which each form works or is told from one that does not, however slow the machine is.
pub(crate) fn patient() -> Settings {
    Settings { envelope_timeout: PATIENCE, envelope_timeout_max: PATIENCE, ..settings() }
}

/// Returns the same settings with one form only.
pub(crate) fn only(form: Form) -> Settings {
    Settings { forms: vec![form], ..settings() }
}

/// Events of a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().clone()
    }

    /// Returns the changes of form.
    pub(crate) fn changes(&self) -> Vec<(Form, Reason)> {
        let change = |event: &Event| match event {
            Event::Form { to, reason, .. } => Some((*to, *reason)),
            _ => None,
        };
        self.0.lock().iter().filter_map(change).collect()
    }
}

/// Creates a client whose events are recorded.
pub(crate) fn client(address: SocketAddr, settings: Settings) -> (Client, Told) {
    let (builder, told) = builder(&format!("http://{address}"), settings);
    (builder.build().unwrap(), told)
}

/// Returns the builder of such a client.
pub(crate) fn builder(url: &str, settings: Settings) -> (Builder, Told) {
    let told = Told::default();
    let events = told.clone();
    let builder = Client::builder(url).settings(settings);
    (builder.on_event(move |event| events.0.lock().push(event.clone())), told)
}

/// Publishes numbers, in order and each acknowledged.
pub(crate) async fn publish(producer: &Producer, numbers: Range<u64>) {
    let all = numbers.map(|number| producer.publish(number.to_string()));
    for outcome in futures_util::future::join_all(all).await {
        outcome.expect("published");
    }
}

/// Returns the next item.
pub(crate) async fn next(subscription: &mut Subscription) -> Item {
    let item = timeout(PATIENCE, subscription.next()).await;
    item.unwrap_or_else(|_| panic!("nothing came within {PATIENCE:?}")).expect("it goes on")
}

/// Returns the next message, which must be a number.
pub(crate) async fn number(subscription: &mut Subscription) -> u64 {
    match next(subscription).await {
        Item::Message(message) => match message.data {
            Data::Json(value) => value.get().parse().expect("a number"),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Reads `numbers`, and asserts that they arrive in order and each once.
pub(crate) async fn expect(subscription: &mut Subscription, numbers: Range<u64>) {
    for expected in numbers {
        assert_eq!(number(subscription).await, expected);
    }
}

/// Marks the last item as handled by a read that finds no further one, and returns the resume token after that.
pub(crate) async fn settle(subscription: &mut Subscription) -> ResumeToken {
    let asked = timeout(Duration::ZERO, subscription.next()).await;
    assert!(asked.is_err(), "{asked:?}");
    subscription.resume_token().expect("something was answered").clone()
}
