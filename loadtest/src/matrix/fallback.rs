//! [`Fallback`]: the client that falls back from form to form, as a reader in the matrix.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pollgate_client::{Client as Falling, Event, Item, Settings, Start};
use tokio::time::Instant;

use super::scale::Scale;
use crate::client::Client;

/// Number of recent events that are kept.
const EVENTS_MAX: usize = 200;

/// The form in use and the recent events of one client.
#[derive(Debug, Default)]
pub(super) struct Fallback(Mutex<ClientState>);

#[derive(Debug, Default)]
struct ClientState {
    form: Option<String>,
    changes: VecDeque<String>,
}

impl Fallback {
    /// Reads a stream from its beginning, with the client's default settings, scaled.
    pub(super) async fn read(self: Arc<Self>, client: Client, scale: Scale) {
        let began = Instant::now();
        let on_event = move |event: &Event| self.note(began.elapsed(), event);
        let url = format!("http://{}", client.target.address);
        let falling = match Falling::builder(&url).settings(settings(scale)).on_event(on_event).build() {
            Ok(falling) => falling,
            Err(error) => return client.recorder.troubles.note(format!("reading: {error}")),
        };
        let mut subscription = falling.subscribe([&client.stream], Start::earliest());
        while let Some(item) = subscription.next().await {
            match item {
                Item::Message(message) => drop(client.receive(message.data.bytes())),
                other => client.recorder.troubles.note(format!("reading: {other:?}")),
            }
        }
    }

    fn note(&self, after: Duration, event: &Event) {
        let mut said = self.0.lock();
        let what = match event {
            Event::Form { from: None, to, .. } => format!("{to}"),
            Event::Form { from: Some(from), to, reason } => format!("{from} -> {to} ({reason})"),
            Event::Restart { wait } => format!("away, again in {wait:.1?}"),
            Event::NotGateway => "not the gateway".to_owned(),
            other => format!("{other:?}"),
        };
        if let Event::Form { to, .. } = event {
            said.form = Some(to.to_string());
        }
        if said.changes.len() == EVENTS_MAX {
            said.changes.pop_front();
        }
        said.changes.push_back(format!("{:.1} s: {what}", after.as_secs_f64()));
    }

    /// Returns the form in use; empty before the first.
    pub(super) fn form(&self) -> String {
        self.0.lock().form.clone().unwrap_or_default()
    }

    /// Returns the recent events in order, each with the seconds since the start.
    pub(super) fn changes(&self) -> Vec<String> {
        self.0.lock().changes.iter().cloned().collect()
    }
}

/// The client's default settings with scaled times.
fn settings(scale: Scale) -> Settings {
    let real = Settings::default();
    Settings {
        envelope_timeout: scale.of(real.envelope_timeout),
        envelope_timeout_max: scale.of(real.envelope_timeout_max),
        stable_after: scale.of(real.stable_after),
        hold: scale.whole(real.hold),
        answer_timeout: scale.of(real.answer_timeout),
        interval: scale.of(real.interval),
        backoff_min: scale.of(real.backoff_min),
        backoff_max: scale.of(real.backoff_max),
        reprobe_after: scale.of(real.reprobe_after),
        reprobe_max: scale.of(real.reprobe_max),
        heartbeat_min: scale.whole(real.heartbeat_min),
        heartbeat_max: scale.whole(real.heartbeat_max),
        ..real
    }
}
