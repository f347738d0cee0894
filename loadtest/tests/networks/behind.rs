//! A gateway behind a hostile network, and the client that falls back in front of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loadtest::network::{Middlebox, Profile};
use loadtest::servers::{Running, gateway_program, gateway_with};
use parking_lot::Mutex;
use pollgate_client::{Builder, Client, Event, Form, Item, Producer, Reason, Start};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ends::{ANY, HANGS};

/// How often a reader that has no message looks whether its position is known.
const TICK: Duration = Duration::from_millis(10);

pub(crate) struct Behind {
    pub(crate) gateway: Running,
    pub(crate) middlebox: Middlebox,
}

impl Behind {
    pub(crate) async fn of(profile: &Profile, settings: &[&str]) -> Self {
        let settings: Vec<_> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let program = gateway_program(Path::new(env!("CARGO_BIN_EXE_loadtest"))).unwrap();
        let gateway = gateway_with(Some(&program), &settings).await.unwrap();
        let middlebox = Middlebox::start(profile, ANY, gateway.target.address).unwrap();
        Self { gateway, middlebox }
    }

    /// Returns a client that connects through the network.
    pub(crate) fn client(&self) -> Builder {
        Client::builder(&format!("http://{}", self.middlebox.address()))
    }

    /// Returns a producer that connects to the gateway directly.
    pub(crate) fn producer(&self, stream: &str) -> Producer {
        let url = format!("http://{}", self.gateway.target.address);
        Client::new(&url).unwrap().producer(stream, "application/json")
    }

    /// Returns the gateway's metrics.
    pub(crate) async fn metrics(&self) -> String {
        let admin = self.gateway.admin.unwrap();
        let request = hyper::Request::builder().uri("/metrics").header("host", "localhost");
        let mut connection =
            loadtest::wire::Connection::over(loadtest::wire::open(admin).await.unwrap()).await.unwrap();
        let answer = connection.exchange(request.body(Default::default()).unwrap()).await.unwrap();
        String::from_utf8(answer.body().to_vec()).unwrap()
    }
}

/// Reads messages as they arrive, like a program that does nothing else.
pub(crate) struct Reading {
    messages: mpsc::UnboundedReceiver<String>,
    /// Whether its position is known.
    begun: watch::Receiver<bool>,
    changes: Changes,
    _asking: JoinSet<()>,
}

impl Reading {
    /// Starts to read a stream with the client that `client` builds.
    pub(crate) fn start(client: Builder, stream: &str, start: Start) -> Self {
        let changes = Changes::default();
        let client = client.on_event(changes.told()).build().unwrap();
        let mut subscription = client.subscribe([stream], start);
        let (heard, messages) = mpsc::unbounded_channel();
        let (begins, begun) = watch::channel(false);
        let mut asking = JoinSet::new();
        asking.spawn(async move {
            loop {
                // The position comes with the first response, and may be known long before there is an item.
                let item = timeout(TICK, subscription.next()).await;
                begins.send_replace(subscription.resume_token().is_some());
                match item {
                    Ok(Some(Item::Message(message))) => {
                        heard.send(String::from_utf8(message.data.bytes().to_vec()).unwrap()).unwrap();
                    }
                    Err(_) | Ok(Some(Item::Missing { .. })) => {}
                    Ok(None) => return,
                    Ok(Some(other)) => panic!("{other:?}"),
                }
            }
        });
        Self { messages, begun, changes, _asking: asking }
    }

    /// Waits until it gets everything that is published from then on, if it starts with what is new.
    pub(crate) async fn has_begun(&mut self) {
        timeout(HANGS, self.begun.wait_for(|begun| *begun)).await.expect("no position in a minute").unwrap();
    }

    /// Waits for the next message.
    pub(crate) async fn message(&mut self) -> String {
        timeout(HANGS, self.messages.recv()).await.expect("no message in a minute").unwrap()
    }

    /// Returns each form that the client has used, with its reason.
    pub(crate) fn changes(&self) -> Vec<(Form, Reason)> {
        self.changes.0.lock().clone()
    }

    /// Returns the form in use.
    pub(crate) fn form(&self) -> Form {
        self.changes().last().unwrap().0
    }
}

/// The changes of form that a client has reported.
#[derive(Clone, Default)]
struct Changes(Arc<Mutex<Vec<(Form, Reason)>>>);

impl Changes {
    fn told(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let changes = self.0.clone();
        move |event| {
            if let Event::Form { to, reason, .. } = event {
                changes.lock().push((*to, *reason));
            }
        }
    }
}
