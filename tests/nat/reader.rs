//! A client on the other side of the NAT, which reports each message with its time of arrival.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pollgate_client::{Client, Data, Event, Form, Item, Settings, Start};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout};

use crate::block_on;
use crate::network::Network;

/// Reads a stream of numbers in one form. It ends at the next message after this is dropped.
pub(crate) struct Reader {
    pub(crate) form: Form,
    arrived: UnboundedReceiver<(u64, Instant)>,
    /// Events of the client.
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    next: u64,
}

impl Reader {
    /// Starts to read `stream` from its beginning.
    pub(crate) fn start(
        network: &Network,
        address: SocketAddr,
        stream: &str,
        form: Form,
        settings: Settings,
    ) -> Self {
        let (arrive, arrived) = unbounded_channel();
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let (heard, stream) = (events.clone(), stream.to_owned());
        network.on_client(move || {
            block_on(async {
                let client = Client::builder(&format!("http://{address}"))
                    .settings(Settings { forms: vec![form], ..settings })
                    .on_event(move |event| heard.lock().expect("no panic").push(event.clone()))
                    .build()
                    .expect("a URL");
                let mut subscription = client.subscribe([stream], Start::earliest());
                while let Some(item) = subscription.next().await {
                    let Item::Message(message) = item else { panic!("{item:?}") };
                    let Data::Json(number) = &message.data else { panic!("not JSON") };
                    let number = number.get().parse().expect("a number");
                    if arrive.send((number, Instant::now())).is_err() {
                        return;
                    }
                }
            });
        });
        Self { form, arrived, events, next: 0 }
    }

    /// Waits for the next message, which must be the next number, and returns when it arrived.
    pub(crate) async fn next(&mut self, within: Duration) -> Instant {
        let arrived = timeout(within, self.arrived.recv()).await;
        let arrived = arrived.unwrap_or_else(|_| panic!("{}: no {} within {within:?}", self.form, self.next));
        let (number, at) = arrived.expect("the client runs");
        assert_eq!(number, self.next, "{}: out of order, lost or doubled", self.form);
        self.next += 1;
        at
    }
}
