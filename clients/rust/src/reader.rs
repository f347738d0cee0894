//! The task of a subscription: does what the policy says, and delivers what arrives.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::attempt::Form;
use crate::attempt::{End, Ended};
use crate::connection::Connection;
use crate::envelope::{Envelope, Received};
use crate::event::Event;
use crate::forms::Reading;
use crate::item::{Item, Message};
use crate::policy::{Policy, Step};
use crate::refusal::{Refusal, is_about_credentials};
use crate::request::Selection;
use crate::resume_token::TokenChange;
use crate::settings::Shared;

/// An idle connection that breaks within this time had been closed before: that says nothing about the network.
const STALE: Duration = Duration::from_secs(1);

/// Items of an envelope, and the change of the resume token behind all of them.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) items: Vec<Item>,
    pub(crate) token: TokenChange,
}

/// Where the task delivers to.
pub(crate) struct Output {
    pub(crate) deliveries: mpsc::Sender<Delivery>,
    pub(crate) form: watch::Sender<Option<Form>>,
}

/// State of the task.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    network: watch::Receiver<Arc<str>>,
    selection: Selection,
    policy: Policy,
    idle: Option<Connection>,
    output: Output,
    /// The token was fetched again after a refusal, and nothing has arrived since.
    renewed: bool,
    /// Streams that the token does not grant, as the user knows. The gateway repeats it in each response.
    forbidden: HashSet<Arc<str>>,
    /// Whether the resume token has changed without items and the user does not know it yet.
    token_untold: bool,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, selection: Selection, output: Output) -> Self {
        let network = shared.network.subscribe();
        let known = shared.memory.lock().of(&network.borrow());
        let policy = Policy::new(shared.settings.clone(), known, fastrand::Rng::new(), Instant::now());
        Self {
            shared,
            network,
            selection,
            policy,
            idle: None,
            output,
            renewed: false,
            forbidden: HashSet::new(),
            token_untold: false,
        }
    }

    /// Reads until the subscription is dropped, or until a refusal that is final.
    pub(crate) async fn run(mut self) {
        if let Some(refusal) = self.selection.refusal() {
            return self.finish(Item::Refused(refusal)).await;
        }
        loop {
            self.notice_network();
            let step = self.policy.next(Instant::now());
            self.report();
            match step {
                Step::Wait(until) => select! {
                    () = sleep_until(until) => {}
                    _changed = self.network.changed() => self.network.mark_changed(),
                },
                Step::Read => {
                    if let Some(last) = self.read().await {
                        return self.finish(last).await;
                    }
                }
            }
            self.report();
        }
    }

    /// Makes one attempt. Returns the last item if no other attempt makes sense.
    async fn read(&mut self) -> Option<Item> {
        if let Err(refusal) = self.shared.endpoint.credentials.ready().await {
            return Some(Item::Refused(refusal));
        }
        // Only now, as the user's function may take long.
        self.policy.begin(Instant::now());
        let version = self.shared.endpoint.credentials.version();
        let ended = self.attempt().await;
        let is_outdated = version != self.shared.endpoint.credentials.version();
        let now = Instant::now();
        match ended {
            // The token was replaced while the request was under way: it is repeated with the new one.
            ended if is_outdated && ended.status().is_some_and(is_about_credentials) => {}
            // The token has ended, or was revoked: once, another one is tried.
            ended if ended.status() == Some(401) && self.may_renew(version) => self.renewed = true,
            Ended::Attempt(End::Refused(status)) if self.policy.is_final(status) => {
                return Some(Item::Refused(Refusal::of_credentials(status)));
            }
            Ended::Attempt(end) => self.policy.ended(end, now),
            Ended::ForGood(refusal) => return Some(Item::Refused(refusal)),
            Ended::Intercepted(error) => {
                self.shared.on_event.report(&Event::Untrusted(error));
                self.policy.ended(End::NotGateway, now);
            }
            Ended::Untrusted(error) => return Some(Item::Untrusted(error)),
        }
        None
    }

    fn may_renew(&self, version: u64) -> bool {
        !self.renewed && self.shared.endpoint.credentials.refused(version)
    }

    async fn attempt(&mut self) -> Ended {
        let mut reading = match self.open().await {
            Ok(reading) => reading,
            Err(ended) => return ended,
        };
        loop {
            match in_time(&self.policy, &mut self.network, reading.next()).await {
                Ok(Received::Bytes) => self.policy.alive(Instant::now()),
                Ok(Received::Envelope(envelope)) => self.take(envelope).await,
                Err(ended) => {
                    if let Ended::Attempt(End::Clean) = ended {
                        self.idle = reading.into_connection();
                    }
                    return ended;
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Reading, Ended> {
        loop {
            let endpoint = &self.shared.endpoint;
            let connecting = Connection::reused_or_new(self.idle.take(), endpoint);
            let connecting = async { connecting.await.map_err(Ended::from) };
            let (connection, reused) = in_time(&self.policy, &mut self.network, connecting).await?;
            let connected = Instant::now();
            self.policy.connected(connected);
            let opening = Reading::open(connection, &self.selection, self.policy.attempt(), endpoint);
            match in_time(&self.policy, &mut self.network, opening).await {
                Err(Ended::Attempt(End::Cut)) if reused && connected.elapsed() < STALE => {}
                Err(ended) => return Err(ended),
                Ok(reading) => {
                    self.policy.answered(Instant::now());
                    return Ok(reading);
                }
            }
        }
    }

    async fn take(&mut self, envelope: Envelope) {
        let Envelope { mut items, token, up_to_date } = envelope;
        self.renewed = false;
        items.retain(|item| match item {
            Item::Forbidden { stream } => self.forbidden.insert(stream.clone()),
            Item::Message(Message { stream, .. }) | Item::Missing { stream } => {
                self.forbidden.remove(stream);
                true
            }
            _ => true,
        });
        self.policy.envelope(up_to_date, Instant::now());
        self.report();
        if !token.apply(&mut self.selection.token) && items.is_empty() {
            return;
        }
        let token = if self.token_untold { TokenChange::to(self.selection.token.as_ref()) } else { token };
        let is_empty = items.is_empty();
        let sent = self.output.deliveries.try_send(Delivery { items, token });
        self.token_untold = is_empty && sent.is_err();
        if let Err(TrySendError::Full(delivery)) = sent
            && !is_empty
        {
            // It fails only if the subscription is being dropped, and this task with it.
            let since = Instant::now();
            let _taken = self.output.deliveries.send(delivery).await;
            self.policy.handed_over(since, Instant::now());
        }
    }

    /// Delivers the last item.
    async fn finish(self, last: Item) {
        let delivery = Delivery { items: vec![last], token: TokenChange::Unchanged };
        let _taken = self.output.deliveries.send(delivery).await;
    }

    fn notice_network(&mut self) {
        if self.network.has_changed().unwrap_or(false) {
            let label = self.network.borrow_and_update().clone();
            let known = self.shared.memory.lock().of(&label);
            self.policy.network_changed(known, Instant::now());
            self.idle = None;
        }
    }

    /// Reports the events of the policy, and remembers what it has learned.
    fn report(&mut self) {
        for event in self.policy.take_events() {
            if let Event::Form { to, .. } = event {
                self.output.form.send_replace(Some(to));
            }
            self.shared.on_event.report(&event);
        }
        if let Some(known) = self.policy.take_learned() {
            self.shared.memory.lock().remember(known);
        }
    }
}

/// Does `work` until the deadline of the attempt, or until the network changes.
async fn in_time<T>(
    policy: &Policy,
    network: &mut watch::Receiver<Arc<str>>,
    work: impl Future<Output = Result<T, Ended>>,
) -> Result<T, Ended> {
    select! {
        biased;
        result = work => result,
        _changed = network.changed() => {
            network.mark_changed();
            Err(End::Left.into())
        }
        () = sleep_until(policy.attempt().deadline()) => {
            Err(policy.attempt().expired(Instant::now()).into())
        }
    }
}
